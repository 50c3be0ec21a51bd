"""Console logs that last.

LXD hands out what a running guest wrote since the last look, and then forgets it; at a stop it keeps
the rest, in place of what it had kept before. So each look is added to a file of our own.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from pathlib import Path

from iaas.drivers.interface import TransientError
from iaas.drivers.lxd.connection import LXDConnection
from iaas.kernel.units import MIB

KEPT_BYTES = MIB  # of each machine's log; twice as much before it is cut back to this
ACTION = "read the console"


class ConsoleLogs:
    """The console logs of one deployment, a file per machine in ``folder`` (made when first needed)."""

    def __init__(self, folder: Path, connection: LXDConnection) -> None:
        self._folder = folder
        self._connection = connection
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def read(self, instance_name: str, *, is_running: bool, tail_bytes: int) -> bytes:
        """Return the last ``tail_bytes`` of all that the guest wrote, over its restarts."""
        with self._locks[instance_name]:
            self._collect(instance_name, is_running=is_running)
            return self._tail(instance_name, tail_bytes)

    def collect(self, instance_name: str, *, is_running: bool) -> None:
        """Save what LXD would forget at the next start."""
        with self._locks[instance_name]:
            self._collect(instance_name, is_running=is_running)

    def forget(self, instance_name: str) -> None:
        """Delete the machine's log."""
        with self._locks[instance_name]:
            self._path(instance_name).unlink(missing_ok=True)

    def _collect(self, instance_name: str, *, is_running: bool) -> None:
        path = f"instances/{instance_name}/console"
        try:
            news = self._connection.get_file(path, action=ACTION).content
        except TransientError as exc:
            if is_nothing_new(exc):
                return
            raise
        if not news:
            return
        # What a stopped machine's file holds was either never handed out, or all of it was.
        if is_running or self._tail(instance_name, len(news)) != news:
            self._append(instance_name, news)
        if not is_running:
            self._connection.call("delete", path, action="clear the console log")

    def _append(self, instance_name: str, news: bytes) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(instance_name)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(news)
            is_long = file.tell() > 2 * KEPT_BYTES
        if is_long:
            path.write_bytes(self._tail(instance_name, KEPT_BYTES))

    def _tail(self, instance_name: str, tail_bytes: int) -> bytes:
        try:
            with self._path(instance_name).open("rb") as file:
                length = file.seek(0, os.SEEK_END)
                file.seek(max(0, length - tail_bytes))
                return file.read()
        except FileNotFoundError:
            return b""

    def _path(self, instance_name: str) -> Path:
        return self._folder / f"{instance_name}.log"


def is_nothing_new(exc: TransientError) -> bool:
    """Return whether LXD only meant that there is no output.

    LXD 5.0 fails with 500 "open ...: no such file or directory" both for a machine that was never
    started and for a running one that wrote nothing since the last look.
    """
    return "no such file or directory" in str(exc)
