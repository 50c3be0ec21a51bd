"""``scripts/run``, the main job: what a newcomer types first, and what must hold however it ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.real_host import PARENT, require_real_host

ROOT = Path(__file__).resolve().parents[2]
SIM_TIMEOUT_S = 90.0
REAL_TIMEOUT_S = 280.0
POLL_S = 0.05


def environment() -> dict[str, str]:
    names = ("BACKEND", "ONCE", "LISTEN", "STATE", "VIRT_TYPE", "MAKEFLAGS")
    kept = {name: value for name, value in os.environ.items() if name not in names and not name.startswith("IAAS_")}
    # The environment the tests run in, so that nothing is installed here.
    return {**kept, "VENV": str(Path(sys.executable).parent.parent)}


def run_once(*settings: str, program: Sequence[str] = ("scripts/run",), timeout_s: float) -> str:
    done = subprocess.run(
        [*program, "ONCE=1", "LISTEN=127.0.0.1:0", *settings],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


class Run:
    """A run that keeps serving; what it printed is in ``log``."""

    def __init__(self, state: Path, log: Path) -> None:
        self.state = state
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                ["scripts/run", "LISTEN=127.0.0.1:0", f"STATE={state}"],
                cwd=ROOT,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def wait_until_serving(self) -> str:
        deadline = time.monotonic() + SIM_TIMEOUT_S
        while (text := self.log.read_text()).count("Ctrl-C ends this cloud") == 0:
            assert self.process.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(POLL_S)
        return text

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(SIM_TIMEOUT_S)

    def server_pid(self) -> int:
        return int(self.state.with_name(f"{self.state.name}.run").read_text())


@contextmanager
def running(state: Path, log: Path) -> Iterator[Run]:
    run = Run(state, log)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.end(signal.SIGTERM)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_simulated_run_shows_both_machines_answering(tmp_path: Path) -> None:
    text = run_once(f"STATE={tmp_path / 'run'}", timeout_s=SIM_TIMEOUT_S)
    assert "Both machines are ready and answer." in text
    assert re.search(r"demo-vm +vm +i-\w{8}.*id=i-\w{8} host=demo-vm kind=vm", text)
    assert re.search(r"demo-container +container +i-\w{8}.*kind=container", text)


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_takes_the_same_settings(tmp_path: Path) -> None:
    text = run_once(f"STATE={tmp_path / 'run'}", program=("make", "run"), timeout_s=SIM_TIMEOUT_S)
    assert "Both machines are ready and answer." in text


def test_a_run_keeps_serving_until_it_is_told_to_end(tmp_path: Path) -> None:
    with running(tmp_path / "run", tmp_path / "log") as run:
        text = run.wait_until_serving()
        found = json.loads((tmp_path / "run" / "credentials.json").read_text())
        assert f"Endpoint     {found['endpoint']}" in text
        page = httpx.get(f"{found['endpoint']}/v1/docs/", trust_env=False)
        assert page.status_code == 200
        server = run.server_pid()
        assert run.end(signal.SIGINT) == 0
        assert not is_alive(server)
    assert not (tmp_path / "run.run").exists()


def test_a_second_run_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with running(tmp_path / "run", tmp_path / "log") as run:
        run.wait_until_serving()
        other = Run(tmp_path / "run", tmp_path / "other.log")
        assert other.process.wait(SIM_TIMEOUT_S) == 1
        assert "is going on already" in (tmp_path / "other.log").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc who is alive")
def test_a_run_that_was_killed_is_no_trap_for_the_next(tmp_path: Path) -> None:
    with running(tmp_path / "run", tmp_path / "log") as run:
        run.wait_until_serving()
        server = run.server_pid()
        run.end(signal.SIGKILL)
        assert is_alive(server)  # it is nobody's child now
    text = run_once(f"STATE={tmp_path / 'run'}", timeout_s=SIM_TIMEOUT_S)
    assert "Both machines are ready and answer." in text
    assert not is_alive(server)


def test_ending_it_early_leaves_no_server(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", tmp_path / "log")
    deadline = time.monotonic() + SIM_TIMEOUT_S
    while "accepted as" not in run.log.read_text():
        assert run.process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(POLL_S)
    server = run.server_pid()
    assert run.end(signal.SIGTERM) == 130
    assert not is_alive(server)


@pytest.mark.parametrize(
    ("setting", "word"),
    [("BACKEND=mainframe", "BACKEND"), ("ONCE=perhaps", "ONCE"), ("VIRT_TYPE=xen", "VIRT_TYPE"), ("COLOR=1", "COLOR")],
)
def test_a_wrong_setting_is_refused_with_its_name(setting: str, word: str) -> None:
    done = subprocess.run(
        ["scripts/run", setting], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert word in done.stderr


def test_a_taken_port_is_said_in_a_line_and_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path / "run", tmp_path / "log") as run:
        run.wait_until_serving()
        endpoint = json.loads((tmp_path / "run" / "credentials.json").read_text())["endpoint"]
        done = subprocess.run(
            ["scripts/run", "ONCE=1", f"LISTEN={endpoint.removeprefix('http://')}", f"STATE={tmp_path / 'other'}"],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=SIM_TIMEOUT_S,
        )
    assert done.returncode == 1
    assert "cannot listen on" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "other.run").exists()


@pytest.mark.real
@pytest.mark.timeout(REAL_TIMEOUT_S + 20)
def test_a_real_run_boots_both_machines_and_leaves_nothing() -> None:
    require_real_host()
    # Not below PARENT's test-*: those folders are the other tests', which remove what they find there.
    state = PARENT / f"run-{os.getpid()}"
    text = run_once("BACKEND=real", "VIRT_TYPE=qemu", f"STATE={state}", timeout_s=REAL_TIMEOUT_S)
    assert "Both machines are ready and answer." in text
    assert re.search(r"demo-vm +vm .*kind=vm kernel=\d", text)
    assert not state.exists()
    assert not state.with_name(f"{state.name}.run").exists()


@pytest.mark.real
@pytest.mark.timeout(REAL_TIMEOUT_S + 20)
def test_a_real_run_that_was_killed_is_removed_by_the_next() -> None:
    require_real_host()
    state = PARENT / f"run-{os.getpid()}"
    settings = ("BACKEND=real", "VIRT_TYPE=qemu", f"STATE={state}", "LISTEN=127.0.0.1:0")
    process = subprocess.Popen(["scripts/run", *settings], cwd=ROOT, env=environment(), start_new_session=True)
    run_file = state.with_name(f"{state.name}.run")
    deadline = time.monotonic() + SIM_TIMEOUT_S
    while not (state / "credentials.json").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(POLL_S)
    server = int(run_file.read_text())
    process.kill()
    os.kill(server, signal.SIGKILL)
    process.wait(30)
    assert (state / "sock").exists()  # its daemons are still there
    text = run_once("BACKEND=real", "VIRT_TYPE=qemu", f"STATE={state}", timeout_s=REAL_TIMEOUT_S)
    assert "Both machines are ready and answer." in text
    assert not state.exists()
