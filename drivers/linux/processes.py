"""Find and end processes by what they are (their argument list), never by a remembered number alone.

A pid file says what was; the kernel says what is. Signals go through a pidfd that is checked after it
was opened, so a number that was given to another process meanwhile is never hit.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """One process with an argument list (no kernel thread, no zombie)."""

    pid: int
    argv: tuple[str, ...]

    @property
    def program(self) -> str:
        """Base name of the program as it was called."""
        return self.argv[0].rpartition("/")[2]

    @property
    def title(self) -> str:
        """All arguments, for people."""
        return " ".join(self.argv).strip()[:120]


def read_process(pid: int) -> Process | None:
    """Return the process as it is now; None when there is none with an argument list."""
    try:
        raw = (PROC / str(pid) / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    argv = tuple(part.decode(errors="replace") for part in raw.rstrip(b"\0").split(b"\0"))
    return Process(pid, argv) if argv[0] else None


def all_processes() -> Iterator[Process]:
    """Yield every process that has an argument list."""
    for entry in os.listdir(PROC):
        if entry.isdigit() and (process := read_process(int(entry))) is not None:
            yield process


def find_processes(matches: Callable[[Process], bool]) -> list[Process]:
    """Return the processes that ``matches`` accepts."""
    return [process for process in all_processes() if matches(process)]


def parent_pid(pid: int) -> int | None:
    """Return the parent's pid, None when the process is gone. Source: proc_pid_stat(5), field 4."""
    try:
        stat = (PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(")")[2].split()[1])


def namespace_inode(pid: int, kind: str) -> int | None:
    """Return the inode of the process's ``net`` or ``mnt`` namespace; None when it is gone or closed even to root."""
    try:
        return os.stat(PROC / str(pid) / "ns" / kind).st_ino
    except (FileNotFoundError, ProcessLookupError):
        return None
    except PermissionError:  # the init of a machine may have more rights than we; it is none of ours then
        return None


def descendants(pids: Iterable[int]) -> set[int]:
    """Return the children of these, and theirs, as they are now; without the given ones."""
    children: dict[int, list[int]] = {}
    for process in all_processes():
        parent = parent_pid(process.pid)
        if parent is not None:
            children.setdefault(parent, []).append(process.pid)
    found: set[int] = set()
    frontier = list(pids)
    while frontier:
        fresh = [child for child in children.get(frontier.pop(), []) if child not in found]
        found.update(fresh)
        frontier.extend(fresh)
    return found


def end_processes(processes: Iterable[Process], *, grace_s: float, kill_wait_s: float = 10) -> list[Process]:
    """End the processes, asking first when ``grace_s`` is above 0, and return those that live on (normally none).

    Those that do not go within ``grace_s`` are killed.
    """
    with _Handles(processes) as handles:
        if grace_s > 0:
            handles.send(signal.SIGTERM)
            handles.wait(grace_s)
        handles.send(signal.SIGKILL)
        handles.wait(kill_wait_s)
        return handles.alive()


def signal_processes(processes: Iterable[Process], signal_number: int) -> None:
    """Send a signal to each; those that ended meanwhile are passed over."""
    with _Handles(processes) as handles:
        handles.send(signal_number)


class _Handles:
    """Open pidfds of processes. A pidfd becomes readable when its process has ended. Source: pidfd_open(2)."""

    def __init__(self, processes: Iterable[Process]) -> None:
        self._open: dict[int, Process] = {}
        for process in processes:
            try:
                handle = os.pidfd_open(process.pid)
            except ProcessLookupError:
                continue
            if read_process(process.pid) == process:
                self._open[handle] = process
            else:
                os.close(handle)

    def __enter__(self) -> _Handles:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in list(self._open):
            self._forget(handle)

    def _forget(self, handle: int) -> None:
        del self._open[handle]
        os.close(handle)

    def send(self, signal_number: int) -> None:
        for handle in list(self._open):
            try:
                signal.pidfd_send_signal(handle, signal_number)
            except ProcessLookupError:
                self._forget(handle)

    def wait(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while self._open and (left_s := deadline - time.monotonic()) > 0:
            poll = select.poll()
            for handle in self._open:
                poll.register(handle, select.POLLIN)
            for handle, _ in poll.poll(left_s * 1000):
                self._forget(handle)

    def alive(self) -> list[Process]:
        return list(self._open.values())
