from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from iaas.db.models import Base
from iaas.db.schema import current_revision, migrate, upgrade
from iaas.db.store import Store
from iaas.kernel.clock import CloudClock
from iaas.kernel.errors import Unavailable
from iaas.migrations import HEAD, script_location
from tests.postgres import Cluster


@pytest.fixture(params=["sqlite", "postgresql"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    """Two empty databases of one kind."""
    with contextlib.ExitStack() as stack:
        if request.param == "sqlite":
            urls = [f"sqlite:///{tmp_path / name}.db" for name in ("one", "two")]
        else:
            cluster: Cluster = request.getfixturevalue("postgres")
            urls = [stack.enter_context(cluster.database(empty=True)) for _ in range(2)]
        one, two = (stack.enter_context(contextlib.closing(Store(url, CloudClock(scale=0)))) for url in urls)
        yield one, two


def config() -> Config:
    made = Config()
    made.set_main_option("script_location", script_location())
    return made


def schema(store: Store) -> dict[str, Any]:
    """Return tables with columns, keys, indexes and checks, in a comparable form."""
    looked = inspect(store.engine)
    return {
        table: {
            "columns": [
                (column["name"], str(column["type"]), column["nullable"]) for column in looked.get_columns(table)
            ],
            "key": looked.get_pk_constraint(table),
            "indexes": sorted(str(plain(index)) for index in looked.get_indexes(table)),
            "unique": sorted(map(str, looked.get_unique_constraints(table))),
            "checks": sorted(map(str, looked.get_check_constraints(table))),
        }
        for table in looked.get_table_names()
        if table != "alembic_version"  # Alembic names its own key otherwise
    }


def plain(index: Any) -> dict[str, Any]:
    """Conditions of partial indexes compare as text."""
    return {**index, "dialect_options": {key: str(value) for key, value in index["dialect_options"].items()}}


def sorted_columns(found: dict[str, Any]) -> dict[str, Any]:
    """The order of columns is no difference that anything of ours can see."""
    return {table: {**parts, "columns": sorted(parts["columns"])} for table, parts in found.items()}


def test_head_is_the_newest_script() -> None:
    assert ScriptDirectory.from_config(config()).get_current_head() == HEAD


def test_the_short_cut_and_the_migrations_give_the_same_schema(stores: tuple[Store, Store]) -> None:
    short, long = stores
    upgrade(short)
    migrate(long, None)
    assert current_revision(short) == current_revision(long) == HEAD
    assert sorted_columns(schema(short)) == sorted_columns(schema(long))


def test_autogenerate_finds_no_difference(stores: tuple[Store, Store]) -> None:
    store, _ = stores
    migrate(store, None)
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_down_and_up_again(stores: tuple[Store, Store]) -> None:
    store, _ = stores
    upgrade(store)
    before = sorted_columns(schema(store))
    with store.engine.begin() as connection:
        made = config()
        made.attributes["connection"] = connection
        command.downgrade(made, "base")
    assert schema(store) == {}
    migrate(store, None)
    assert sorted_columns(schema(store)) == before


def test_an_upgraded_database_is_left_alone(stores: tuple[Store, Store]) -> None:
    store, _ = stores
    upgrade(store)
    upgrade(store)
    assert current_revision(store) == HEAD


def test_a_database_of_a_newer_version_is_refused(stores: tuple[Store, Store]) -> None:
    store, _ = stores
    upgrade(store)
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Unavailable, match="9999"):
        upgrade(store)
