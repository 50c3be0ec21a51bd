"""Clouds: one in memory, and those for races."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from iaas.cloud import Cloud
from tests.factories import make_cloud, open_cloud
from tests.unit.services.racing import HOSTS


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with open_cloud() as opened:
        yield opened


@pytest.fixture(params=["sqlite", "postgresql"])
def clouds(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sequence[Cloud]]:
    """Two servers of one cloud on PostgreSQL; on SQLite one, which is all that is allowed there."""
    seeds = (1,) if request.param == "sqlite" else (1, 2)
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    with contextlib.ExitStack() as stack:
        opened = [
            stack.enter_context(
                contextlib.closing(make_cloud(tmp_path, database_url=url, zones=("zone-1",), hosts=HOSTS, seed=seed))
            )
            for seed in seeds
        ]
        yield opened
