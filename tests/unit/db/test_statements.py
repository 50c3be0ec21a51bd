from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import Connection, bindparam, insert, select
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from iaas.db.models import AllocationRow, Base, EventRow, ImageRow, JobRow
from iaas.db.statements import (
    Prepared,
    delete_rows,
    insert_if_free,
    insert_row,
    insert_rows,
    update_rows,
)
from iaas.db.store import Store
from iaas.kernel.clock import CloudClock

JOBS, EVENTS = JobRow.__table__, EventRow.__table__
ALLOCATIONS, IMAGES = AllocationRow.__table__, ImageRow.__table__
NOON = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture
def connection(empty_database_url: str) -> Iterator[Connection]:
    store = Store(empty_database_url, CloudClock())
    Base.metadata.create_all(store.engine)
    with store.engine.begin() as connection:
        yield connection
    store.close()


def job(job_id: str, **values: Any) -> dict[str, Any]:
    return {
        "id": job_id,
        "project_id": "proj-1",
        "action": "instance.create",
        "status": "queued",
        "resource_type": "instance",
        "resource_id": "i-1",
        "input": {"a": [1, None, "ü"]},
        "memo": {},
        "position": 0,
        "steps": 6,
        "step_name": "first",
        "step_began_at": None,
        "unwinding": False,
        "error_code": None,
        "error_message": None,
        "request_id": None,
        "created_at": NOON,
        "finished_at": None,
        **values,
    }


def test_rows_come_back_as_sqlalchemy_would_give_them(connection: Connection) -> None:
    insert_row(connection, JOBS, job("job-1"))
    connection.execute(insert(JobRow).values(**job("job-2", unwinding=True, step_began_at=NOON)))
    prepared = Prepared(select(JOBS).where(JOBS.c.status == bindparam("status")).order_by(JOBS.c.id))
    ours = prepared.rows(connection, {"status": "queued"})
    theirs = list(connection.execute(select(JOBS).order_by(JOBS.c.id)))
    assert [tuple(row) for row in ours] == [tuple(row) for row in theirs]
    assert ours[0].input == {"a": [1, None, "ü"]}
    assert ours[0].created_at == NOON
    assert ours[1].unwinding is True


def test_times_are_stored_in_utc_whatever_their_zone(connection: Connection) -> None:
    insert_row(connection, JOBS, job("job-1", created_at=NOON.astimezone(timezone(timedelta(hours=5)))))
    assert connection.execute(select(JOBS.c.created_at)).scalar_one() == NOON


def test_a_time_without_a_zone_is_refused(connection: Connection) -> None:
    with pytest.raises(ValueError, match="without a zone"):
        insert_row(connection, JOBS, job("job-1", created_at=datetime(2026, 1, 31)))


def test_the_database_makes_the_keys_that_are_left_out(connection: Connection) -> None:
    event = {
        "type": "instance.created",
        "project_id": "proj-1",
        "resource_type": "instance",
        "resource_id": "i-1",
        "generation": None,
        "job_id": None,
        "request_id": None,
        "data": {},
        "created_at": NOON,
    }
    insert_row(connection, EVENTS, event)
    insert_rows(connection, EVENTS, [event, event])
    assert list(connection.execute(select(EVENTS.c.id)).scalars()) == [1, 2, 3]


def test_update_matches_values_nulls_and_sets(connection: Connection) -> None:
    insert_rows(connection, JOBS, [job("job-1"), job("job-2", status="running"), job("job-3", finished_at=NOON)])
    waiting = {"status": frozenset({"queued", "running"}), "finished_at": None}
    assert update_rows(connection, JOBS, waiting, {"step_name": "next"}, add={"position": 2}) == 2
    assert update_rows(connection, JOBS, {"status": frozenset()}, {"step_name": "never"}) == 0
    found = connection.execute(select(JOBS.c.id, JOBS.c.step_name, JOBS.c.position).order_by(JOBS.c.id)).all()
    assert [tuple(row) for row in found] == [("job-1", "next", 2), ("job-2", "next", 2), ("job-3", "first", 0)]


def test_a_column_may_be_compared_and_changed_at_once(connection: Connection) -> None:
    insert_row(connection, JOBS, job("job-1"))
    assert update_rows(connection, JOBS, {"id": "job-1", "status": "queued"}, {"status": "running"}) == 1
    assert update_rows(connection, JOBS, {"id": "job-1", "status": "queued"}, {"status": "running"}) == 0


def test_delete_counts_what_it_deleted(connection: Connection) -> None:
    insert_rows(connection, JOBS, [job("job-1"), job("job-2")])
    assert delete_rows(connection, JOBS, {"id": "job-1"}) == 1
    assert delete_rows(connection, JOBS, {"id": "job-1"}) == 0


def test_a_change_of_everything_is_refused(connection: Connection) -> None:
    with pytest.raises(ValueError, match="all rows"):
        delete_rows(connection, JOBS, {})


def test_insert_if_free_says_whether_it_was(connection: Connection) -> None:
    claim = {"scope": "mac:zone-1", "value": "52:54:00:00:00:01", "resource_id": "nic-1"}
    assert insert_if_free(connection, ALLOCATIONS, claim)
    assert not insert_if_free(connection, ALLOCATIONS, {**claim, "resource_id": "nic-2"})


def test_errors_are_sqlalchemys(connection: Connection) -> None:
    insert_row(connection, JOBS, job("job-1"))
    with pytest.raises(IntegrityError) as caught:
        insert_row(connection, JOBS, job("job-1", input={"password": "s3cret"}))
    assert "s3cret" not in str(caught.value)
    with pytest.raises((OperationalError, ProgrammingError)):  # SQLite's word for it, PostgreSQL's
        Prepared(select(JOBS.c.id).where(JOBS.c.id == bindparam("id")), suffix=" garbage").first(
            connection, {"id": "job-1"}
        )


def test_a_parameter_with_a_value_is_its_default(connection: Connection) -> None:
    insert_rows(connection, JOBS, [job("job-1"), job("job-2", status="failed")])
    prepared = Prepared(
        select(JOBS.c.id).where(JOBS.c.status == bindparam("status", "failed")).limit(bindparam("most"))
    )
    assert [row.id for row in prepared.rows(connection, {"most": 5})] == ["job-2"]
    assert [row.id for row in prepared.rows(connection, {"most": 5, "status": "queued"})] == ["job-1"]


def test_a_number_of_parameters_that_varies_is_refused(connection: Connection) -> None:
    prepared = Prepared(select(IMAGES.c.id).where(IMAGES.c.id.in_(bindparam("ids", expanding=True))))
    with pytest.raises(ValueError, match="fixed number"):
        prepared.rows(connection, {"ids": ["img-1"]})
