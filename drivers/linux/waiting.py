"""Wait for a state on the wall clock: look, wait a little, look again, give up at a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], bool], *, timeout_s: float, interval_s: float = 0.02) -> bool:
    """Return True as soon as ``condition`` holds, False when it did not within ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(interval_s)
    return True
