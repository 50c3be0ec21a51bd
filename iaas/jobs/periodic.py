"""Work that comes round by itself, on the cloud clock: purges, expiry, the doctor.

Tasks are not jobs: they have no row, no owner and nothing to undo. Each looks at what is due, does that and
can be interrupted anywhere; one that was missed while nobody ran is simply run once at the next occasion.
The executor's loop drives them, so a test that advances a frozen clock fires them like everything else.

In a fleet every worker has the same tasks; :attr:`PeriodicTasks.turns` then lets one of them have each turn.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError

from iaas.kernel.clock import CloudClock

log = structlog.get_logger(__name__)

STOP_TIMEOUT_S = 5.0
START_SPAN_S = 60.0  # processes that start within this are one start: the first of them does what is due soon after


class Turns(Protocol):
    """Decides between processes that have the same tasks."""

    def take(self, name: str, *, interval_s: float, unless_within_s: float) -> datetime | None:
        """Take the turn: None when it is ours, otherwise when the task is due again.

        Args:
            unless_within_s: an earlier turn, of whatever process, counts for this one if it was not longer ago.
        """
        ...


@dataclass(slots=True, kw_only=True)
class PeriodicTask:
    """``runs`` and ``failures`` count what happened so far, ``due_at`` is when it comes round next (cloud clock)."""

    name: str
    interval_s: float
    run: Callable[[], object]
    in_thread: bool
    due_at: datetime
    each_process: bool = False
    unless_within_s: float = 0.0
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

    Attributes:
        turns: in a fleet, who of several processes runs a task; all is ours when None.
    """

    def __init__(self, clock: CloudClock, wake: Callable[[], None]) -> None:
        self._clock = clock
        self._wake = wake
        self.turns: Turns | None = None
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
        each_process: bool = False,
    ) -> None:
        """Let ``run`` come round every ``interval_s`` seconds of the cloud clock.

        Args:
            first_in_s: when it runs first; after one interval when None, at the next occasion when 0.
            in_thread: give it a thread of its own, for what waits for a daemon. Otherwise it must be quick: the
                executor does nothing else meanwhile. It is never run twice at the same time.
            each_process: it is about this process; in a fleet each runs it for itself.

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
                name=name,
                interval_s=interval_s,
                run=run,
                in_thread=in_thread,
                due_at=first_at,
                each_process=each_process,
                unless_within_s=interval_s if first_in_s is None else min(interval_s, START_SPAN_S),
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
            if self._is_ours(task):
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

    def _is_ours(self, task: PeriodicTask) -> bool:
        """Whether this process runs the task now; if not, it is on the agenda for when it may."""
        if self.turns is None or task.each_process:
            return True
        if task.is_running:
            return False
        try:
            due_at = self.turns.take(task.name, interval_s=task.interval_s, unless_within_s=task.unless_within_s)
        except SQLAlchemyError as error:  # whatever it was: the executor must go on
            log.warning("periodic_turn_not_taken", task=task.name, reason=str(error))
            return False
        task.unless_within_s = task.interval_s
        if due_at is None:
            return True
        with self._lock:
            task.due_at = due_at
            self._agenda = [entry for entry in self._agenda if entry[2] != task.name]
            self._agenda.append((due_at, next(self._order), task.name))
            heapq.heapify(self._agenda)
        return False

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
