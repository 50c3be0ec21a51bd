from __future__ import annotations

from collections.abc import Iterator

import pytest

from iaas.client import Client
from tests.unit.client.fake_cloud import ENDPOINT, TOKEN, FakeCloud


class FakeTime:
    """A wall clock that only moves when someone sleeps."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.slept_s: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_s += seconds

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in ("IAAS_ENDPOINT", "IAAS_TOKEN", "IAAS_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path_factory.mktemp("home")))


@pytest.fixture
def cloud() -> FakeCloud:
    return FakeCloud()


@pytest.fixture
def wall() -> FakeTime:
    return FakeTime()


@pytest.fixture
def client(cloud: FakeCloud, wall: FakeTime) -> Iterator[Client]:
    with Client(ENDPOINT, TOKEN, http=cloud.transport()) as made:
        made.transport.sleep = wall.sleep
        made.transport.monotonic = wall.monotonic
        yield made
