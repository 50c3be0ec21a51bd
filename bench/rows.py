"""Fills a simulated cloud with many instances at once, past the API; what is measured are questions about them.

Each is a copy of one real instance with another id, name and time: its row, NIC, label and simulated machine, and
its part of the counters. No job, event, address or claim on a name comes with it (a network has 65,000 addresses),
so this says nothing about creating; it is how a million are there within a minute.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

LABEL = "app"
RARE = "rare"
AT_ONCE = 50_000  # in one transaction: the server writes too, and does not wait for ever
RARE_ROWS = 50  # so many carry ``app=rare``, however many rows there are; the others ``app=common``


def fill(state: Path, template_id: str, *, have: int, want: int) -> None:
    """Copy the instance ``template_id`` until there are ``want`` copies; ``have`` were made by earlier calls."""
    while have < want:
        upto = min(want, have + AT_ONCE)
        _fill_cloud(state / "cloud.db", template_id, have=have, want=upto)
        _fill_simulation(state / "sim.db", template_id, have=have, want=upto)
        have = upto


def _fill_cloud(database: Path, template_id: str, *, have: int, want: int) -> None:
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
        _count(connection, template_id, want - have)
        connection.execute("COMMIT")
    finally:
        connection.close()


def _fill_simulation(database: Path, template_id: str, *, have: int, want: int) -> None:
    connection = sqlite3.connect(database, timeout=60, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("BEGIN IMMEDIATE")
        which, span = f"t.machine_id = '{template_id}'", (have + 1, want)
        machine = "printf('i-%08d', n.i)"
        _copy(connection, "machines", which, span, machine_id=machine, hostname="printf('copy-%08d', n.i)")
        _copy(connection, "nics", which, span, machine_id=machine, nic_id="printf('nic-%08d', n.i)")
        connection.execute("COMMIT")
    finally:
        connection.close()


def _count(connection: sqlite3.Connection, template_id: str, more: int) -> None:
    """Let the counters know of ``more`` instances like the template."""
    row = connection.execute(
        "SELECT project_id, host_id, vcpus, memory_mib, root_disk_gib FROM instances WHERE id = ?", (template_id,)
    ).fetchone()
    project_id, host_id, *shape = row
    resources = ("instances", "vcpus", "memory_mib", "root_disk_gib")
    for resource, amount in zip(resources, (1, *shape), strict=True):
        connection.execute(
            "UPDATE quotas SET used = used + ? WHERE project_id = ? AND resource = ?",
            (more * amount, project_id, resource),
        )
    connection.execute(
        "UPDATE hosts SET vcpus_used = vcpus_used + ?, memory_mib_used = memory_mib_used + ?,"
        " disk_gib_used = disk_gib_used + ? WHERE id = ?",
        (*(more * amount for amount in shape), host_id),
    )


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
