"""Wakes those who wait for a job to end, without polling the database."""

from __future__ import annotations

import threading
from collections.abc import Callable

from iaas.jobs.wait_slots import LONG_POLL, WaitSlots


class JobSignals:
    """Waiting for jobs. The number of waiters is bounded, so that long polls never starve other requests.

    Args:
        slots: places to wait at; when there are none left, :meth:`subscribe` refuses.
    """

    def __init__(self, slots: WaitSlots) -> None:
        self._slots = slots
        self._lock = threading.Lock()
        self._waiting: dict[str, list[threading.Event]] = {}
        self._closed = False
        self.also: Callable[[str], None] = lambda job_id: None  # told of each end as well

    def subscribe(self, job_id: str) -> threading.Event | None:
        """Return an event that is set when the job ends; None beyond the bound. Give it back by :meth:`leave`."""
        with self._lock:
            if self._closed or not self._slots.take(LONG_POLL):
                return None
            event = threading.Event()
            self._waiting.setdefault(job_id, []).append(event)
            return event

    def leave(self, job_id: str, event: threading.Event) -> None:
        with self._lock:
            self._slots.give_back(LONG_POLL)
            events = self._waiting.get(job_id, [])
            if event in events:
                events.remove(event)
            if not events:
                self._waiting.pop(job_id, None)

    def finished(self, job_id: str) -> None:
        """Wake everybody who waits for this job."""
        self.also(job_id)
        with self._lock:
            for event in self._waiting.get(job_id, ()):
                event.set()

    def waited_for(self) -> list[str]:
        """Return the jobs that somebody waits for."""
        with self._lock:
            return list(self._waiting)

    def close(self) -> None:
        """Wake everybody: the server stops."""
        with self._lock:
            self._closed = True
            for events in self._waiting.values():
                for event in events:
                    event.set()
