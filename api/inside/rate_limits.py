"""Token buckets: so many requests a second on average, and some more at once."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

MAX_KEYS = 10_000  # who has not asked for longest is forgotten first, and begins with a full bucket when he is back


class RateLimit:
    """One bucket for each key.

    Args:
        per_s: tokens that come back in a second.
        burst: tokens in a full bucket.
        now_s: the wall's time, which never goes back.
    """

    def __init__(self, *, per_s: float, burst: int, now_s: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = burst
        self._now_s = now_s
        self._lock = threading.Lock()
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()  # tokens, and when that was

    def take(self, key: Hashable) -> int:
        """Take one token and return 0, or take none and return in how many seconds (at least 1) there is one."""
        now_s = self._now_s()
        with self._lock:
            tokens, since_s = self._buckets.pop(key, (float(self._burst), now_s))
            tokens = min(float(self._burst), tokens + (now_s - since_s) * self._per_s)
            is_taken = tokens >= 1
            self._buckets[key] = (tokens - 1 if is_taken else tokens, now_s)
            if len(self._buckets) > MAX_KEYS:
                self._buckets.popitem(last=False)
        return 0 if is_taken else max(1, math.ceil((1 - tokens) / self._per_s))
