"""Two clocks, never mixed.

The *wall* clock drives what really happens on the machine: sockets, long polls, process supervision.
The *cloud* clock is what a tenant can see: time stamps, boots, deadlines. Only the cloud clock may be
scaled, frozen or advanced, and only by tests and the lab.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Where the time comes from. All times are aware UTC datetimes."""

    def now(self) -> datetime:
        """Return the present time."""
        ...


class WallClock:
    """The machine's own time."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class CloudClock:
    """A cloud's time: real by default, and scaled, frozen or advanced on demand.

    Args:
        start: the time to show at first; the present time when absent.
        scale: cloud seconds per wall second; 0 freezes the clock.
    """

    def __init__(self, *, start: datetime | None = None, scale: float = 1.0) -> None:
        self._lock = threading.Lock()
        self._anchor_monotonic_s = time.monotonic()
        self._anchor = start or datetime.now(UTC)
        self._scale = scale
        self._listeners: list[Callable[[], None]] = []

    @property
    def scale(self) -> float:
        """Cloud seconds per wall second."""
        return self._scale

    def now(self) -> datetime:
        with self._lock:
            return self._now_locked()

    def _now_locked(self) -> datetime:
        passed_s = (time.monotonic() - self._anchor_monotonic_s) * self._scale
        return self._anchor + timedelta(seconds=passed_s)

    def set_scale(self, scale: float) -> None:
        """Let the time run ``scale`` times as fast from now on; 0 freezes it."""
        if scale < 0:
            raise ValueError("scale must not be negative")
        with self._lock:
            self._anchor = self._now_locked()
            self._anchor_monotonic_s = time.monotonic()
            self._scale = scale
        self._notify()

    def advance(self, seconds: float) -> None:
        """Jump ahead by ``seconds``; a clock never goes back."""
        if seconds < 0:
            raise ValueError("seconds must not be negative")
        with self._lock:
            self._anchor = self._now_locked() + timedelta(seconds=seconds)
            self._anchor_monotonic_s = time.monotonic()
        self._notify()

    def wall_seconds_until(self, moment: datetime) -> float | None:
        """Return how many wall seconds remain until ``moment``; None while the clock is frozen short of it."""
        with self._lock:
            left_s = (moment - self._now_locked()).total_seconds()
        if left_s <= 0:
            return 0.0
        return left_s / self._scale if self._scale > 0 else None

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` after each jump or change of speed (whoever sleeps must look again)."""
        self._listeners.append(listener)

    def _notify(self) -> None:
        for listener in list(self._listeners):
            listener()


def rfc3339(moment: datetime) -> str:
    """Return ``moment`` as ``2026-01-31T12:00:00.123Z``. Source: RFC 3339, section 5.6."""
    if moment.tzinfo is not UTC:  # what comes from a database is
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds")[:-6] + "Z"
