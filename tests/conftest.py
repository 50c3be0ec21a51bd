"""Fixtures for all rings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.real_host import RealHost, close_real_host, open_real_host, require_real_host


@pytest.fixture(scope="session")
def real_host() -> Iterator[RealHost]:
    """The real backend, ready. Skips where the host cannot run it, fails there if IAAS_REQUIRE_REAL=1."""
    require_real_host()
    host = open_real_host()
    try:
        yield host
    finally:
        close_real_host(host)
