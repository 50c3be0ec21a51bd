"""A cloud on the real backend in the files of a test deployment, and as a program: one that kills itself at a step."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import iaas.cloud
from iaas.cloud import Cloud
from iaas.config import CloudConfig
from iaas.db.store import Store
from iaas.drivers.real import RealOptions, build_real_backend
from iaas.kernel.clock import CloudClock
from iaas.kernel.ids import IdSource
from iaas.resources.instances import Instance
from iaas.resources.jobs import Job
from tests.chaos.hooks import Around, wrapped
from tests.factories import CREDENTIALS, job_of, operator, wait_for, wish

JOB_TIMEOUT_S = 120.0
ZONES = ("zone-1",)
ACCEPTED = "accepted.json"


@contextmanager
def open_real_cloud(tag: str, state_dir: Path) -> Iterator[Cloud]:
    """Give a working cloud on the deployment; machines and files stay afterwards."""
    clock = CloudClock()
    backend = build_real_backend(RealOptions(tag=tag, state_dir=state_dir, zones=ZONES, virt_type="qemu"))
    url = f"sqlite:///{state_dir / 'cloud.db'}"
    cloud = Cloud(
        config=CloudConfig(state_dir=state_dir, database_url=url, zones=ZONES),
        backend=backend,
        store=Store(url, clock),
        clock=clock,
        ids=IdSource(),
        given_credentials=CREDENTIALS,
    )
    try:
        cloud.start()
        yield cloud
    finally:
        cloud.close()


def begin(cloud: Cloud, action: str, kind: str) -> tuple[Instance, Job]:
    """Accept ``instance.create``, or ``instance.delete`` of a machine that is made first."""
    made, job = cloud.instances.create(operator(cloud), [wish(kind=kind)])[0]
    if action == "instance.create":
        return made, job
    assert ended(cloud, job).status == "succeeded"
    return cloud.instances.delete(operator(cloud), made.id, purge=True)


def ended(cloud: Cloud, job: Job) -> Job:
    """Wait for the job's end and return it."""
    wait_for(lambda: job_of(cloud, job.id).is_finished, timeout_s=JOB_TIMEOUT_S, what=f"the end of {job.action}")
    return job_of(cloud, job.id)


@contextmanager
def around_steps(around: Around) -> Iterator[None]:
    """Let clouds that are made inside the block use workflows with ``around`` around each step."""
    before = iaas.cloud.WORKFLOWS
    iaas.cloud.WORKFLOWS = wrapped(around)  # type: ignore[misc]  # put back below
    try:
        yield
    finally:
        iaas.cloud.WORKFLOWS = before  # type: ignore[misc]  # as above


def main() -> None:
    """Arguments: tag, state folder, kind, action, step, before or after. Ends by SIGKILL at that step."""
    tag, folder, kind, target_action, target_step, when = sys.argv[1:]
    state_dir = Path(folder)

    def around(action: str, step: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        ours = (action, step) == (target_action, target_step)
        if ours and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        outcome = function(*arguments)
        if ours:
            os.kill(os.getpid(), signal.SIGKILL)
        return outcome

    with around_steps(around), open_real_cloud(tag, state_dir) as cloud:
        add_job = cloud.instances._add_job

        def noted(*arguments: Any, **named: Any) -> Job:
            """Written down inside the accepting transaction: the kill may come at any moment after it."""
            job = add_job(*arguments, **named)
            (state_dir / ACCEPTED).write_text(json.dumps({"instance": job.resource.id, "job": job.id}))
            return job

        cloud.instances._add_job = cloud.instances._creation._add_job = noted
        ended(cloud, begin(cloud, target_action, kind)[1])


if __name__ == "__main__":
    main()
