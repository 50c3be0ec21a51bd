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
        self._owner: int | None = None
        self._waiting: deque[threading.Lock] = deque()
        self._short = 0  # how many of those who wait want little

    def take(self, *, is_short: bool = True) -> None:
        """Return when it is this thread's turn; ``is_short`` is false for who does as much as there is to do."""
        with self._lock:
            if not self.is_taken:
                self.is_taken = True
                self._owner = threading.get_ident()
                return
            called = threading.Lock()
            called.acquire()
            self._waiting.append(called)
            self._short += is_short
        called.acquire()
        with self._lock:
            self._short -= is_short
        self._owner = threading.get_ident()

    def give(self) -> None:
        """End this thread's turn."""
        self._owner = None
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self.is_taken = False

    def let_others_first(self) -> None:
        """If this is our turn and others wait for a short one: let all of them have theirs, then go on."""
        if self._short and self._owner == threading.get_ident():
            self.give()
            self.take()

    @contextmanager
    def turn(self, *, is_short: bool = True) -> Iterator[None]:
        """Take a turn for the length of the block."""
        self.take(is_short=is_short)
        try:
            yield
        finally:
            self.give()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)
