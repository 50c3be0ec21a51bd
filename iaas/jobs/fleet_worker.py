"""The worker of a fleet: fetches jobs from queues and runs them in an executor until it is told to stop.

Two never run one job. A worker holds a lock of its database session, which PostgreSQL gives back when the process
ends, however it ends. Jobs of a worker are given to others only once its heartbeat is old *and* that lock is free:
a worker that is stopped for a while, or slow, keeps what it has.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
import structlog
from procrastinate import App, BaseRetryStrategy, JobContext, PsycopgConnector, RetryDecision
from procrastinate.jobs import Job as QueuedJob
from procrastinate.worker import Worker

from iaas.db.repositories import jobs
from iaas.db.store import Store
from iaas.jobs.executor import Executor
from iaas.jobs.fleet import TASK, conninfo
from iaas.jobs.signals import JobSignals

log = structlog.get_logger(__name__)

LEASE_S = 5.0  # the jobs of a killed worker are taken up by others after this
AT_ONCE = 64  # jobs in one worker's hands; most of them wait for something
LOOK_EVERY_S = 0.5
_LOCK_SPACE = 0x1AA6
_NOBODY = 0  # in place of the id of a worker that has signed off


class FleetWorker:
    """Runs the jobs of some queues.

    Args:
        executor: of the cloud; started and stopped by the caller.
        queues: their names; all when None.
        lease_s: how old the last heartbeat of a worker is before others look whether it has died (wall clock).
    """

    def __init__(
        self,
        *,
        store: Store,
        executor: Executor,
        signals: JobSignals,
        queues: Sequence[str] | None = None,
        lease_s: float = LEASE_S,
    ) -> None:
        self._store = store
        self._executor = executor
        self._signals = signals
        self._lease_s = lease_s
        self._queues = queues
        self._in_hand: dict[str, asyncio.Event] = {}
        self._lock_taken = asyncio.Event()

    def run(self) -> None:
        """Work until SIGTERM or SIGINT; what is then not at its end is given back to the queues.

        The process ends at once, as if it had been killed, when it cannot know any more that its jobs are its own
        (the session with its lock is gone), or when a driver call does not come back within the executor's patience.
        """
        asyncio.run(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        self._signals.also = lambda job_id: _call(loop, self._ended, job_id)
        app = App(connector=PsycopgConnector(conninfo=conninfo(self._store.url), min_size=1, max_size=4))
        app.task(name=TASK, pass_context=True, retry=_Again())(self._run_job)
        async with app.open_async():
            worker = Worker(
                app,
                queues=self._queues,
                concurrency=AT_ONCE,
                fetch_job_polling_interval=LOOK_EVERY_S,
                shutdown_graceful_timeout=0,
                delete_jobs="always",
                install_signal_handlers=False,
                update_heartbeat_interval=self._lease_s / 3,
                stalled_worker_timeout=365 * 86_400,  # dead ones are found by their locks, and never forgotten before
            )
            told_to_stop = asyncio.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, told_to_stop.set)
            running = asyncio.create_task(worker.run())  # type: ignore[no-untyped-call]  # says nothing of its result
            watching = asyncio.create_task(self._watch(app, worker))
            stopping = asyncio.create_task(told_to_stop.wait())
            await asyncio.wait({running, watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                _die("the session with this worker's lock is gone", watching.exception())
            # Nothing is given back before nothing of it is in our hands any more.
            if not await asyncio.to_thread(self._executor.stop):
                _die("a driver call has not come back", None)
            worker.stop()  # type: ignore[no-untyped-call]  # as above
            await running
            watching.cancel()
            stopping.cancel()
            await asyncio.gather(watching, stopping, return_exceptions=True)

    async def _run_job(self, context: JobContext, job_id: str) -> None:
        await self._lock_taken.wait()
        ended = self._in_hand[job_id] = asyncio.Event()
        try:
            if await asyncio.to_thread(self._is_finished, job_id):
                return  # its worker died between the end and telling so
            self._executor.submit(job_id)
            await ended.wait()
        finally:
            self._in_hand.pop(job_id, None)

    def _is_finished(self, job_id: str) -> bool:
        with self._store.read() as connection:
            job = jobs.get(connection, job_id)
        return job is None or job.is_finished

    def _ended(self, job_id: str) -> None:
        event = self._in_hand.get(job_id)
        if event is not None:
            event.set()

    async def _watch(self, app: App, worker: Worker) -> None:
        """Hold our lock, take over the jobs of the dead, and pass on who was called off."""
        async with await psycopg.AsyncConnection.connect(conninfo(self._store.url), autocommit=True) as session:
            while worker.worker_id is None:
                await asyncio.sleep(0.01)
            await session.execute("SELECT pg_advisory_lock(%s::int, %s::int)", (_LOCK_SPACE, worker.worker_id))
            self._lock_taken.set()
            while True:
                await self._take_over(app, session, worker.worker_id)
                called_off = await asyncio.to_thread(self._called_off)
                for job_id in called_off:
                    self._executor.cancel(job_id)
                await asyncio.sleep(LOOK_EVERY_S)

    async def _take_over(self, app: App, session: psycopg.AsyncConnection[Any], own_id: int) -> None:
        for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=self._lease_s):
            if job.worker_id == own_id:
                continue
            asked = await session.execute(
                "SELECT pg_try_advisory_lock(%s::int, %s::int)", (_LOCK_SPACE, job.worker_id or _NOBODY)
            )
            if await asked.fetchone() != (True,):
                continue  # it lives and has the job in its hands, or another one is taking over from it
            # Kept until this session ends: the id never comes again.
            log.warning("job_taken_over", job_id=job.task_kwargs.get("job_id"), worker=job.worker_id)
            await app.job_manager.retry_job(job, retry_at=datetime.now(UTC))

    def _called_off(self) -> list[str]:
        held = list(self._in_hand)
        if not held:
            return []
        with self._store.read() as connection:
            return jobs.called_off_of(connection, held)


class _Again(BaseRetryStrategy):
    """What was not ended here goes back to its queue."""

    def get_retry_decision(self, *, exception: BaseException, job: QueuedJob) -> RetryDecision:
        log.info("job_given_back", job_id=job.task_kwargs.get("job_id"), reason=repr(exception))
        return RetryDecision(retry_at=datetime.now(UTC))


def _die(reason: str, error: BaseException | None) -> None:
    log.critical("worker_gives_up", reason=reason, error=repr(error))
    os._exit(1)


def _call(loop: asyncio.AbstractEventLoop, function: Any, argument: str) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(function, argument)
