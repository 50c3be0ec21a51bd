"""Every step of every workflow fails, is repeated, or is the last thing its process does. Nothing may leak."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from iaas.drivers.interface import BackendDownError, PermanentError, TransientError
from iaas.drivers.sim.faults import When
from iaas.workflows import WORKFLOWS
from iaas.workflows.deadlines import STEP_DEADLINES_S
from tests.chaos.applied import unapplied
from tests.chaos.clearing import clear
from tests.chaos.hooks import Striker, effects, every_step, install, twice, undos
from tests.chaos.plays import (
    CALLS,
    EVERY_CALL,
    PLAYS,
    STRIKES,
    assert_done,
    assert_failed,
    last_call_fails,
    play,
    play_job,
)
from tests.chaos.stage import Stage, row_of
from tests.chaos.victim import Death, die
from tests.factories import assert_consistent, open_cloud, settle, world

WHENS: tuple[When, ...] = ("before", "after")

# The driver call that the undo of a step makes, by the step's name.
UNDO_CALLS = {
    "ensure_network": "remove_port",
    "remove_ports": "ensure_port",
    "ensure_machine": "remove_machine",
    "start_machine": "stop_machine",
    "resize_machine": "resize_machine",
    "let_nics_go": "attach_nic",
    "ensure_port": "remove_port",
    "attach_nic": "detach_nic",
    "detach_nic": "attach_nic",
    "remove_port": "ensure_port",
    "ensure_vpc": "remove_vpc",
    "ensure_subnet": "remove_subnet",
}

# What was changed stays changed, though the backend refuses it: the next change brings it along.
MAY_STAY_UNAPPLIED = {"nic.apply", "vpc.apply", "subnet.apply", "subnet.join", "subnet.leave"}


def test_plays_and_calls_cover_every_workflow() -> None:
    assert PLAYS.keys() == WORKFLOWS.keys()
    assert CALLS.keys() == set(effects())


@pytest.mark.parametrize("blocking", [False, True], ids=["inline", "pool"])
@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize(("action", "step", "call"), EVERY_CALL)
def test_a_step_that_fails_for_good(
    monkeypatch: pytest.MonkeyPatch, action: str, step: str, call: str, when: When, blocking: bool
) -> None:
    count = STRIKES.get((action, step), 1)
    striker = Striker(action, step, call, when, PermanentError("it broke"), count=count)
    install(monkeypatch, striker)
    with open_cloud(blocking=blocking) as cloud:
        stage = Stage(cloud)
        subject, job = play(action, stage)
        settle(cloud)
        assert striker.struck == [(action, step)]
        assert world(cloud).faults.waiting() == 0
        assert_failed(stage, action, subject, job)
        assert_consistent(cloud)
        assert unapplied(cloud) == [] or action in MAY_STAY_UNAPPLIED
        clear(stage)


@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize(("action", "step", "call"), EVERY_CALL)
def test_a_step_that_fails_for_a_while(
    monkeypatch: pytest.MonkeyPatch, action: str, step: str, call: str, when: When
) -> None:
    striker = Striker(action, step, call, when, TransientError("not now"), count=3)
    install(monkeypatch, striker)
    with open_cloud() as cloud:
        stage = Stage(cloud)
        subject, job = play(action, stage)
        settle(cloud)
        # A lost answer strikes less often where the next attempt finds the work done and makes no such call again.
        assert set(striker.struck) == {(action, step)}
        assert len(striker.struck) == 3 or (when == "after" and step == "ask_guest")
        world(cloud).faults.clear()
        assert_done(stage, action, subject, job)
        assert_consistent(cloud)
        assert unapplied(cloud) == []


@pytest.mark.parametrize(("action", "step", "call"), EVERY_CALL)
def test_a_step_that_fails_until_its_deadline(
    monkeypatch: pytest.MonkeyPatch, action: str, step: str, call: str
) -> None:
    striker = Striker(action, step, call, "before", BackendDownError("nobody answers"), count=100_000)
    install(monkeypatch, striker)
    with open_cloud() as cloud:
        stage = Stage(cloud)
        subject, job = play(action, stage)
        began_at = cloud.clock.now()
        settle(cloud)
        limit_s = STEP_DEADLINES_S[(action, step)]
        assert cloud.clock.now() - began_at >= timedelta(seconds=limit_s)
        failed = play_job(cloud, action, job)
        assert failed.error is not None
        assert failed.error.code == "backend_unavailable"
        assert f"{limit_s:g} s" in failed.error.message
        world(cloud).faults.clear()
        row = row_of(cloud, subject.id)
        assert row.transition is None
        clear(stage)


@pytest.mark.parametrize("action", sorted(WORKFLOWS))
def test_everything_that_may_run_twice_does(monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    install(monkeypatch, twice)
    with open_cloud() as cloud:
        stage = Stage(cloud)
        subject, job = play(action, stage)
        settle(cloud)
        assert_done(stage, action, subject, job)
        assert_consistent(cloud)
        assert unapplied(cloud) == []


@pytest.mark.parametrize("action", sorted({action for action, _ in undos()}))
def test_everything_that_is_undone_is_undone_twice(monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    last = last_call_fails(action)
    undone: list[str] = []

    def around(action: str, step: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if step.startswith("undo "):
            undone.append(step.removeprefix("undo "))
        return twice(action, step, lambda *given: last(action, step, function, given), arguments)

    install(monkeypatch, around)
    with open_cloud() as cloud:
        stage = Stage(cloud)
        subject, job = play(action, stage)
        settle(cloud)
        assert undone == [step for each, step in reversed(undos()) if each == action]
        assert_failed(stage, action, subject, job)
        assert_consistent(cloud)
        assert unapplied(cloud) == [] or action in MAY_STAY_UNAPPLIED
        clear(stage)


@pytest.mark.parametrize("blocking", [False, True], ids=["inline", "pool"])
@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize(("action", "step"), undos())
def test_a_process_killed_while_it_undoes(tmp_path: Path, action: str, step: str, when: str, blocking: bool) -> None:
    remains = die(tmp_path, Death(action=action, step=step, when=when, blocking=blocking, undoing=True))
    with open_cloud(tmp_path, clock=remains.clock, blocking=blocking, seed=2) as second:
        assert second.executor.recover() == 1
        settle(second)
        stage = Stage(second)
        subject, job = remains.of(second)
        assert_failed(stage, action, subject, job)
        failed = play_job(second, action, job)
        assert failed.error is not None
        assert "it broke" in failed.error.message
        assert_consistent(second)
        clear(stage)


@pytest.mark.parametrize(("action", "step"), undos())
def test_an_undo_that_fails_for_a_while(monkeypatch: pytest.MonkeyPatch, action: str, step: str) -> None:
    last = last_call_fails(action)
    undo = f"undo {step}"
    stubborn = Striker(action, undo, UNDO_CALLS[step], "before", TransientError("not now"), count=5)
    install(monkeypatch, lambda *call: (stubborn if call[1] == undo else last)(*call))
    with open_cloud() as cloud:
        stage = Stage(cloud)
        subject, job = play(action, stage)
        settle(cloud)
        assert stubborn.struck == [(action, undo)] * 5
        assert world(cloud).faults.waiting() == 0
        assert_failed(stage, action, subject, job)
        assert_consistent(cloud)
        assert unapplied(cloud) == [] or action in MAY_STAY_UNAPPLIED


@pytest.mark.parametrize("blocking", [False, True], ids=["inline", "pool"])
@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize(("action", "step"), every_step())
def test_a_process_killed_at_a_step_loses_nothing(
    tmp_path: Path, action: str, step: str, when: str, blocking: bool
) -> None:
    remains = die(tmp_path, Death(action=action, step=step, when=when, blocking=blocking))
    with open_cloud(tmp_path, clock=remains.clock, blocking=blocking, seed=2) as second:
        assert second.executor.recover() >= 1
        settle(second)
        assert_done(Stage(second), action, *remains.of(second))
        assert_consistent(second)
