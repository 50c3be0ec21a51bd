"""How SQLite goes about a page of instances: by an index to its place, whatever the number of rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from iaas.cloud import Cloud
from iaas.db.models import LabelRow
from iaas.db.repositories import instances
from iaas.db.repositories.query import FEW, Listing, cursor_at
from iaas.db.statements import insert_rows
from iaas.db.store import Tx
from iaas.kernel.labels import parse_selector
from iaas.resources.common import Page
from tests.factories import open_cloud, operator, settle, wish


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with open_cloud() as cloud:
        cloud.instances.create(operator(cloud), [wish(labels={"tier": "rare"})])
        settle(cloud)

        def label_many(tx: Tx) -> None:
            rows = [{"resource_id": f"vol-{nth:08d}", "key": "tier", "value": "common"} for nth in range(FEW + 1)]
            insert_rows(tx.connection, LabelRow.__table__, rows)

        cloud.store.write(label_many)
        yield cloud


def plan_of(cloud: Cloud, *, deleted: bool = False, selector: str = "", **listing: Any) -> list[str]:
    """Return SQLite's plan for the query that finds the page (not for what is asked before and after it)."""
    page = Page(**{name: listing.pop(name) for name in ("sort", "descending", "cursor") if name in listing})
    wanted = Listing(page=page, labels=parse_selector(selector), **listing)
    asked: list[str] = []
    project_id = operator(cloud).project_id
    with cloud.store.read() as connection:
        driver: Any = connection.connection.driver_connection
        driver.set_trace_callback(asked.append)
        try:
            instances.list_page(connection, wanted, project_id=project_id, deleted=deleted)
        finally:
            driver.set_trace_callback(None)
        (query,) = [each for each in asked if each.startswith("SELECT instances.") and "ORDER BY" in each]
        with closing(driver.execute(f"EXPLAIN QUERY PLAN {query}")) as cursor:
            return [row[3] for row in cursor.fetchall()]


def cursor_of_second_page(cloud: Cloud, **page: Any) -> str:
    asker = operator(cloud)
    with cloud.store.read() as connection:
        only = instances.list_page(connection, Listing(), project_id=asker.project_id)[0][0]
    shape = Page(**page)
    return cursor_at(shape, getattr(only, shape.sort), only.id)


@pytest.mark.parametrize(
    ("listing", "index"),
    [
        ({}, "ix_instances_living (project_id=?)"),
        ({"descending": False}, "ix_instances_living (project_id=?)"),
        ({"deleted": True}, "ix_instances_deleted (project_id=?)"),
        ({"filters": {"status": "stopped"}}, "ix_instances_project_id_status (project_id=? AND status=?)"),
        ({"filters": {"name": "one"}}, "ix_instances_project_id_name (project_id=? AND name=?)"),
        ({"selector": "tier=common"}, "ix_instances_living (project_id=?)"),
    ],
)
def test_the_first_page_is_read_off_an_index(cloud: Cloud, listing: dict[str, Any], index: str) -> None:
    plan = plan_of(cloud, **listing)
    assert plan[0] == f"SEARCH instances USING INDEX {index}"
    assert not any("TEMP B-TREE" in line for line in plan)


@pytest.mark.parametrize(
    ("page", "index"),
    [
        ({}, "ix_instances_living (project_id=? AND (created_at,id)<(?,?))"),
        ({"descending": False}, "ix_instances_living (project_id=? AND (created_at,id)>(?,?))"),
        ({"sort": "name", "descending": False}, "ix_instances_project_id_name (project_id=? AND name>?)"),
    ],
)
def test_a_later_page_begins_at_its_place(cloud: Cloud, page: dict[str, Any], index: str) -> None:
    plan = plan_of(cloud, cursor=cursor_of_second_page(cloud, **page), **page)
    assert plan[0] == f"SEARCH instances USING INDEX {index}"


def test_a_label_that_few_have_leads_to_them(cloud: Cloud) -> None:
    plan = plan_of(cloud, selector="tier=rare")
    assert plan[0] == "SEARCH instances USING INDEX sqlite_autoindex_instances_1 (id=?)"
    assert any("labels USING COVERING INDEX ix_labels_key_value (key=? AND value=?)" in line for line in plan)
