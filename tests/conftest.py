"""Fixtures for all rings."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.real_host import RealHost, close_real_host, open_real_host, reasons_against


@pytest.fixture(scope="session")
def real_host() -> Iterator[RealHost]:
    """The real backend, ready. Skips where the host cannot run it, fails there if IAAS_REQUIRE_REAL=1."""
    if reasons := reasons_against():
        text = "no real backend on this host: " + "; ".join(reasons)
        if os.environ.get("IAAS_REQUIRE_REAL") == "1":
            pytest.fail(text)
        pytest.skip(text)
    host = open_real_host()
    try:
        yield host
    finally:
        close_real_host(host)
