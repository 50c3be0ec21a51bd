"""Console logs against a fake that forgets as LXD does: see iaas.drivers.lxd.console."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iaas.drivers.interface import TransientError

NAME = "iaas-unit-aaaa1111"

console = pytest.importorskip("iaas.drivers.lxd.console", reason="the extra `real` is not installed")


class ForgetfulLXD:
    """A running guest's output is handed out once; at a stop what was not handed out replaces the file."""

    def __init__(self) -> None:
        self.is_running = False
        self.buffer = b""
        self.file: bytes | None = None

    def get_file(self, path: str, *, action: str) -> Any:
        assert path == f"instances/{NAME}/console"
        if not self.is_running:
            if self.file is None:
                raise TransientError("LXD could not do it: open (path): no such file or directory")
            return SimpleNamespace(content=self.file)
        if not self.buffer:
            raise TransientError("LXD could not do it: open : no such file or directory")
        news, self.buffer = self.buffer, b""
        self.file = (self.file or b"") + news
        return SimpleNamespace(content=news)

    def call(self, method: str, path: str, *, action: str) -> None:
        assert (method, path) == ("delete", f"instances/{NAME}/console")
        self.file = b""

    def boot(self, text: bytes) -> None:
        self.is_running, self.buffer = True, text

    def stop(self) -> None:
        self.is_running = False
        if self.buffer:
            self.file, self.buffer = self.buffer, b""


def read(logs: Any, lxd: ForgetfulLXD, tail_bytes: int = 10_000) -> bytes:
    return bytes(logs.read(NAME, is_running=lxd.is_running, tail_bytes=tail_bytes))


def test_nothing_is_lost_or_doubled_over_looks_and_restarts(tmp_path: Path) -> None:
    lxd = ForgetfulLXD()
    logs = console.ConsoleLogs(tmp_path / "consoles", lxd)
    assert read(logs, lxd) == b""
    lxd.boot(b"one ")
    assert read(logs, lxd) == b"one "
    assert read(logs, lxd) == b"one "
    lxd.buffer = b"two "
    assert read(logs, lxd) == b"one two "
    lxd.stop()  # all was handed out: the file holds it a second time
    assert read(logs, lxd) == b"one two "
    assert read(logs, lxd) == b"one two "
    lxd.boot(b"three ")
    lxd.stop()  # nothing was handed out
    logs.collect(NAME, is_running=False)
    lxd.boot(b"four ")
    assert read(logs, lxd) == b"one two three four "
    lxd.buffer = b"five "
    lxd.stop()  # a part was handed out
    assert read(logs, lxd) == b"one two three four five "
    assert read(logs, lxd, 5) == b"five "


def test_another_process_goes_on_with_the_same_log_and_removal_ends_it(tmp_path: Path) -> None:
    lxd = ForgetfulLXD()
    lxd.boot(b"one ")
    assert read(console.ConsoleLogs(tmp_path, lxd), lxd) == b"one "
    lxd.buffer = b"two "
    logs = console.ConsoleLogs(tmp_path, lxd)
    assert read(logs, lxd) == b"one two "
    logs.forget(NAME)
    logs.forget(NAME)
    assert list(tmp_path.iterdir()) == []


def test_a_log_is_bounded_and_keeps_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "KEPT_BYTES", 100)
    lxd = ForgetfulLXD()
    logs = console.ConsoleLogs(tmp_path, lxd)
    for number in range(100):
        lxd.boot(b"line %04d\n" % number)
        assert read(logs, lxd).endswith(b"line %04d\n" % number)
        assert (tmp_path / f"{NAME}.log").stat().st_size <= 200
