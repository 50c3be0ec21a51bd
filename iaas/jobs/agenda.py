"""What is to be done when: a time heap in which each job stands once."""

from __future__ import annotations

import heapq
import itertools
from datetime import datetime


class Agenda:
    """Job ids by the moment they are due. Putting a job in again moves it. Not thread-safe: its owner locks."""

    def __init__(self) -> None:
        self._heap: list[tuple[datetime, int, str]] = []
        self._order = itertools.count()
        self._valid: dict[str, int] = {}  # the entry that counts; the job's others are passed over when they come up

    def put(self, job_id: str, due_at: datetime) -> None:
        """Let the job come up at ``due_at``, and at no other moment that was named before."""
        order = next(self._order)
        self._valid[job_id] = order
        heapq.heappush(self._heap, (due_at, order, job_id))

    def first_due(self) -> datetime | None:
        """Return when the next job is due; None when there is none."""
        while self._heap:
            due_at, order, job_id = self._heap[0]
            if self._valid.get(job_id) == order:
                return due_at
            heapq.heappop(self._heap)
        return None

    def take(self, now: datetime) -> str | None:
        """Take the job that is due the longest at ``now`` out of the agenda; None when none is."""
        due_at = self.first_due()
        if due_at is None or due_at > now:
            return None
        job_id = heapq.heappop(self._heap)[2]
        del self._valid[job_id]
        return job_id

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._valid

    def __len__(self) -> int:
        return len(self._valid)
