"""The file tree of a simulated guest: a fixed base made from the machine's facts, and what was written to it."""

from __future__ import annotations

import posixpath
import sqlite3
import stat
from collections.abc import Callable, Iterable, Mapping

_FOLDERS = "bin dev etc etc/qingcloud home mnt proc root run sbin sys tmp usr usr/bin usr/sbin var var/log var/www"
ROOT_FOLDERS = frozenset({"/", *(f"/{name}" for name in _FOLDERS.split())})
COMMAND_FOLDERS = ("/bin", "/sbin", "/usr/bin", "/usr/sbin")
CONSOLES = frozenset({"/dev/console", "/dev/ttyS0"})
DEVICES = CONSOLES | {"/dev/null", "/dev/zero"}
_WHITEOUT = 0  # the mode of a row that hides a file of the base


class GuestFileError(Exception):
    """A file operation failed; the message is what a shell prints after the path."""


class EndlessReadError(Exception):
    """A device that never ends was read without a limit."""


class GuestFiles:
    """One guest's files; lives as long as one driver call.

    Args:
        base: absolute path -> content of the regular files every guest of this machine has.
        programs: absolute paths of executables in the base.
        on_console: receives what is written to the console device.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        machine_id: str,
        *,
        base: Mapping[str, bytes],
        programs: frozenset[str],
        on_console: Callable[[bytes], None],
    ) -> None:
        self._connection = connection
        self._machine_id = machine_id
        self._base = base
        self._folders = ROOT_FOLDERS | _folders_above(base)
        self._programs = programs
        self._on_console = on_console

    @staticmethod
    def absolute(path: str, folder: str = "/") -> str:
        """Return ``path`` as seen from ``folder``, without dots and double slashes."""
        path = path.encode(errors="replace").decode()  # bytes of a file used as a name need not be text
        return "/" + posixpath.normpath(posixpath.join(folder, path)).lstrip("/")

    def mode(self, path: str) -> int | None:
        """Return type and permission bits as in ``st_mode``; None when there is nothing."""
        row = self._row(path)
        if row is not None:
            return row[0] or None
        if path in self._folders:
            return stat.S_IFDIR | 0o755
        if path in DEVICES:
            return stat.S_IFCHR | 0o666
        if path in self._programs:
            return stat.S_IFREG | 0o755
        return stat.S_IFREG | 0o644 if path in self._base else None

    def is_folder(self, path: str) -> bool:
        mode = self.mode(path)
        return mode is not None and stat.S_ISDIR(mode)

    def is_file(self, path: str) -> bool:
        mode = self.mode(path)
        return mode is not None and stat.S_ISREG(mode)

    def read(self, path: str, limit_bytes: int | None = None) -> bytes:
        """Return the content of a file, at most ``limit_bytes`` of it.

        Raises:
            GuestFileError: there is no such file, or it is a folder.
            EndlessReadError: it has no end, and no limit was given.
        """
        mode = self.mode(path)
        if mode is None:
            raise GuestFileError("No such file or directory")
        if stat.S_ISDIR(mode):
            raise GuestFileError("Is a directory")
        if path == "/dev/zero":
            if limit_bytes is None:
                raise EndlessReadError
            return bytes(limit_bytes)
        row = self._row(path)
        content = row[1] or b"" if row is not None else self._base.get(path, b"")
        return content if limit_bytes is None else content[:limit_bytes]

    def write(self, path: str, content: bytes, *, append: bool = False, mode: int | None = None) -> None:
        """Write a regular file, keeping its mode unless ``mode`` (permission bits) is given.

        Raises:
            GuestFileError: the path is a folder, or its folder is not there.
        """
        if path in DEVICES:
            if path in CONSOLES:
                self._on_console(content)
            return
        present = self.mode(path)
        if present is not None and stat.S_ISDIR(present):
            raise GuestFileError("Is a directory")
        if not self.is_folder(posixpath.dirname(path)):
            raise GuestFileError("No such file or directory")
        if append and present is not None:
            content = self.read(path) + content
        bits = mode if mode is not None else stat.S_IMODE(present) if present is not None else 0o644
        self._put(path, stat.S_IFREG | bits, content)

    def change_mode(self, path: str, bits: int) -> None:
        """Set the permission bits of a file or folder.

        Raises:
            GuestFileError: there is none.
        """
        mode = self.mode(path)
        if mode is None:
            raise GuestFileError("No such file or directory")
        if stat.S_ISREG(mode):
            self._put(path, stat.S_IFREG | bits, self.read(path))
        elif stat.S_ISDIR(mode):
            self._put(path, stat.S_IFDIR | bits, None)

    def make_folder(self, path: str, *, parents: bool = False) -> None:
        """Make a folder; with ``parents`` also those above it, and an existing one is success.

        Raises:
            GuestFileError: it is there already, or the one above it is not.
        """
        if self.mode(path) is not None:
            if parents and self.is_folder(path):
                return
            raise GuestFileError("File exists")
        above = posixpath.dirname(path)
        if not self.is_folder(above):
            if not parents:
                raise GuestFileError("No such file or directory")
            self.make_folder(above, parents=True)
        self._put(path, stat.S_IFDIR | 0o755, None)

    def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file, or with ``recursive`` a folder and all below it.

        Raises:
            GuestFileError: there is nothing, or it is a folder and ``recursive`` is false.
        """
        if self.mode(path) is None:
            raise GuestFileError("No such file or directory")
        if self.is_folder(path):
            if not recursive:
                raise GuestFileError("is a directory")
            for name in self.names(path):
                self.remove(self.absolute(name, path), recursive=True)
        self._put(path, _WHITEOUT, None)

    def names(self, folder: str) -> list[str]:
        """Return the sorted names in a folder.

        Raises:
            GuestFileError: it is not a folder.
        """
        if not self.is_folder(folder):
            raise GuestFileError("No such file or directory" if self.mode(folder) is None else "Not a directory")
        prefix = folder.rstrip("/") + "/"
        stored = self._connection.execute(
            "SELECT path FROM files WHERE machine_id = ? AND path > ? AND path < ?",
            (self._machine_id, prefix, prefix[:-1] + "0"),  # "0" follows "/"
        )
        paths = {row[0] for row in stored} | self._folders | DEVICES | self._programs | self._base.keys()
        below = {path for path in paths if posixpath.dirname(path) == folder and path != folder}
        return sorted(posixpath.basename(path) for path in below if self.mode(path) is not None)

    def _row(self, path: str) -> tuple[int, bytes | None] | None:
        row: tuple[int, bytes | None] | None = self._connection.execute(
            "SELECT mode, content FROM files WHERE machine_id = ? AND path = ?", (self._machine_id, path)
        ).fetchone()
        return row

    def _put(self, path: str, mode: int, content: bytes | None) -> None:
        self._connection.execute(
            "INSERT INTO files (machine_id, path, mode, content) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (machine_id, path) DO UPDATE SET mode = excluded.mode, content = excluded.content",
            (self._machine_id, path, mode, content),
        )


def _folders_above(paths: Iterable[str]) -> set[str]:
    """Return every folder that the paths lie in."""
    found: set[str] = set()
    for path in paths:
        while (path := posixpath.dirname(path)) not in found:
            found.add(path)
    return found
