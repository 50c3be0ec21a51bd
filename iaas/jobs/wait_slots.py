"""How many requests may wait at once: long polls and event streams each hold a thread of the server."""

from __future__ import annotations

import threading
from collections.abc import Mapping

LONG_POLL = "long_poll"
STREAM = "stream"


class WaitSlots:
    """A bounded number of places, shared by all who wait; nobody queues for one.

    Args:
        total: how many there are. Streams take half of them at most: they stay for hours, and a server whose
            long polls all return at once is polled to death.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._most = {LONG_POLL: total, STREAM: total // 2}
        self._lock = threading.Lock()
        self._used = {LONG_POLL: 0, STREAM: 0}

    def take(self, what: str) -> bool:
        """Take a place; False when there is none (left) for ``what``. Give it back by :meth:`give_back`."""
        with self._lock:
            if sum(self._used.values()) >= self.total or self._used[what] >= self._most[what]:
                return False
            self._used[what] += 1
            return True

    def give_back(self, what: str) -> None:
        with self._lock:
            self._used[what] -= 1

    @property
    def used(self) -> Mapping[str, int]:
        """Return how many places each holds now."""
        return dict(self._used)
