from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from iaas.cli.main import main
from iaas.cli.plugins import GROUP, Plugins
from iaas.cli.session import Session
from tests.unit.client.fake_cloud import ENDPOINT, TOKEN, FakeCloud


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def cloud() -> FakeCloud:
    return FakeCloud()


@pytest.fixture
def run(cloud: FakeCloud, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Run:
    """Run one command line against ``cloud``; no entry points but those of ``plugins``."""
    for name in ("IAAS_ENDPOINT", "IAAS_TOKEN", "IAAS_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))

    def run_line(*words: str, plugins: Iterable[str] = (), token: str | None = TOKEN) -> Result:
        entries = [
            importlib.metadata.EntryPoint(each.partition("=")[0], each.partition("=")[2], GROUP) for each in plugins
        ]
        session = Session(endpoint=ENDPOINT, token=token, http=cloud.transport())
        status = main(list(words), session=session, plugins=Plugins(entries))
        captured = capfd.readouterr()
        return Result(int(status), captured.out, captured.err)

    return run_line
