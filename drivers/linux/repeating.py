"""A thread that looks after something again and again until it is closed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)


class Repeating:
    """Calls ``action`` every ``interval_s`` seconds of wall time. What it raises is logged, and it goes on."""

    def __init__(self, action: Callable[[], None], *, interval_s: float, name: str) -> None:
        self._action = action
        self._interval_s = interval_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the thread, after the round it may be in."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(self._interval_s):
            try:
                self._action()
            except Exception:  # one bad round must not be the last one
                logger.exception("%s failed", self._thread.name)
