"""Fixtures for tests that need real machines on networks of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.network_world import NetworkWorld, network_world
from tests.real_host import require_real_host


@pytest.fixture(scope="package")
def networks() -> Iterator[NetworkWorld]:
    """Machines of both kinds in two VPCs of one server; shared, so a test leaves it as it was."""
    require_real_host()
    with network_world() as world:
        yield world
