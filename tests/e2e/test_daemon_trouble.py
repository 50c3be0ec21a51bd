"""libvirtd and LXD hang, die and come back, before a request and in mid-job: true answers, and nobody else is harmed.

The daemons are the private ones of this test's own deployment, found by their arguments and reached by pid.
"""

from __future__ import annotations

import json
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from iaas.drivers.linux.fabric import Fabric
from iaas.drivers.linux.private_libvirtd import PrivateLibvirtd
from iaas.drivers.linux.private_lxd import PrivateLXD
from iaas.drivers.linux.processes import Process, signal_processes
from tests.e2e.cloud_server import CloudServer, wait_for
from tests.real_host import PARENT, new_test_folder, remove_killed_runs, require_real_host

pytestmark = pytest.mark.real

JOB_TIMEOUT_S = 120
STOP_WITHIN_S = 20
CROWD = 40


class Deployment:
    """A server of its own, and the pids of its daemons."""

    def __init__(self) -> None:
        remove_killed_runs()
        PARENT.mkdir(parents=True, exist_ok=True)
        self.tag, self.state_dir = new_test_folder()
        self.server = CloudServer("real", self.state_dir, self.tag)
        fabric = Fabric(self.tag, self.state_dir)
        self._daemons: dict[str, Callable[[], list[Process]]] = {
            "container": PrivateLXD(fabric).processes,
            "vm": PrivateLibvirtd(fabric).processes,
        }

    def daemon(self, kind: str) -> list[Process]:
        return self._daemons[kind]()

    @contextmanager
    def hung(self, kind: str) -> Iterator[None]:
        """The daemon of ``kind`` hangs inside the block."""
        processes = self.daemon(kind)
        assert len(processes) == 1
        signal_processes(processes, signal.SIGSTOP)
        try:
            yield
        finally:
            signal_processes(processes, signal.SIGCONT)

    def ask(self, method: str, path: str, body: Any = None, *, timeout_s: float = 15) -> tuple[int, Any, Any]:
        """Return status, document and headers."""
        credentials = self.server.credentials
        request = urllib.request.Request(  # noqa: S310 - our own server on loopback
            credentials["endpoint"] + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {credentials['api_token']}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310 - as above
                return answer.status, json.load(answer), answer.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error), error.headers

    def create(self, kind: str) -> tuple[int, Any, Any]:
        return self.ask("POST", "/v1/instances", {"kind": kind, "image": "tiny", "flavor": "nano"})

    def accepted(self, kind: str) -> dict[str, Any]:
        status, document, _ = self.create(kind)
        assert status == 202, document
        job: dict[str, Any] = document["job"]
        return job

    def ended(self, job: dict[str, Any], status: str = "succeeded") -> dict[str, Any]:
        """Wait for the job's end and return it; it must be ``status``."""

        def look() -> dict[str, Any] | None:
            found: dict[str, Any] = self.ask("GET", f"/v1/jobs/{job['id']}?wait=5")[1]
            return found if found["status"] in ("succeeded", "failed", "cancelled") else None

        found: dict[str, Any] = wait_for(look, JOB_TIMEOUT_S, f"the end of {job['action']}")
        assert found["status"] == status, found
        return found

    def is_well(self) -> bool:
        return bool(self.ask("GET", "/v1/health")[1]["status"] == "ok")


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    require_real_host()
    made = Deployment()
    try:
        made.server.start()
        for kind in ("container", "vm"):  # brings image and network to the host
            made.ended(made.accepted(kind))
        yield made
    finally:
        made.server.close()
        from tests.e2e.test_cloud import remove_and_check

        remove_and_check(made.tag, made.state_dir)


@pytest.fixture(autouse=True)
def room(deployment: Deployment) -> None:
    """Each test begins with an empty host: it is a small one."""
    for each in deployment.ask("GET", "/v1/instances?limit=1000")[1]["items"]:
        status, document, _ = deployment.ask("DELETE", f"/v1/instances/{each['id']}")
        assert status == 202, document
        deployment.ended(document["job"])


OTHER = {"container": "vm", "vm": "container"}


@pytest.mark.parametrize("kind", ["container", "vm"])
def test_a_daemon_that_hangs_is_refused_by_name_and_harms_nobody_else(deployment: Deployment, kind: str) -> None:
    with deployment.hung(kind):
        wait_for(lambda: deployment.create(kind)[0] == 503, 10, "the first refusal")
        began = time.monotonic()
        with ThreadPoolExecutor(CROWD) as crowd:
            answers = list(crowd.map(lambda _: deployment.create(kind), range(CROWD)))
            reads = list(crowd.map(lambda _: deployment.ask("GET", "/v1/instances"), range(CROWD)))
        assert time.monotonic() - began < 10
        for status, problem, headers in answers:
            assert (status, problem["code"], problem["retryable"]) == (503, "backend_unavailable", True)
            assert "Restart its daemon" in problem["detail"]
            assert int(headers["Retry-After"]) > 0
        assert {status for status, _, _ in reads} == {200}
        health = deployment.ask("GET", "/v1/health")[1]
        assert (health["status"], set(health["problems"])) == ("degraded", {kind})
        deployment.ended(deployment.accepted(OTHER[kind]))
    wait_for(deployment.is_well, 40, "the daemon's recovery")
    deployment.ended(deployment.accepted(kind))


@pytest.mark.parametrize("kind", ["container", "vm"])
def test_a_daemon_that_hangs_in_mid_job(deployment: Deployment, kind: str) -> None:
    jobs = [deployment.accepted(kind) for _ in range(2)]
    with deployment.hung(kind):
        deployment.ended(deployment.accepted(OTHER[kind]))
        for job in jobs:
            assert deployment.ask("GET", f"/v1/jobs/{job['id']}", timeout_s=2)[0] == 200
    for job in jobs:
        deployment.ended(job)
    wait_for(deployment.is_well, 40, "the daemon's recovery")


@pytest.mark.parametrize("kind", ["container", "vm"])
def test_a_daemon_that_dies_in_mid_job_is_started_again(deployment: Deployment, kind: str) -> None:
    before = deployment.daemon(kind)
    job = deployment.accepted(kind)
    signal_processes(before, signal.SIGKILL)
    deployment.ended(job)
    assert deployment.daemon(kind) != before
    wait_for(deployment.is_well, 40, "the daemon's recovery")


def test_a_daemon_that_is_stopped_before_a_request(deployment: Deployment) -> None:
    signal_processes(deployment.daemon("container"), signal.SIGTERM)
    wait_for(lambda: not deployment.daemon("container"), 30, "the daemon's end")

    def attempt() -> dict[str, Any] | None:
        status, document, _ = deployment.create("container")
        assert (status, document.get("code")) in ((202, None), (503, "backend_unavailable")), document
        return document["job"] if status == 202 else None

    deployment.ended(wait_for(attempt, 60, "a daemon that is back"))


def test_the_server_stops_in_time_while_a_daemon_hangs(deployment: Deployment) -> None:
    job = deployment.accepted("container")
    with deployment.hung("container"):
        began = time.monotonic()
        assert deployment.server.stop() == 0
        assert time.monotonic() - began < STOP_WITHIN_S
    deployment.server.start()
    deployment.ended(job)
