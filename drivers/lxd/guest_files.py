"""Files in a guest through LXD's file API, which needs nothing in the guest and works on stopped ones too."""

from __future__ import annotations

from pathlib import PurePosixPath

from iaas.drivers.interface import GuestFile, NotFoundError
from iaas.drivers.lxd.connection import LXDConnection

ACTION = "reach a file of the guest"


def file_exists(connection: LXDConnection, instance_name: str, path: str) -> bool:
    """Return whether the guest has ``path``, seen with its own mounts while it runs.

    False also where there is no such instance.
    """
    try:
        connection.get_file(f"instances/{instance_name}/files", action=ACTION, params={"path": path})
    except NotFoundError:
        return False
    return True


def push_file(connection: LXDConnection, instance_name: str, file: GuestFile) -> None:
    """Write ``file`` as root's, in place of what is there; folders on the way are made (0755).

    Raises:
        NotFoundError: there is no such instance.
    """
    path = PurePosixPath(file.path)
    before = _mode(connection, instance_name, path)
    if before is not None and before != file.mode:
        # LXD writes into the file that is there, which keeps its mode: a secret could stay readable.
        connection.call("delete", f"instances/{instance_name}/files", action=ACTION, params=_at(path))
    try:
        _post(connection, instance_name, path, "file", mode=file.mode, content=file.content)
    except NotFoundError:
        for folder in reversed(path.parents[:-1]):
            if not file_exists(connection, instance_name, str(folder)):
                _post(connection, instance_name, folder, "directory", mode=0o755, content=b"")
        _post(connection, instance_name, path, "file", mode=file.mode, content=file.content)


def _mode(connection: LXDConnection, instance_name: str, path: PurePosixPath) -> int | None:
    try:
        headers = connection.get_file(f"instances/{instance_name}/files", action=ACTION, params=_at(path)).headers
    except NotFoundError:
        return None
    text = headers.get("X-LXD-mode") or headers.get("X-Incus-mode") or ""
    return int(text, 8) if text else None


def _at(path: PurePosixPath) -> dict[str, str]:
    return {"path": str(path)}


def _post(
    connection: LXDConnection, instance_name: str, path: PurePosixPath, kind: str, *, mode: int, content: bytes
) -> None:
    about = {"uid": "0", "gid": "0", "mode": f"{mode:04o}", "type": kind, "write": "overwrite"}
    # The two projects differ in the header's prefix only; each ignores the other's.
    headers = {f"X-{product}-{key}": value for product in ("LXD", "Incus") for key, value in about.items()}
    connection.call(
        "post",
        f"instances/{instance_name}/files",
        action=ACTION,
        params=_at(path),
        data=content,
        headers=headers,
    )
