"""The same faults at every step of every workflow, on libvirt and LXD.

All of them take an hour: ``make torture`` runs them (IAAS_TORTURE=1). Otherwise a few stand for the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from iaas.cloud import Cloud
from iaas.db.repositories import jobs
from iaas.db.repositories.query import Listing
from iaas.drivers.interface import PermanentError
from iaas.drivers.sim.faults import Faults, When
from iaas.resources.jobs import Job
from iaas.workflows import WORKFLOWS
from tests.chaos.clearing import clear
from tests.chaos.hooks import Around, Striker, every_step, twice, undos
from tests.chaos.plays import EVERY_CALL, STRIKES, assert_done, assert_failed, last_call_fails, play
from tests.chaos.stage import Named, Stage, Subject
from tests.chaos.victim import Death, fall
from tests.factories import operator
from tests.real_host import RealHost

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

KINDS = ("container", "vm")
WHENS: tuple[When, ...] = ("before", "after")
ALL = os.environ.get("IAAS_TORTURE") == "1"

# Where most is at stake: a machine is half made, half started, half replaced or half removed, a NIC half in it.
SOME_CALLS = [
    ("instance.create", "ensure_machine", "ensure_machine", "after"),
    ("instance.create", "start_machine", "start_machine", "after"),
    ("instance.rebuild", "replace_disk", "ensure_machine", "after"),
    ("instance.recover", "ensure_network", "ensure_port", "after"),
    ("nic.attach", "attach_nic", "attach_nic", "after"),
    ("nic.detach", "remove_port", "remove_port", "after"),
]
SOME_DEATHS = [
    ("instance.create", "ensure_machine", "after"),
    ("instance.create", "start_machine", "before"),
    ("instance.create", "start_machine", "after"),
    ("instance.rebuild", "replace_disk", "after"),
    ("instance.retire", "cut_power", "after"),
    ("instance.delete", "remove_machine", "after"),
    ("nic.attach", "attach_nic", "before"),
    ("nic.detach", "detach_nic", "after"),
    ("subnet.join", "ensure_subnet", "after"),
]
SOME_UNDOS = [("instance.create", "ensure_machine", "after")]
SOME_TWICE = ["instance.create", "instance.rebuild", "instance.recover", "nic.attach", "nic.detach"]
SOME_UNDONE_TWICE = ["instance.create"]

CALLS = [(*call, when) for call in EVERY_CALL for when in WHENS] if ALL else SOME_CALLS
DEATHS = [(*step, when) for step in every_step() for when in WHENS] if ALL else SOME_DEATHS
UNDOS = [(*step, when) for step in undos() for when in WHENS] if ALL else SOME_UNDOS
TWICE = sorted(WORKFLOWS) if ALL else SOME_TWICE
UNDONE_TWICE = sorted({action for action, _ in undos()}) if ALL else SOME_UNDONE_TWICE


def _faults() -> Faults:
    from tests.chaos.real_cloud import FaultsOfAThread

    return FaultsOfAThread()


@dataclass
class Place:
    """One deployment for all. One process at a time works on it: this one, or a victim."""

    tag: str
    state_dir: Path
    around: Around | None = None
    faults: Faults = field(default_factory=_faults)
    _open: ExitStack = field(default_factory=ExitStack)
    _cloud: Cloud | None = None

    def cloud(self) -> Cloud:
        """Return the working cloud of this process, whose steps go through ``around``."""
        from tests.chaos.real_cloud import around_steps, open_real_cloud

        if self._cloud is None:
            self._open.enter_context(around_steps(self._go_around))
            self._cloud = self._open.enter_context(open_real_cloud(self.tag, self.state_dir, self.faults))
        return self._cloud

    def leave(self) -> None:
        """Close the cloud of this process, if there is one."""
        self._cloud = None
        self._open.close()

    def _go_around(self, action: str, step: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if self.around is None:
            return function(*arguments)
        return self.around(action, step, function, arguments)


@pytest.fixture(scope="module")
def deployment(real_host: RealHost) -> Iterator[Place]:
    # The session's daemons give way: a cloud starts and stops its own in the same place.
    real_host.daemons.stop()
    made = Place(real_host.tag, real_host.state_dir)
    try:
        yield made
    finally:
        made.leave()
        real_host.daemons.ensure()


@pytest.fixture
def place(deployment: Place) -> Iterator[Place]:
    """The deployment, on which nothing is when a test begins, whatever the one before has left."""
    deployment.around = None
    deployment.faults.clear()
    yield deployment
    deployment.around = None
    deployment.faults.clear()
    cloud = deployment.cloud()
    stage = stage_for(cloud, KINDS[0])
    stage.rest()
    clear(stage)  # of a test that failed: the next one begins all the same


def stage_for(cloud: Cloud, kind: str, action: str = "") -> Stage:
    from tests.chaos.real_cloud import real_stage

    return real_stage(cloud, kind, action)


def assert_sound(cloud: Cloud) -> None:
    """Hold the database against itself, and against what libvirt, LXD and the network have."""
    report = cloud.doctor.check()
    assert report.unchecked == {}
    assert report.findings == ()


def remove(stage: Stage) -> None:
    """Whatever is left can be deleted, and then there is nothing."""
    clear(stage)
    assert_sound(stage.cloud)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("action", "step", "call", "when"), CALLS)
def test_a_real_step_that_fails_for_good(
    place: Place, kind: str, action: str, step: str, call: str, when: When
) -> None:
    count = STRIKES.get((action, step), 1)
    striker = Striker(
        action, step, call, when, PermanentError("it broke"), count=count, faults_of=lambda _: place.faults
    )
    place.around = striker
    stage = stage_for(place.cloud(), kind, action)
    subject, job = play(action, stage)
    stage.rest()
    assert striker.struck == [(action, step)]
    assert place.faults.waiting() == 0
    assert_failed(stage, action, subject, job)
    assert_sound(stage.cloud)
    remove(stage)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("action", TWICE)
def test_everything_real_that_may_run_twice_does(place: Place, kind: str, action: str) -> None:
    place.around = twice
    stage = stage_for(place.cloud(), kind, action)
    subject, job = play(action, stage)
    stage.rest()
    assert_done(stage, action, subject, job)
    assert_sound(stage.cloud)
    remove(stage)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("action", UNDONE_TWICE)
def test_everything_real_that_is_undone_is_undone_twice(place: Place, kind: str, action: str) -> None:
    last = last_call_fails(action, faults_of=lambda _: place.faults)
    undone: list[str] = []

    def around(action: str, step: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if not step.startswith("undo "):
            return last(action, step, function, arguments)
        undone.append(step.removeprefix("undo "))
        return twice(action, step, function, arguments)

    place.around = around
    stage = stage_for(place.cloud(), kind, action)
    subject, job = play(action, stage)
    stage.rest()
    assert undone == [step for each, step in reversed(undos()) if each == action]
    assert_failed(stage, action, subject, job)
    assert_sound(stage.cloud)
    remove(stage)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("action", "step", "when"), DEATHS)
def test_a_real_process_killed_at_a_step_loses_nothing(
    place: Place, kind: str, action: str, step: str, when: str
) -> None:
    stage, subject, job = killed(place, Death(action=action, step=step, when=when, blocking=True, kind=kind))
    stage.rest()
    assert_done(stage, action, subject, job)
    assert_sound(stage.cloud)
    remove(stage)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("action", "step", "when"), UNDOS)
def test_a_real_process_killed_while_it_undoes(place: Place, kind: str, action: str, step: str, when: str) -> None:
    death = Death(action=action, step=step, when=when, blocking=True, undoing=True, kind=kind)
    stage, subject, job = killed(place, death)
    stage.rest()
    assert_failed(stage, action, subject, job)
    assert_sound(stage.cloud)
    remove(stage)


def killed(place: Place, death: Death) -> tuple[Stage, Subject, Job]:
    """Let a victim die; return a stage in this process, which has taken up what it left, and what that was about."""
    place.leave()
    fall(place.state_dir, replace(death, tag=place.tag))
    cloud = place.cloud()
    with cloud.store.read() as connection:
        found, _ = jobs.list_page(
            connection, Listing(filters={"action": death.action}), project_id=operator(cloud).project_id
        )
    newest = max(found, key=lambda job: job.created_at)
    return stage_for(cloud, death.kind, death.action), Named(newest.resource.id), newest
