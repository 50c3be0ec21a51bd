"""What is particular to PostgreSQL: its engines, which of its errors pass, locks that have names.

Writes run at READ COMMITTED: what must not happen twice is decided by unique keys and conditional updates, which
wait for each other there and then see what the other has committed. See ADR 0007.
"""

from __future__ import annotations

import random
import zlib

from sqlalchemy import Connection, Engine, FromClause, create_engine, select, text
from sqlalchemy.exc import DBAPIError

POOL_SIZE = 16
POOL_OVERFLOW = 48
CONNECT_TIMEOUT_S = 10

WRITE_TRIES = 10
_BACKOFF_FIRST_S = 0.005
_BACKOFF_MOST_S = 0.5

# serialization_failure, deadlock_detected: the transaction was sacrificed to another and can simply be run again.
# Source: PostgreSQL documentation, appendix A, and "Serialization Failure Handling".
_PASSING_STATES = frozenset({"40001", "40P01"})

_TAKE_LOCK = text("SELECT pg_advisory_xact_lock(:space, :name)")
_LOCK_SPACE = 0x1AA5  # advisory locks are numbers; others in the same database may use some as well


def postgres_engines(url: str) -> tuple[Engine, Engine]:
    """Return the engine that writes and the one that reads, on one pool; a read sees one state from its first look."""
    writes = create_engine(
        url,
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW,
        pool_pre_ping=True,
        isolation_level="READ COMMITTED",
        connect_args={"connect_timeout": CONNECT_TIMEOUT_S},
    )
    return writes, writes.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def passes(error: DBAPIError) -> bool:
    """Whether the same transaction may well succeed when it is run again at once."""
    return getattr(error.orig, "sqlstate", None) in _PASSING_STATES


def backoff_s(tries: int) -> float:
    """Return how long to wait after so many failed tries: ever longer, and no two for the same time."""
    longest_s = min(_BACKOFF_MOST_S, _BACKOFF_FIRST_S * float(2**tries))
    return longest_s * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


def take_lock(connection: Connection, name: str) -> None:
    """Wait until nobody else holds the lock ``name`` of this database; it is ours until the transaction ends.

    Nothing happens on SQLite, where a transaction that writes is the only one anyway.
    """
    if connection.dialect.name == "postgresql":
        number = zlib.crc32(name.encode()) - 2**31  # a signed integer of 32 bits
        connection.execute(_TAKE_LOCK, {"space": _LOCK_SPACE, "name": number})


def lock_row(connection: Connection, table: FromClause, row_id: str) -> None:
    """Let others who change or lock this row wait until the transaction ends; what is read from now on stays true.

    For changes that depend on what was read (a merge, a comparison with a generation). Nothing happens on SQLite,
    where a transaction that writes is the only one anyway.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(table.c.id).where(table.c.id == row_id).with_for_update())
