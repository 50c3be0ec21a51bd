"""Going back to an older schema and forth again keeps what the older one has a place for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, Row

from iaas.cloud import Cloud
from iaas.db.schema import current_revision, migrate
from iaas.migrations import HEAD, script_location
from tests.factories import create, make_cloud, operator, principal_in, settle, wish

OTHER_NAMES = {("networks", None): "subnets", ("nics", "network_id"): "subnet_id"}
"""Tables, and columns of them, that an older schema knows by another name."""

Rows = dict[str, dict[str, list[Any]]]
"""By table and column: the values, in the order of the rows' keys."""


def config() -> Config:
    made = Config()
    made.set_main_option("script_location", script_location())
    return made


def revisions() -> list[str]:
    """Return all revisions but the newest, oldest first."""
    scripts = ScriptDirectory.from_config(config())
    return [script.revision for script in scripts.walk_revisions()][:0:-1]


@pytest.fixture
def lived_in(empty_database_url: str) -> Iterator[Cloud]:
    """A cloud in which things have happened: instances alive, stopped, deleted and on their way; tenants, events."""
    cloud = make_cloud(database_url=empty_database_url)
    member, _ = principal_in(cloud, "team")
    create(cloud, member, name="alive", labels={"tier": "web", "empty": ""}, user_data=b"#!/bin/sh\n\x00")
    stopped = create(cloud, member, name="stopped")
    cloud.instances.stop(member, stopped.id, force=True)
    gone = create(cloud, member, name="gone")
    cloud.instances.delete(member, gone.id)
    settle(cloud)
    cloud.identity.create_access_key(operator(cloud), name="key")
    cloud.instances.create(member, [wish(name="coming", kind="vm")])
    yield cloud
    cloud.close()


def rows_of(cloud: Cloud) -> Rows:
    found: Rows = {}
    metadata = MetaData()
    with cloud.store.engine.connect() as connection:
        metadata.reflect(connection)
        for table in metadata.sorted_tables:
            if table.name == "alembic_version":
                continue
            keys = [column.name for column in table.primary_key]
            rows: list[Row[Any]] = sorted(
                connection.execute(table.select()),
                key=lambda row, keys=keys: tuple(str(row._mapping[key]) for key in keys),
            )
            found[table.name] = {column.name: [row._mapping[column.name] for row in rows] for column in table.columns}
    return found


def newer(rows: Rows, table: str, name: str) -> list[Any]:
    """Return the values of an older schema's column where they are now."""
    return rows[OTHER_NAMES.get((table, None), table)][OTHER_NAMES.get((table, name), name)]


@pytest.mark.parametrize("revision", revisions())
def test_rows_outlive_the_way_down_and_up(lived_in: Cloud, revision: str) -> None:
    before = rows_of(lived_in)
    assert all(before[table]["id"] for table in ("instances", "jobs", "events", "nics", "projects"))
    with lived_in.store.engine.begin() as connection:
        made = config()
        made.attributes["connection"] = connection
        command.downgrade(made, revision)
    assert current_revision(lived_in.store) == revision
    older = rows_of(lived_in)
    for table, columns in older.items():
        for name, values in columns.items():
            assert values == newer(before, table, name), f"{table}.{name} on the way down"
    migrate(lived_in.store, revision)
    assert current_revision(lived_in.store) == HEAD
    after = rows_of(lived_in)
    assert after.keys() == before.keys()
    for table, columns in older.items():
        for name, values in columns.items():
            assert newer(after, table, name) == values, f"{table}.{name} on the way up"
    settle(lived_in)  # and the cloud goes on: the job that was on its way ends
    assert all(status != "queued" for status in rows_of(lived_in)["jobs"]["status"])
