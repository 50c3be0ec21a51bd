"""Brings SQLite's write-ahead log home in the background: done by a writer it takes 20 ms, and everybody waits."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing

import structlog

from iaas.db.sqlite import existing

log = structlog.get_logger(__name__)

EVERY_COMMITS = 256


class Checkpointer:
    """Copies the log of one database into it, in a thread of its own, once every so many commits.

    It never waits for anybody and nobody waits for it (a "passive" checkpoint). While writers go on without a pause
    the log is copied but not begun anew; the writers' own checkpoint, which finds little left to copy, sees to that.
    Source: SQLite documentation, "Write-Ahead Logging", 3.1.

    Args:
        path: of the database file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._commits = 0
        self._wake = threading.Event()
        self._is_stopping = False
        self._thread: threading.Thread | None = None

    def count_commit(self) -> None:
        """Take notice of a commit; called by one writer at a time."""
        self._commits += 1
        if self._commits % EVERY_COMMITS:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
            self._thread.start()
        self._wake.set()

    def stop(self) -> None:
        """Return when no checkpoint is under way, and begin none any more."""
        self._is_stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._is_stopping:
                return
            try:
                with closing(existing(self._path)) as connection:
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            except sqlite3.Error as error:  # a full disk, the file away: who writes next hears of it
                log.info("checkpoint_failed", reason=str(error))
