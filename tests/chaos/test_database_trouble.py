"""The database is locked, full or gone: whoever asks is told so, nothing is half done, and work goes on afterwards."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from iaas.api.app import create_app
from iaas.cloud import Cloud
from iaas.resources.instances import InstanceStatus
from iaas.resources.jobs import JobStatus
from tests.api.calling import NEW, Caller
from tests.factories import (
    TOKEN,
    assert_consistent,
    instance_row,
    job_of,
    make_cloud,
    open_cloud,
    operator,
    settle,
    wish,
)

Trouble = Callable[[Cloud, Path], Any]


def pragma(cloud: Cloud, text: str) -> Any:
    """Set something of the one connection that writes."""
    with cloud.store.engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        return driver.execute(f"PRAGMA {text}").fetchone()


@contextmanager
def locked(cloud: Cloud, folder: Path) -> Iterator[None]:
    """Another process holds the write lock."""
    pragma(cloud, "busy_timeout=20")
    other = sqlite3.connect(folder / "cloud.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        yield
    finally:
        other.close()


@contextmanager
def full(cloud: Cloud, folder: Path) -> Iterator[None]:
    """There is no room for one more page (what fits into the present ones is still written)."""
    pages = pragma(cloud, "page_count")[0]
    pragma(cloud, f"max_page_count={pages}")
    try:
        yield
    finally:
        pragma(cloud, "max_page_count=1000000")


@contextmanager
def gone(cloud: Cloud, folder: Path) -> Iterator[None]:
    """Somebody has moved the file away."""
    path = folder / "cloud.db"
    path.rename(folder / "elsewhere.db")
    try:
        yield
    finally:
        (folder / "elsewhere.db").rename(path)


LARGE = {**NEW, "name": "during", "user_data": "x" * 60_000}  # more than the free pages hold


@pytest.mark.parametrize("trouble", [locked, full, gone])
def test_a_request_is_refused_and_nothing_of_it_stays(tmp_path: Path, trouble: Trouble) -> None:
    with open_cloud(tmp_path) as cloud:
        admin = Caller(create_app(cloud), TOKEN)
        admin.send("POST", "/v1/instances", {**NEW, "name": "before"}, status=202)
        settle(cloud)
        with trouble(cloud, tmp_path):
            for _ in range(2):
                answer = admin.call("POST", "/v1/instances", json=LARGE)
                assert answer.status_code == 503, answer.text
                assert answer.json["code"] == "database_unavailable"
                assert answer.json["retryable"]
                assert "Retry-After" in answer.headers
            assert [each["name"] for each in admin.get("/v1/instances")["items"]] == ["before"], "reads go on"
        admin.send("POST", "/v1/instances", LARGE, status=202)
        settle(cloud)
        assert_consistent(cloud)
    with open_cloud(tmp_path, seed=2) as again:
        names = {each["name"] for each in Caller(create_app(again), TOKEN).get("/v1/instances")["items"]}
        assert names == {"before", "during"}


@pytest.mark.parametrize("blocking", [False, True], ids=["inline", "pool"])
@pytest.mark.parametrize("trouble", [locked, gone])
def test_a_job_waits_for_the_database(tmp_path: Path, trouble: Trouble, blocking: bool) -> None:
    with open_cloud(tmp_path, blocking=blocking) as cloud:
        instance, job = cloud.instances.create(operator(cloud), [wish()])[0]
        with trouble(cloud, tmp_path):
            for _ in range(4):
                cloud.executor.run_due()
                cloud.clock.advance(1)
            assert job_of(cloud, job.id).status in (JobStatus.QUEUED, JobStatus.RUNNING)
        settle(cloud)
        assert job_of(cloud, job.id).status == JobStatus.SUCCEEDED
        assert instance_row(cloud, instance.id).status == InstanceStatus.RUNNING
        assert_consistent(cloud)


def test_a_replaced_file_is_not_written_into(tmp_path: Path) -> None:
    cloud = make_cloud(tmp_path)
    try:
        admin = Caller(create_app(cloud), TOKEN)
        admin.send("POST", "/v1/instances", {**NEW, "name": "before"}, status=202)
        path = tmp_path / "cloud.db"
        path.rename(tmp_path / "old.db")
        path.touch()
        answer = admin.call("POST", "/v1/instances", json={**NEW, "name": "during"})
        assert (answer.status_code, answer.json["code"]) == (503, "database_unavailable")
    finally:
        cloud.close()
