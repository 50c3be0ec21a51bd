"""Turns: threads that all compute, in a process where one at a time can, go one after the other.

Python lets one thread compute at a time and changes to another whenever one of them enters the database, some
sixty times for one request. With a few busy threads most of the time then goes into changing. Whoever has
the turn keeps it for a whole request (or a slice of jobs), and the others sleep.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A lock that goes to who has waited longest. Not reentrant; whoever may wait for something must not hold it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.is_taken = False
        self._waiting: deque[threading.Lock] = deque()

    def take(self) -> None:
        """Return when it is this thread's turn."""
        with self._lock:
            if not self.is_taken:
                self.is_taken = True
                return
            called = threading.Lock()
            called.acquire()
            self._waiting.append(called)
        called.acquire()

    def give(self) -> None:
        """End this thread's turn."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self.is_taken = False

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Take a turn for the length of the block."""
        self.take()
        try:
            yield
        finally:
            self.give()

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiting)
