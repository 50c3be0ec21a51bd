"""What is mounted, as this process sees it."""

from __future__ import annotations

import re
from pathlib import Path

from iaas.drivers.linux.programs import run_program


def mount_points() -> list[Path]:
    """Return all mount points, in the order in which they were made. Source: proc_pid_mountinfo(5), field 5."""
    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    return [Path(_unescape(line.split(" ")[4])) for line in lines]


def mount_points_under(folder: Path) -> list[Path]:
    """Return the mount points at or below ``folder``, the last made first (the order in which to undo them)."""
    return [point for point in reversed(mount_points()) if point == folder or folder in point.parents]


def is_mount_point(path: Path) -> bool:
    """Return whether something is mounted exactly here (unlike os.path.ismount, also a bind of the same disk)."""
    return path in mount_points()


def unmount_all(folder: Path) -> list[Path]:
    """Unmount everything at or below ``folder``, lazily, and return what it was."""
    undone: list[Path] = []
    while points := mount_points_under(folder):
        run_program(["umount", "--lazy", str(points[0])])
        undone.append(points[0])
    return undone


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
