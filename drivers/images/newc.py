"""The archive format of an initial RAM file system, written here since few hosts have ``cpio``."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class NewcArchive:
    """A ``newc`` archive growing in memory; all files belong to root and have no time, so equal trees are equal bytes.

    Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
    """

    _data: bytearray = field(default_factory=bytearray)
    _inode: int = 0

    def add(self, name: str, mode: int, content: bytes = b"", *, device: tuple[int, int] = (0, 0)) -> None:
        """Append one entry; ``mode`` has the type bits, ``device`` is (major, minor) of a device node."""
        self._inode += 1
        encoded = name.encode() + b"\0"
        numbers = (self._inode, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(encoded), 0)
        self._data += b"070701" + b"".join(b"%08X" % number for number in numbers) + encoded
        self._pad()
        self._data += content
        self._pad()

    def _pad(self) -> None:
        self._data += b"\0" * (-len(self._data) % 4)

    def add_directory(self, name: str) -> None:
        self.add(name, stat.S_IFDIR | 0o755)

    def add_file(self, name: str, source: Path, *, mode: int = 0o644) -> None:
        """Append a regular file with the content of ``source``."""
        self.add(name, stat.S_IFREG | mode, source.read_bytes())

    def add_device(self, name: str, major: int, minor: int) -> None:
        """Append a character device node (no node is made on this host, so no root is needed)."""
        self.add(name, stat.S_IFCHR | 0o600, device=(major, minor))

    def add_tree(self, root: Path) -> None:
        """Append everything under ``root``, in sorted order."""
        for folder, folders, files in os.walk(root):
            folders.sort()
            place = Path(folder)
            if place != root:
                self.add_directory(str(place.relative_to(root)))
            for name in sorted([*files, *(name for name in folders if (place / name).is_symlink())]):
                path = place / name
                inside = str(path.relative_to(root))
                if path.is_symlink():
                    self.add(inside, stat.S_IFLNK | 0o777, os.readlink(path).encode())
                else:
                    self.add_file(inside, path, mode=stat.S_IMODE(path.stat().st_mode))

    def finish(self) -> bytes:
        """Return the whole archive; nothing may be added after."""
        self.add("TRAILER!!!", 0)
        return bytes(self._data)
