"""A fleet: jobs accepted by any server are handed to workers in other processes, through the database.

A job goes into its queue (Procrastinate's) in the transaction that accepts it. A worker that fetches it runs it to
its end in an executor of its own, so steps, waiting and undoing are those of one process. See ADR 0008.
"""

from __future__ import annotations

import threading
from typing import Any

import structlog
from procrastinate import App, SyncPsycopgConnector
from procrastinate.schema import SchemaManager
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from iaas.db.postgres import take_lock
from iaas.db.repositories import events, jobs
from iaas.db.store import Store, Tx
from iaas.jobs.event_feed import EventFeed
from iaas.jobs.signals import JobSignals

log = structlog.get_logger(__name__)

TASK = "iaas.job"
NEWS_EVERY_S = 0.1  # how late a server hears of what others have done, while somebody waits for it


def conninfo(url: str) -> str:
    """Return an SQLAlchemy URL in the form that psycopg itself takes."""
    from psycopg.conninfo import make_conninfo

    made = make_url(url)
    _, arguments = made.get_dialect()().create_connect_args(made)
    return make_conninfo(**arguments)


class JobQueue:
    """Where accepted jobs wait for a worker, one queue for each host.

    Args:
        store: on PostgreSQL; the queue's tables are made there when they are missing.
    """

    def __init__(self, store: Store) -> None:
        self._app = App(connector=SyncPsycopgConnector())  # never opened: it defers on connections of ours
        self._store = store
        store.write(_make_tables)

    def put(self, tx: Tx, job_id: str, *, host_id: str | None) -> None:
        """Hand a job over, in the transaction that writes its row."""
        driver: Any = tx.connection.connection.driver_connection
        deferrer = self._app.configure_task(
            TASK, queue=queue_of(host_id), queueing_lock=job_id, connection=driver, allow_unknown=True
        )
        deferrer.defer(job_id=job_id)

    def put_again(self, tx: Tx, job_id: str, *, host_id: str | None) -> None:
        """Hand over a job that got lost; nothing happens when it did not."""
        take_lock(tx.connection, "lost jobs")
        if not _has(tx.connection, job_id):
            self.put(tx, job_id, host_id=host_id)

    def has(self, job_id: str) -> bool:
        """Return whether the job waits in a queue or is in the hands of a worker, living or dead."""
        with self._store.read() as connection:
            return _has(connection, job_id)


def queue_of(host_id: str | None) -> str:
    """Return the name of the queue for jobs that work on a host."""
    return host_id or "anywhere"


_HAS = text(
    "SELECT EXISTS (SELECT 1 FROM procrastinate_jobs WHERE status = 'todo' AND queueing_lock = :id)"
    " OR EXISTS (SELECT 1 FROM procrastinate_jobs"
    " WHERE status = 'doing' AND worker_id IS NOT NULL AND queueing_lock = :id)"  # as the indexes have it
)


def _has(connection: Connection, job_id: str) -> bool:
    return bool(connection.execute(_HAS, {"id": job_id}).scalar())


def _make_tables(tx: Tx) -> None:
    take_lock(tx.connection, "queue tables")
    if tx.connection.execute(text("SELECT to_regclass('procrastinate_jobs')")).scalar() is None:
        driver: Any = tx.connection.connection.driver_connection
        driver.execute(SchemaManager.get_schema())


class FleetNews:
    """Tells those who wait in this process of what others have committed: the ends of jobs, and events."""

    def __init__(self, store: Store, signals: JobSignals, feed: EventFeed) -> None:
        self._store = store
        self._signals = signals
        self._feed = feed
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="fleet-news", daemon=True)
        self._last_event = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _listen(self) -> None:
        while not self._stopping.wait(NEWS_EVERY_S):
            try:
                self._look()
            except DBAPIError as error:
                log.warning("news_not_read", reason=str(error.orig))

    def _look(self) -> None:
        waited_for = self._signals.waited_for()
        if not waited_for and not self._feed.is_followed:
            return
        with self._store.read() as connection:
            ended = jobs.ended_of(connection, waited_for) if waited_for else []
            newest = events.last_id(connection) if self._feed.is_followed else self._last_event
        for job_id in ended:
            self._signals.finished(job_id)
        if newest != self._last_event:
            self._last_event = newest
            self._feed.news()
