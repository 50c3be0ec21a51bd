"""Connections to SQLite: how they are set up, and how they are kept."""

from __future__ import annotations

import json
import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.pool import QueuePool, StaticPool

from iaas.db.statements import execute_text

CACHE_KIB = 8192
# Pages (4 KiB) in the write-ahead log before a writer copies what the background has left of them into the database
# and begins the log anew. Reading through a long log costs next to nothing.
CHECKPOINT_PAGES = 16_000


def sqlite_engine(url: str, *, immediate: bool) -> Engine:
    """Return an engine; ``immediate`` for the one that writes: its transactions take the write lock at once."""
    in_memory = make_url(url).database in (None, "", ":memory:")
    if in_memory or immediate:
        engine = create_engine(
            url,
            poolclass=StaticPool,
            connect_args={"check_same_thread": False},
            json_serializer=_write_json,
            json_deserializer=_read_json,
        )
    else:
        engine = create_engine(
            url,
            creator=lambda: existing(make_url(url).database or ""),
            poolclass=QueuePool,
            pool_size=8,
            max_overflow=56,
            json_serializer=_write_json,
            json_deserializer=_read_json,
        )

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        # The driver must not begin transactions by itself; SAVEPOINT needs that. Source: SQLAlchemy docs, pysqlite.
        connection.isolation_level = None
        cursor = connection.cursor()
        if not in_memory:
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        # NORMAL loses nothing to a killed process; a power cut may lose the last commits, never consistency.
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA busy_timeout=10000")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA temp_store=MEMORY")
        if immediate:
            cursor.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        cursor.close()

    begin = "BEGIN IMMEDIATE" if immediate else "BEGIN"

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        execute_text(connection, begin)

    return engine


def _read_json(text: str) -> Any:
    # Most of what is stored this way is empty: five columns of every row of a page.
    if text == "{}":
        return {}
    return [] if text == "[]" else json.loads(text)


def _write_json(value: Any) -> str:
    if type(value) in (dict, list) and not value:  # see above
        return "{}" if type(value) is dict else "[]"
    return json.dumps(value)


def existing(path: str) -> sqlite3.Connection:
    """Open a database only if it is there.

    SQLite makes an empty file in the place of one that is missing; a connection to that would go on to say
    "no such table" after the real one was put back. Source: SQLite documentation, "URI Filenames", mode.
    """
    uri = Path(path).absolute().as_uri() + "?mode=rw"
    return sqlite3.connect(uri, uri=True, check_same_thread=False)


class ConnectionShelf:
    """Connections that stay open between uses: taking one out of SQLAlchemy's pool costs more than a small query.

    Args:
        most: how many are kept while nobody uses them; the others go back to the engine's pool.
    """

    def __init__(self, engine: Engine, *, most: int) -> None:
        self._engine = engine
        self._most = most
        self._idle: deque[Connection] = deque()

    @contextmanager
    def taken(self) -> Iterator[Connection]:
        """Give a connection that nobody else has; what is not committed at the end is rolled back."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._engine.connect()
        try:
            yield connection
        except BaseException:  # whatever happened to it, the next user gets a sound one
            connection.close()
            raise
        if connection.in_transaction():
            connection.rollback()
        if len(self._idle) < self._most:
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close those that nobody uses."""
        while self._idle:
            self._idle.pop().close()
