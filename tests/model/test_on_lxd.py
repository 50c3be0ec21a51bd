"""The instance API against the model, on real container machines: few steps, each waited for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from iaas.drivers.linux.deployment import DeploymentLock
from iaas.resources.jobs import FINISHED
from tests.factories import wait_for
from tests.model.profiles import chosen
from tests.model.rules import InstanceRules
from tests.model.subject import RETENTION, Subject, callers_of
from tests.real_host import PARENT, new_test_folder, remove_killed_runs, require_real_host

pytestmark = pytest.mark.real

SETTLE_TIMEOUT_S = 120.0
WALKS = 2
STEPS = 8

_numbers = itertools.count(1)


class LXDSubject:
    """A project of its own in a cloud on the deployment; emptied at the end."""

    is_simulated = False

    def __init__(self, tag: str, state_dir: Path) -> None:
        self.project = f"team-{next(_numbers)}"
        self._place = tag, state_dir
        self._tokens: dict[str, str] = {}
        self._open()

    def _open(self) -> None:
        from tests.chaos.real_cloud import open_real_cloud

        self._stack = ExitStack()
        self.cloud = self._stack.enter_context(open_real_cloud(*self._place))
        self.cloud.instances.retention_s = RETENTION.total_seconds()
        self.admin, self.member, self.stranger = callers_of(self.cloud, self.project, self._tokens)

    def settle(self) -> None:
        """Wait until nothing is under way, the watching of guests included."""

        def is_quiet() -> bool:
            jobs = self.member.get("/v1/jobs", limit=100)["items"]
            return all(job["status"] in FINISHED for job in jobs)

        wait_for(is_quiet, timeout_s=SETTLE_TIMEOUT_S, what="the end of all jobs")

    def advance(self, seconds: float) -> None:
        raise NotImplementedError("real time is not moved by hand")

    def restart(self) -> None:
        self._stack.close()
        self._open()

    def close(self) -> None:
        try:
            for host in self.admin.get("/v1/hosts")["items"]:
                self.admin.send("PATCH", f"/v1/hosts/{host['id']}", {"status": "up"}, status=200)
            self.settle()
            for query in ({}, {"deleted": "true"}):
                for found in self.member.get("/v1/instances", **query)["items"]:
                    if found["purged_at"] is None:
                        self.member.send("DELETE", f"/v1/instances/{found['id']}?purge=true", status=202)
            self.settle()
        finally:
            self._stack.close()


@pytest.fixture
def place() -> Iterator[tuple[str, Path]]:
    require_real_host()
    remove_killed_runs()
    PARENT.mkdir(parents=True, exist_ok=True)
    tag, state_dir = new_test_folder()
    state_dir.mkdir(mode=0o711)
    lock = DeploymentLock(state_dir)
    try:
        yield tag, state_dir
    finally:
        from tests.e2e.test_cloud import remove_and_check

        lock.release()
        remove_and_check(tag, state_dir)


def test_container_machines_do_what_the_model_says(place: tuple[str, Path]) -> None:
    class OnLXD(InstanceRules):
        def make_subject(self) -> Subject:
            return LXDSubject(*place)

    run_state_machine_as_test(OnLXD, settings=settings(chosen(), max_examples=WALKS, stateful_step_count=STEPS))
