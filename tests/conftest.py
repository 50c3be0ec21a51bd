"""Fixtures for all rings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.postgres import Cluster, require_postgres, running_cluster
from tests.real_host import RealHost, close_real_host, open_real_host, require_real_host

# The default draws a traceback with every local variable, which takes seconds for one of ours.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)


@pytest.fixture(scope="session")
def real_host() -> Iterator[RealHost]:
    """The real backend, ready. Skips where the host cannot run it, fails there if IAAS_REQUIRE_REAL=1."""
    require_real_host()
    host = open_real_host()
    try:
        yield host
    finally:
        close_real_host(host)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A private PostgreSQL server. Skips where there is none, fails there if IAAS_REQUIRE_REAL=1."""
    require_postgres()
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def postgres_url(postgres: Cluster) -> Iterator[str]:
    """A database of the test's own, with the newest tables and no rows."""
    with postgres.database() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without tables, on each kind in turn."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    cluster: Cluster = request.getfixturevalue("postgres")
    with cluster.database(empty=True) as url:
        yield url
