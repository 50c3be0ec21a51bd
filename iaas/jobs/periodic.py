"""Work that comes round by itself, on the cloud clock: purges, expiry, the doctor.

Tasks are not jobs: they have no row, no owner and nothing to undo. Each looks at what is due, does that and
can be interrupted anywhere; one that was missed while nobody ran is simply run once at the next occasion.
The executor's loop drives them, so a test that advances a frozen clock fires them like everything else.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from iaas.kernel.clock import CloudClock

log = structlog.get_logger(__name__)

STOP_TIMEOUT_S = 5.0


@dataclass(slots=True, kw_only=True)
class PeriodicTask:
    """``runs`` and ``failures`` count what happened so far, ``due_at`` is when it comes round next (cloud clock)."""

    name: str
    interval_s: float
    run: Callable[[], object]
    in_thread: bool
    due_at: datetime
    runs: int = 0
    failures: int = 0
    last_error: str | None = None
    thread: threading.Thread | None = None

    @property
    def is_running(self) -> bool:
        return self.thread is not None and self.thread.is_alive()


class PeriodicTasks:
    """Named tasks of one cloud.

    Args:
        clock: the cloud clock; its jumps and changes of speed are the caller's to notice.
        wake: called when a task was added, so that whoever sleeps looks again.
    """

    def __init__(self, clock: CloudClock, wake: Callable[[], None]) -> None:
        self._clock = clock
        self._wake = wake
        self._lock = threading.Lock()
        self._tasks: dict[str, PeriodicTask] = {}
        self._agenda: list[tuple[datetime, int, str]] = []
        self._order = itertools.count()

    def add(
        self,
        name: str,
        run: Callable[[], object],
        *,
        interval_s: float,
        first_in_s: float | None = None,
        in_thread: bool = False,
    ) -> None:
        """Let ``run`` come round every ``interval_s`` seconds of the cloud clock.

        Args:
            first_in_s: when it runs first; after one interval when None, at the next occasion when 0.
            in_thread: give it a thread of its own, for what waits for a daemon. Otherwise it must be quick: the
                executor does nothing else meanwhile. It is never run twice at the same time.

        Raises:
            ValueError: the name is taken, or the interval is not positive.
        """
        if interval_s <= 0:
            raise ValueError(f"the interval of {name} must be positive, not {interval_s}")
        first_at = self._clock.now() + timedelta(seconds=interval_s if first_in_s is None else first_in_s)
        with self._lock:
            if name in self._tasks:
                raise ValueError(f"there is a periodic task {name} already")
            self._tasks[name] = PeriodicTask(
                name=name, interval_s=interval_s, run=run, in_thread=in_thread, due_at=first_at
            )
            heapq.heappush(self._agenda, (first_at, next(self._order), name))
        self._wake()

    def all(self) -> list[PeriodicTask]:
        """Return the tasks by name."""
        with self._lock:
            return [self._tasks[name] for name in sorted(self._tasks)]

    def next_due(self) -> datetime | None:
        """Return when the next task comes round, None when there is none."""
        with self._lock:
            return self._agenda[0][0] if self._agenda else None

    def run_due(self) -> int:
        """Run what is due now, each once however often it was missed; return how many that were."""
        count = 0
        while (task := self._take_due()) is not None:
            self._run(task)
            count += 1
        return count

    def run_now(self, name: str) -> None:
        """Run one task out of its turn and wait for its end; its errors come out here.

        Raises:
            KeyError: there is no such task.
        """
        with self._lock:
            task = self._tasks[name]
        task.run()
        task.runs += 1

    def stop(self) -> None:
        """Wait a little for tasks that have threads; what still runs after that ends with the process."""
        for task in self.all():
            if task.thread is not None:
                task.thread.join(STOP_TIMEOUT_S)

    def _take_due(self) -> PeriodicTask | None:
        now = self._clock.now()
        with self._lock:
            if not self._agenda or self._agenda[0][0] > now:
                return None
            _, order, name = heapq.heappop(self._agenda)
            task = self._tasks[name]
            task.due_at = now + timedelta(seconds=task.interval_s)
            heapq.heappush(self._agenda, (task.due_at, order, name))
            return task

    def _run(self, task: PeriodicTask) -> None:
        if not task.in_thread:
            self._run_guarded(task)
        elif not task.is_running:
            task.thread = threading.Thread(
                target=self._run_guarded, args=(task,), name=f"periodic-{task.name}", daemon=True
            )
            task.thread.start()

    def _run_guarded(self, task: PeriodicTask) -> None:
        try:
            task.run()
            task.runs += 1
            task.last_error = None
        except Exception as error:
            # A fault in one task must stop neither the others nor the jobs; it comes round again.
            task.failures += 1
            task.last_error = str(error)
            log.exception("periodic_task_broke", task=task.name)
