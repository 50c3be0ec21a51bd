"""A simulated cloud behind the application, on either database; its time stands until a test calls ``settle``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask

from iaas.api.app import create_app
from iaas.cloud import Cloud
from iaas.resources.common import Role
from tests.api.calling import Caller
from tests.factories import TOKEN, open_cloud, principal_in
from tests.postgres import Cluster, emptied

ON_SQLITE_ONLY = {
    "test_bad_bodies": "refused before the store is asked",
    "test_cloud_init": "about what is served, not where it lies",
    "test_proxy": "about sockets",
}
"""Modules whose tests of a ``database_url`` would see nothing new on PostgreSQL. All others run on both."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "database_url" in metafunc.fixturenames and metafunc.module.__name__.rpartition(".")[2] not in ON_SQLITE_ONLY:
        metafunc.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture(scope="module")
def module_database(postgres: Cluster) -> Iterator[str]:
    """The URL of a database that the tests of one module have in turn: emptying it is quicker than making another."""
    with postgres.database() as url:
        yield url


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """None for SQLite in memory, or the URL of a database on PostgreSQL with the newest tables and no rows."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield None
        return
    url: str = request.getfixturevalue("module_database")
    yield url
    emptied(url)


@pytest.fixture
def cloud(database_url: str | None) -> Iterator[Cloud]:
    with open_cloud(database_url=database_url) as opened:
        yield opened


@pytest.fixture
def app(cloud: Cloud) -> Flask:
    return create_app(cloud, proxy_url="http://127.0.0.1:1")


@pytest.fixture
def admin(app: Flask) -> Caller:
    """The operator, in the default project."""
    return Caller(app, TOKEN)


@pytest.fixture
def member(app: Flask, cloud: Cloud) -> Caller:
    return Caller(app, principal_in(cloud, "team", Role.MEMBER)[1])


@pytest.fixture
def reader(app: Flask, cloud: Cloud) -> Caller:
    """May look only, in the same project as ``member``."""
    return Caller(app, principal_in(cloud, "team", Role.READER)[1])


@pytest.fixture
def stranger(app: Flask, cloud: Cloud) -> Caller:
    """A member of another project than everybody else."""
    return Caller(app, principal_in(cloud, "others", Role.MEMBER)[1])


@pytest.fixture
def nobody(app: Flask) -> Caller:
    return Caller(app, None)


@pytest.fixture(scope="module")
def shared_cloud() -> Iterator[Cloud]:
    """One cloud for many refusals, none of which may change it."""
    with open_cloud() as opened:
        yield opened


@pytest.fixture(scope="module")
def shared_admin(shared_cloud: Cloud) -> Caller:
    return Caller(create_app(shared_cloud), TOKEN)
