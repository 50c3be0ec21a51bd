"""On libvirt and LXD: a step fails for good, or its process is killed there; nothing leaks and nothing is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from iaas.cloud import Cloud
from iaas.drivers.interface import PermanentError
from iaas.drivers.linux.deployment import DeploymentLock
from tests.factories import instance_row, job_of, operator, used_capacity
from tests.real_host import PARENT, new_test_folder, remove_killed_runs, require_real_host

pytestmark = pytest.mark.real

KINDS = ("container", "vm")
WHENS = ("before", "after")
FAULTS = [("ensure_machine", "after"), ("start_machine", "before"), ("start_machine", "after")]
DEATHS = [
    ("instance.create", "ensure_machine", "after"),
    ("instance.create", "start_machine", "before"),
    ("instance.create", "start_machine", "after"),
    ("instance.delete", "remove_machine", "before"),
    ("instance.delete", "remove_machine", "after"),
]


@dataclass(frozen=True)
class Place:
    tag: str
    state_dir: Path


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    require_real_host()
    remove_killed_runs()
    PARENT.mkdir(parents=True, exist_ok=True)
    tag, state_dir = new_test_folder()
    state_dir.mkdir(mode=0o711)
    lock = DeploymentLock(state_dir)
    try:
        yield Place(tag, state_dir)
    finally:
        from tests.e2e.test_cloud import remove_and_check

        lock.release()
        remove_and_check(tag, state_dir)


def assert_nothing_left(cloud: Cloud) -> None:
    assert [state for driver in cloud.backend.compute.values() for state in driver.inventory()] == []
    networks = cloud.backend.networks
    assert [port for network in networks.networks() for port in networks.ports(network.network_id)] == []
    assert used_capacity(cloud) == (0, 0, 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("step", "when"), FAULTS)
def test_a_create_that_fails_for_good_leaves_nothing(place: Place, kind: str, step: str, when: str) -> None:
    from tests.chaos.real_cloud import around_steps, begin, ended, open_real_cloud

    struck: list[str] = []

    def around(_action: str, name: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if name == step and when == "before":
            struck.append(name)
            raise PermanentError("it broke")
        outcome = function(*arguments)
        if name == step:
            struck.append(name)
            raise PermanentError("it broke")
        return outcome

    with around_steps(around), open_real_cloud(place.tag, place.state_dir) as cloud:
        instance, job = begin(cloud, "instance.create", kind)
        failed = ended(cloud, job)
        assert struck == [step]
        assert (failed.status, failed.error and failed.error.message) == ("failed", "it broke")
        assert instance_row(cloud, instance.id).status == "failed"
        assert_nothing_left(cloud)
        assert ended(cloud, cloud.instances.delete(operator(cloud), instance.id)[1]).status == "succeeded"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("action", "step", "when"), DEATHS)
def test_a_process_killed_there_loses_nothing(place: Place, kind: str, action: str, step: str, when: str) -> None:
    from tests.chaos.real_cloud import ACCEPTED, ended, open_real_cloud

    command = [sys.executable, "-m", "tests.chaos.real_cloud", place.tag, str(place.state_dir), kind, action]
    died = subprocess.run(
        [*command, step, when], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180, check=False
    )
    assert died.returncode == -signal.SIGKILL, died.stderr[-2000:]
    accepted = json.loads((place.state_dir / ACCEPTED).read_text())
    with open_real_cloud(place.tag, place.state_dir) as cloud:
        job = ended(cloud, job_of(cloud, accepted["job"]))
        assert job.status == "succeeded", job.error
        row = instance_row(cloud, accepted["instance"])
        if action == "instance.create":
            assert row.status == "running"
            machines = [state for driver in cloud.backend.compute.values() for state in driver.inventory()]
            assert [(state.machine_id, state.power) for state in machines] == [(row.id, "running")]
            assert ended(cloud, cloud.instances.delete(operator(cloud), row.id, purge=True)[1]).status == "succeeded"
        assert instance_row(cloud, row.id).status == "deleted"
        assert_nothing_left(cloud)
