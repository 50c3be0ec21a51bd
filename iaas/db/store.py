"""The store of one cloud: many readers, one writer with group commit.

SQLite lets one connection write at a time. Writers that wait on its busy handler wait badly (it sleeps and
polls), so writes queue here instead: whoever holds the lock runs everything that waits, each in its own
savepoint, and commits once for all. On PostgreSQL each write is a transaction of its own.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from iaas.db.checkpoints import Checkpointer
from iaas.db.commit_hook import with_hook
from iaas.db.postgres import WRITE_TRIES, backoff_s, passes, postgres_engines
from iaas.db.presence import FilePresence
from iaas.db.sqlite import ConnectionShelf, sqlite_engine
from iaas.db.statements import execute_text
from iaas.kernel.clock import Clock
from iaas.kernel.turns import Turns

log = structlog.get_logger(__name__)

T = TypeVar("T")

_MAX_GROUP = 64
_MAX_IDLE_READERS = 8


class Tx:
    """One write: a connection inside a transaction, the time it happens at, and what to do once it is committed."""

    def __init__(self, connection: Connection, now: datetime) -> None:
        self.connection = connection
        self.now = now
        self.before_commit: list[Callable[[], None]] = []  # what is written last of all, in this order
        self.after_commit: list[Callable[[], None]] = []
        self.has_events = False  # set by the events' repository

    def on_commit(self, action: Callable[[], None]) -> None:
        """Run ``action`` after the commit; never when this write fails. It must be quick and must not write."""
        self.after_commit.append(action)


class Store:
    """The database of one cloud.

    Args:
        url: an SQLAlchemy URL; ``sqlite:///path`` or ``postgresql+psycopg://...``.
        clock: gives the time stamps of writes.
    """

    def __init__(self, url: str, clock: Clock) -> None:
        self.url = url
        # What the cloud hangs on: called after each commit that wrote events, and after each group with its
        # size and the seconds that its commit took. Both must be quick.
        self.on_events: Callable[[], None] = lambda: None
        self.on_group: Callable[[int, float], None] = lambda size, commit_s: None
        self.turns: Turns | None = None  # of the threads that write here, if they take turns
        self._clock = clock
        self.is_sqlite = make_url(url).get_backend_name() == "sqlite"
        self._queue: deque[tuple[Callable[[Tx], Any], Future[Any]]] = deque()
        self._writer = threading.Lock()
        if self.is_sqlite:
            self._write_engine = sqlite_engine(url, immediate=True)
            in_memory = make_url(url).database in (None, "", ":memory:")
            self._read_engine = self._write_engine if in_memory else sqlite_engine(url, immediate=False)
            self._writers = ConnectionShelf(self._write_engine, most=1)
            self._readers = self._writers if in_memory else ConnectionShelf(self._read_engine, most=_MAX_IDLE_READERS)
        else:
            self._write_engine, self._read_engine = postgres_engines(url)
        self._path = make_url(url).database if self.is_sqlite and not in_memory else None
        self._checkpointer = Checkpointer(self._path) if self._path is not None else None
        self._presence: FilePresence | None = None  # from the first write on: before that there may be no file
        self._memory_lock = self._writer if self._read_engine is self._write_engine else None

    @property
    def engine(self) -> Engine:
        """The engine that writes (migrations use it)."""
        return self._write_engine

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection with one consistent view; it must not outlive the block nor cross a driver call."""
        if not self.is_sqlite:
            with self._read_engine.connect() as connection:
                yield connection
        elif self._memory_lock is not None:  # one shared connection in memory: readers take their turn
            with self._memory_lock, self._readers.taken() as connection:
                yield connection
        else:
            with self._readers.taken() as connection:
                yield connection

    def write(self, work: Callable[[Tx], T]) -> T:
        """Run ``work`` in a transaction and return its result once that is committed.

        ``work`` may raise: then nothing of it stays, and the exception comes out here. It must not call
        ``write`` again, nor block on anything but the database. It may be run again from its beginning (on
        PostgreSQL, when its transaction was sacrificed to another), so it changes nothing outside of the database
        that a second run would not set right.
        """
        work = with_hook(work)
        if not self.is_sqlite:
            return self._write_alone(work)
        future: Future[T] = Future()
        self._queue.append((work, future))
        if self.turns is not None:
            self.turns.let_others_first()  # their writes then share our commit, or ours theirs
        with self._writer:
            while not future.done():  # more than one group may stand before ours
                self._write_group()
        return future.result()

    def write_soon(self, work: Callable[[Tx], T]) -> Future[T]:
        """Queue a write that is committed with the next one, or by :meth:`flush` at the latest.

        The future holds what :meth:`write` would have returned or raised. Whoever has many small writes and waits
        for none of them saves a commit for each. (PostgreSQL commits at once.)
        """
        future: Future[T] = Future()
        if self.is_sqlite:
            self._queue.append((work, future))
            return future
        try:
            future.set_result(self._write_alone(work))
        except Exception as error:  # noqa: BLE001 - it comes out of the future
            future.set_exception(error)
        return future

    def flush(self) -> None:
        """Commit everything that is queued."""
        with self._writer:
            while self._queue:
                self._write_group()

    def _write_alone(self, work: Callable[[Tx], T]) -> T:
        """Run ``work`` in a transaction of its own, again when PostgreSQL sacrificed it to another one."""
        tries = 0
        while True:
            try:
                with self._write_engine.begin() as connection:
                    tx = Tx(connection, self._clock.now())
                    result = work(tx)
                    _run_in_turn(tx.before_commit)
                    worked_at = time.perf_counter()
                break
            except DBAPIError as error:
                tries += 1
                if tries == WRITE_TRIES or not passes(error):
                    raise
                pause_s = backoff_s(tries)
                log.info("write_repeated", tries=tries, pause_s=round(pause_s, 3), reason=str(error.orig))
                time.sleep(pause_s)  # there is no state to wait for: the others must get out of each other's way
        if tx.has_events:
            tx.after_commit.append(self.on_events)
        self.on_group(1, time.perf_counter() - worked_at)
        _run_all(tx.after_commit)
        return result

    def _write_group(self) -> None:
        group: list[tuple[Callable[[Tx], Any], Future[Any]]] = []
        while self._queue and len(group) < _MAX_GROUP:
            group.append(self._queue.popleft())
        done: list[tuple[Future[Any], Any, list[Callable[[], None]]]] = []
        failed: list[tuple[Future[Any], BaseException]] = []
        try:
            with self._writers.taken() as connection, connection.begin():
                self._check_file()
                for work, future in group:
                    tx = Tx(connection, self._clock.now())
                    try:
                        if len(group) > 1:
                            execute_text(connection, "SAVEPOINT one_work")
                        result = work(tx)
                        if tx.before_commit:
                            _run_in_turn(tx.before_commit)
                        if len(group) > 1:
                            execute_text(connection, "RELEASE one_work")
                    except BaseException as error:  # its caller gets it; the works of the others go on
                        # On a full disk and the like SQLite rolls everything back by itself: then all have failed.
                        if len(group) == 1 or not _in_transaction(connection):
                            raise
                        execute_text(connection, "ROLLBACK TO one_work")
                        execute_text(connection, "RELEASE one_work")
                        failed.append((future, error))
                        continue
                    if tx.has_events:
                        tx.after_commit.append(self.on_events)
                    done.append((future, result, tx.after_commit))
                worked_at = time.perf_counter()
        except BaseException as error:  # noqa: BLE001 - handed to every waiter, each raises it in its own thread
            for _, future in group:
                future.set_exception(error)
            return
        self.on_group(len(done), time.perf_counter() - worked_at)
        if self._checkpointer is not None:
            self._checkpointer.count_commit()
        for _, _, actions in done:
            _run_all(actions)
        for future, result, _ in done:
            future.set_result(result)
        for future, fault in failed:
            future.set_exception(fault)

    def _check_file(self) -> None:
        if self._presence is not None:
            self._presence.check()
        elif self._path is not None:
            self._presence = FilePresence(self._path)

    def close(self) -> None:
        """Close all connections; the database file stays."""
        if self._checkpointer is not None:
            self._checkpointer.stop()
        if self.is_sqlite:
            self._writers.close()
            self._readers.close()
        self._write_engine.dispose()
        if self._read_engine is not self._write_engine:
            self._read_engine.dispose()


def _in_transaction(connection: Connection) -> bool:
    driver_connection: Any = connection.connection.driver_connection
    return bool(driver_connection.in_transaction)


def _run_in_turn(actions: list[Callable[[], None]]) -> None:
    for action in actions:
        action()


def _run_all(actions: list[Callable[[], None]]) -> None:
    for action in actions:
        try:
            action()
        except Exception:  # the write is committed: nobody may be told that it failed, and the others wait
            log.exception("on_commit_failed")
