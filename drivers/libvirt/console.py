"""The console log of a VM: a file that QEMU appends to."""

from __future__ import annotations

import os
from pathlib import Path

from iaas.kernel.units import MIB

LIMIT_BYTES = 8 * MIB
KEPT_BYTES = 1 * MIB


def read_tail(path: Path, tail_bytes: int) -> bytes:
    """Return at most ``tail_bytes`` from the end; empty when there is no file yet."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - tail_bytes))
            return stream.read(tail_bytes)
    except FileNotFoundError:
        return b""


def shorten(path: Path) -> None:
    """Cut the log to its last part when it has grown beyond the limit; works while QEMU writes to it.

    QEMU has it open for appending, so what it writes next lands at the new end; a line written in between
    may be lost, which is the price of a disk that no talkative guest can fill by being looked at.
    """
    try:
        if path.stat().st_size <= LIMIT_BYTES:
            return
    except FileNotFoundError:
        return
    tail = read_tail(path, KEPT_BYTES)
    with path.open("r+b") as stream:
        stream.truncate(0)
        stream.write(tail)
