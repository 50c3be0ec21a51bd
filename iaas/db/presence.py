"""Whether the file of a database is still the one that was opened."""

from __future__ import annotations

import os
import sqlite3

from sqlalchemy.exc import OperationalError


class FilePresence:
    """SQLite goes on writing into a file that was deleted or replaced under it: all of that would be lost.

    Args:
        path: the file, which must be there.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._identity = self._look()

    def check(self) -> None:
        """Return while the file is there; costs one system call.

        Raises:
            OperationalError: it was deleted or replaced since it was opened.
        """
        if self._look() != self._identity:
            raise OperationalError(None, None, sqlite3.OperationalError("the database file was deleted or replaced"))

    def _look(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino
