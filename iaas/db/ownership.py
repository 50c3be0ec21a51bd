"""Who may work on a database: one executor at a time, kept by the operating system or by PostgreSQL.

A claim ends with the process that holds it, however it ends; so there is no lease to renew, no clock to trust
and nothing to clear away after a kill.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from zlib import crc32

from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url

from iaas.db.store import Store
from iaas.kernel.errors import Unavailable

# The same for everybody; PostgreSQL keeps such locks apart by database.
_ADVISORY_KEY = crc32(b"iaas executor")


class ExecutorClaim:
    """The right to run the jobs of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._handle: int | None = None
        self._connection: Connection | None = None

    def acquire(self) -> None:
        """Take it, for as long as this process lives or until :meth:`release`.

        Raises:
            Unavailable: another process runs these jobs (code ``database_in_use``).
        """
        url = make_url(self._store.url)
        if url.get_backend_name() != "sqlite":
            self._acquire_advisory()
        elif url.database not in (None, "", ":memory:"):
            self._acquire_file(Path(f"{url.database}.executor"))

    def release(self) -> None:
        """Give it back; a second call does nothing."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        if self._connection is not None:
            self._connection.invalidate()  # closes the session, and PostgreSQL takes its lock back
            self._connection.close()
            self._connection = None

    def _acquire_file(self, path: Path) -> None:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            raise _in_use() from error
        self._handle = handle

    def _acquire_advisory(self) -> None:
        connection = self._store.engine.connect()
        taken = connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _ADVISORY_KEY}).scalar()
        connection.commit()  # the lock is the session's, not the transaction's
        if not taken:
            connection.close()
            raise _in_use()
        self._connection = connection


def _in_use() -> Unavailable:
    return Unavailable(
        "another server works on this database; stop it first, or give this one a database of its own",
        code="database_in_use",
    )
