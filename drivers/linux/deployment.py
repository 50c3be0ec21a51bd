"""Whose is what: the state folder of a deployment, its lock, and how others find it.

Everything that one deployment has on the machine hangs on its tag and its state folder. The server of a
deployment holds an exclusive flock(2) on ``server.lock`` there for as long as it lives; a deployment whose
lock is free is at rest, and may be removed.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from iaas.drivers.interface import PermanentError
from iaas.drivers.linux.names import check_tag
from iaas.drivers.linux.records import ensure_folder, read_record, write_record

LOCK_NAME = "server.lock"
RECORD_NAME = "deployment.json"

# A socket's path has 107 characters at most (unix(7)); the daemons append up to two dozen to the state folder.
STATE_DIR_MAX_LENGTH = 80


class DeploymentLiveError(PermanentError):
    """The deployment's server is running: nothing was touched."""


class DeploymentLock:
    """The lock of a running deployment. Goes away with the process, however it ends.

    Raises:
        DeploymentLiveError: another process, or another lock of this one, holds it.
    """

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / LOCK_NAME
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            os.close(self._handle)
            raise DeploymentLiveError(f"a server of the deployment in {state_dir} is running") from exc

    def release(self) -> None:
        """Let go; a second call does nothing."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> DeploymentLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def is_live(state_dir: Path) -> bool:
    """Return whether a server holds the deployment's lock."""
    try:
        handle = os.open(state_dir / LOCK_NAME, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment found on this host."""

    tag: str
    state_dir: Path
    is_live: bool


def find_deployments(parent: Path) -> list[Deployment]:
    """Return the deployments whose state folders lie directly in ``parent``, running or not."""
    found = []
    for folder in sorted(parent.iterdir()) if parent.is_dir() else []:
        record = read_record(folder / RECORD_NAME) if folder.is_dir() else None
        if record is not None:
            found.append(Deployment(check_tag(record["tag"]), folder, is_live(folder)))
    return found


def claim_state_dir(tag: str, state_dir: Path) -> None:
    """Make the state folder, searchable by QEMU's user, and write there whose it is.

    Raises:
        PermanentError: it belongs to another tag, its path is too long, or a folder above it is closed to
            others (the message says which and what to do).
    """
    check_tag(tag)
    if len(str(state_dir)) > STATE_DIR_MAX_LENGTH or not state_dir.is_absolute():
        raise PermanentError(
            f"the state folder {state_dir} must be an absolute path of at most {STATE_DIR_MAX_LENGTH} characters: "
            "the sockets of libvirt and LXD are in it"
        )
    for folder in closed_folders(state_dir.parent):
        raise PermanentError(
            f"QEMU, which runs as an unprivileged user, cannot reach {state_dir}: {folder} is closed to others. "
            f"Run: chmod o+x {folder}, or use a state folder elsewhere, such as /var/lib/iaas"
        )
    ensure_folder(state_dir, mode=0o711)  # names inside stay unlisted for others
    record = read_record(state_dir / RECORD_NAME)
    if record is None:
        write_record(state_dir / RECORD_NAME, {"tag": tag})
    elif record["tag"] != tag:
        raise PermanentError(
            f"the state folder {state_dir} belongs to the deployment {record['tag']!r}, not to {tag!r}"
        )


def closed_folders(folder: Path) -> list[Path]:
    """Return this folder and those above it that other users cannot search; ones yet to be made are not counted."""
    return [place for place in (folder, *folder.parents) if place.exists() and not place.stat().st_mode & 0o001]
