"""Whose turn it is: every worker of a fleet has all periodic tasks, and each due time is for one of them.

Who comes first notes in the database when that was; the others then come round when it is due again. A worker that
dies in the middle of a task leaves it to whoever comes next: tasks can be interrupted anywhere.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from iaas.db.postgres import take_lock
from iaas.db.repositories import shared
from iaas.db.store import Store, Tx

_KEY = "turn of "


class FleetTurns:
    """The turns of all processes on one database."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def take(self, name: str, *, interval_s: float, unless_within_s: float) -> datetime | None:
        """Take the turn of the task ``name``, unless another process did so within ``unless_within_s``.

        Returns:
            None when it is ours; otherwise when the task is due again, after the turn of the other one.
        """

        def work(tx: Tx) -> datetime | None:
            take_lock(tx.connection, _KEY + name)
            taken = shared.get_setting(tx.connection, _KEY + name)
            if taken is not None:
                ago = tx.now - datetime.fromisoformat(taken)
                # One from the future was taken before the clock was set back, and says nothing.
                if timedelta(0) <= ago < timedelta(seconds=unless_within_s):
                    return tx.now - ago + timedelta(seconds=interval_s)
            shared.put_setting(tx, _KEY + name, tx.now.isoformat())
            return None

        return self._store.write(work)
