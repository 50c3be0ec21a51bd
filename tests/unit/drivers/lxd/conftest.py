from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.drivers.lxd.fake_lxd import FakeLXD, running_fake

# The path of a unix socket has 107 characters at most, and tmp_path may be longer.


@pytest.fixture
def fake_lxd() -> Iterator[FakeLXD]:
    """A fake LXD daemon that knows the image ``img-tiny0000``."""
    with tempfile.TemporaryDirectory(prefix="fake-lxd-") as folder:
        for fake in running_fake(Path(folder)):
            fake.aliases["iaas-unit-img-tiny0000"] = "f" * 64
            yield fake
