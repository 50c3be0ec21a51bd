"""Fills a cloud's database with many instances at once, past the API: only lists and filters are asked of them.

Each is a copy of one real row (with its NIC, and a label), another id, name and time. No job, event or simulated
machine comes with it, so this says nothing about creating; it is how a million rows are there within a minute.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

LABEL = "app"
RARE = "rare"
RARE_ROWS = 50  # so many carry ``app=rare``, however many rows there are; the others ``app=common``


def fill(database: Path, template_id: str, *, have: int, want: int) -> None:
    """Copy the instance ``template_id`` until there are ``want`` copies; ``have`` were made by earlier calls."""
    connection = sqlite3.connect(database, timeout=60, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("BEGIN IMMEDIATE")
        span = (have + 1, want)
        _copy(
            connection,
            "instances",
            f"t.id = '{template_id}'",
            span,
            id="printf('i-%08d', n.i)",
            name="printf('copy-%08d', n.i)",
            hostname="printf('copy-%08d', n.i)",
            # A minute apart, older and older; microseconds are part of the stored form.
            created_at="strftime('%Y-%m-%d %H:%M:%S.000000', t.created_at, printf('-%d minutes', n.i))",
            labels=f"json_object('{LABEL}', {_label()})",
        )
        _copy(
            connection,
            "nics",
            f"t.instance_id = '{template_id}'",
            span,
            id="printf('nic-%08d', n.i)",
            instance_id="printf('i-%08d', n.i)",
        )
        connection.execute(
            f"WITH {_NUMBERS} INSERT INTO labels (resource_id, key, value)"  # noqa: S608 - all of it is ours
            f" SELECT printf('i-%08d', n.i), '{LABEL}', {_label()} FROM n",
            span,
        )
        connection.execute("COMMIT")
    finally:
        connection.close()


_NUMBERS = "RECURSIVE n(i) AS (SELECT ? UNION ALL SELECT i + 1 FROM n WHERE i < ?)"


def _label() -> str:
    return f"CASE WHEN n.i <= {RARE_ROWS} THEN '{RARE}' ELSE 'common' END"


def _copy(connection: sqlite3.Connection, table: str, which: str, span: tuple[int, int], **changed: str) -> None:
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    values = [changed.get(column, f"t.{column}") for column in columns]
    connection.execute(
        f"WITH {_NUMBERS} INSERT INTO {table} ({', '.join(columns)})"  # noqa: S608 - names and expressions are ours
        f" SELECT {', '.join(values)} FROM n, {table} t WHERE {which}",
        span,
    )
