"""Wakes those who follow the events, after each commit that wrote some; the table is never polled."""

from __future__ import annotations

import threading

from iaas.jobs.wait_slots import STREAM, WaitSlots


class EventFeed:
    """The followers of one cloud's events.

    A follower has a flag and reads the database by itself, at its own pace: whoever reads slowly holds nothing
    of the others, and a thousand commits while it reads are one wake-up.

    Args:
        slots: places to wait at, shared with the long polls.
    """

    def __init__(self, slots: WaitSlots) -> None:
        self._slots = slots
        self._lock = threading.Lock()
        self._followers: frozenset[threading.Event] = frozenset()
        self._closed = False

    @property
    def is_closed(self) -> bool:
        """The server stops: followers end."""
        return self._closed

    @property
    def is_followed(self) -> bool:
        """Somebody waits for news."""
        return bool(self._followers)

    def subscribe(self) -> threading.Event | None:
        """Return a flag that is set at each news; None when no place is left. Give it back by :meth:`leave`."""
        with self._lock:
            if self._closed or not self._slots.take(STREAM):
                return None
            flag = threading.Event()
            self._followers |= {flag}
            return flag

    def leave(self, flag: threading.Event) -> None:
        """Give the place back; twice is as good as once."""
        with self._lock:
            if flag in self._followers:
                self._followers -= {flag}
                self._slots.give_back(STREAM)

    def news(self) -> None:
        """Wake all followers; called after commits, from any thread, so it must cost nothing without followers."""
        for flag in self._followers:
            flag.set()

    def close(self) -> None:
        """Wake all followers to their end."""
        self._closed = True
        self.news()
