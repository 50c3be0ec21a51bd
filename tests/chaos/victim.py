"""A process that works on the files of a cloud until it kills itself at the step it was told, by SIGKILL."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import iaas.cloud
from iaas.cloud import Cloud
from iaas.drivers.sim.faults import Faults
from iaas.kernel.clock import CloudClock
from iaas.resources.jobs import Job
from tests.chaos.hooks import Around, faults_of_world, wrapped
from tests.chaos.plays import last_call_fails, play
from tests.chaos.stage import Named, Stage, Subject
from tests.factories import START, job_of, make_cloud, settle

WAIT_S = 60
REAL_WAIT_S = 240
NOT_REACHED = 3  # exit status of a process that came to its end because the step was never run

_ACCEPTED = "accepted.json"
_TIME = "killed_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """Where to die: ``when`` (before or after) the do of ``step``, or its undo once the last effect has failed.

    ``tag`` and ``kind``: on that deployment of the real backend, which is always driven in the pool.
    """

    action: str
    step: str
    when: str
    blocking: bool
    undoing: bool = False
    tag: str | None = None
    kind: str = "container"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What a dead process left: what it had accepted, and a clock that shows the time of its death."""

    subject: str
    job: str
    clock: CloudClock

    def of(self, cloud: Cloud) -> tuple[Subject, Job]:
        return Named(self.subject), job_of(cloud, self.job)


def die(folder: Path, death: Death) -> Remains:
    """Let a process of its own play the action on simulated files in ``folder`` and die; return what is left.

    Fails when it ended in any other way than by the kill at that very step.
    """
    fall(folder, death)
    accepted = json.loads((folder / _ACCEPTED).read_text())
    clock = CloudClock(start=datetime.fromisoformat((folder / _TIME).read_text()), scale=0)
    return Remains(subject=accepted["subject"], job=accepted["job"], clock=clock)


def fall(folder: Path, death: Death) -> None:
    """As :func:`die`, on either backend; what was accepted is to be seen in the database."""
    process = _context().Process(target=_live, args=(str(folder), asdict(death)), daemon=True)
    process.start()
    process.join(WAIT_S if death.tag is None else REAL_WAIT_S)
    status = process.exitcode
    if status is None:
        process.kill()
        process.join()
    assert status == -signal.SIGKILL, f"{death} ended with status {status} ({NOT_REACHED}: the step was not reached)"


def _context() -> ForkServerContext:
    # Processes are forked from a server that has loaded everything and runs no threads: quick, and safe.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _live(folder_name: str, told: dict[str, Any]) -> None:
    folder, death = Path(folder_name), Death(**told)
    clock = CloudClock(start=START, scale=0)
    faults = _faults(death)
    within: Around = _just_do
    if death.undoing:
        within = last_call_fails(
            death.action, faults_of=faults_of_world if death.tag is None else lambda _backend: faults
        )
    target = (death.action, f"undo {death.step}" if death.undoing else death.step)

    def around(action: str, step: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        ours = (action, step) == target
        if ours and death.when == "before":
            _kill_self(folder, clock)
        outcome = within(action, step, function, arguments)
        if ours:
            _kill_self(folder, clock)
        return outcome

    iaas.cloud.WORKFLOWS = wrapped(around)  # type: ignore[misc]  # this process lives for nothing else
    if death.tag is not None:
        _live_really(folder, death, faults)
    else:
        cloud = make_cloud(folder, clock=clock, blocking=death.blocking)
        subject, job = play(death.action, Stage(cloud))
        (folder / _ACCEPTED).write_text(json.dumps({"subject": subject.id, "job": job.id}))
        settle(cloud)
    os._exit(NOT_REACHED)


def _faults(death: Death) -> Faults:
    if death.tag is None:
        return Faults()
    from tests.chaos.real_cloud import FaultsOfAThread

    return FaultsOfAThread()


def _live_really(folder: Path, death: Death, faults: Faults) -> None:
    from tests.chaos.real_cloud import open_real_cloud, real_stage

    with open_real_cloud(death.tag or "", folder, faults) as cloud:
        stage = real_stage(cloud, death.kind, death.action)
        play(death.action, stage)
        stage.rest()


def _just_do(_action: str, _step: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return function(*arguments)


def _kill_self(folder: Path, clock: CloudClock) -> None:
    (folder / _TIME).write_text(clock.now().isoformat())
    os.kill(os.getpid(), signal.SIGKILL)
