"""Two servers and two workers on one PostgreSQL; one worker is killed in the middle of its work."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.api.server_process import Server
from tests.factories import wait_for

INSTANCES = 100
LEASE_S = 2.0


@contextmanager
def worker(state: Path, url: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "iaas.cli", "worker", "--state", str(state), "--database", url]
    with (state.parent / "worker.log").open("a") as log:
        process = subprocess.Popen(
            [*command, "--lease", str(LEASE_S), *options],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=state.parent,
        )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def server(state: Path, url: str) -> Iterator[Server]:
    opened = Server(state, "--database", url, "--workers", "external")
    try:
        yield opened
    finally:
        opened.stop()


@pytest.fixture
def servers(tmp_path: Path, postgres_url: str) -> Iterator[tuple[Server, Server]]:
    with ExitStack() as stack:
        yield tuple(stack.enter_context(server(tmp_path / "state", postgres_url)) for _ in range(2))  # type: ignore[misc]  # two


def create(server: Server, name: str) -> str:
    body = {"kind": "container", "image": "tiny", "flavor": "nano", "name": name}
    return str(server.post("/v1/instances", body)["job"]["id"])


def all_items(server: Server, path: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        document = server.get(path, limit=100, **({"cursor": cursor} if cursor else {}))
        items += document["items"]
        cursor = document["next_cursor"]
    return items


def test_all_end_running_exactly_once_though_a_worker_is_killed(
    servers: tuple[Server, Server], tmp_path: Path, postgres_url: str
) -> None:
    state = tmp_path / "state"
    with worker(state, postgres_url) as first, worker(state, postgres_url):
        with ThreadPoolExecutor(4) as pool:
            accepted = pool.map(lambda number: create(servers[number % 2], f"web-{number}"), range(INSTANCES))
            wait_for(lambda: running(servers[0]) > INSTANCES // 10, timeout_s=60, what="the first tenth")
            first.send_signal(signal.SIGKILL)
            made = list(accepted)
        wait_for(lambda: running(servers[1]) == INSTANCES, timeout_s=90, what="all instances running")
        for number, job_id in enumerate(made):
            job = servers[(number + 1) % 2].get(f"/v1/jobs/{job_id}", wait=20)
            assert job["status"] == "succeeded", job
    assert "job_taken_over" in (tmp_path / "worker.log").read_text(), "the killed worker had nothing in its hands"
    events = [event for event in all_events(servers[0]) if event["type"] == "instance.created"]
    assert len(events) == INSTANCES
    assert len({event["resource"]["id"] for event in events}) == INSTANCES


def running(server: Server) -> int:
    return len([each for each in all_items(server, "/v1/instances") if each["status"] == "running"])


def all_events(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while page := server.get("/v1/events", after=found[-1]["id"] if found else 0, limit=1000)["items"]:
        found += page
    return found


def test_a_stopped_worker_gives_back_what_it_has(
    servers: tuple[Server, Server], tmp_path: Path, postgres_url: str
) -> None:
    state = tmp_path / "state"
    with worker(state, postgres_url) as first:
        job_id = create(servers[0], "one")
        first.send_signal(signal.SIGTERM)
        assert first.wait(20) == 0
    with worker(state, postgres_url):
        assert servers[1].get(f"/v1/jobs/{job_id}", wait=30)["status"] == "succeeded"


def test_a_worker_that_is_held_up_keeps_its_jobs(
    servers: tuple[Server, Server], tmp_path: Path, postgres_url: str
) -> None:
    state = tmp_path / "state"
    with worker(state, postgres_url) as first, worker(state, postgres_url) as second:
        second.send_signal(signal.SIGSTOP)
        jobs = [create(servers[0], f"web-{number}") for number in range(3)]
        first.send_signal(signal.SIGSTOP)
        second.send_signal(signal.SIGCONT)
        first.send_signal(signal.SIGCONT)
        for job_id in jobs:
            assert servers[1].get(f"/v1/jobs/{job_id}", wait=30)["status"] == "succeeded"
