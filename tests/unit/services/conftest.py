from __future__ import annotations

from collections.abc import Iterator

import pytest

from iaas.cloud import Cloud
from tests.factories import open_cloud


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with open_cloud() as opened:
        yield opened
