"""The tables that describe all work: complete, and nothing else in them."""

from __future__ import annotations

import pytest

from iaas.resources.instances import InstanceStatus, InstanceTransition
from iaas.resources.networks import NetworkStatus, NetworkTransition, NICStatus, NICTransition
from iaas.transitions import INSTANCE_MOVES, MOVES
from iaas.workflows import WORKFLOWS
from iaas.workflows.deadlines import STEP_DEADLINES_S
from iaas.workflows.framework import RowStep, Step

WATCHES = {"instance.watch_guest"}
APPLIES = {"vpc.apply", "subnet.apply", "nic.apply", "nic.replug"}  # any number of them at the same time
WORDS = {
    "vpc": (NetworkStatus, NetworkTransition),
    "subnet": (NetworkStatus, NetworkTransition),
    "nic": (NICStatus, NICTransition),
}


def test_every_step_with_an_effect_has_its_deadline() -> None:
    effects = {
        (action, step.name)
        for action, workflow in WORKFLOWS.items()
        for step in workflow.steps
        if isinstance(step, Step)
    }
    assert STEP_DEADLINES_S.keys() == effects
    assert all(limit_s > 0 for limit_s in STEP_DEADLINES_S.values())


@pytest.mark.parametrize("action", sorted(WORKFLOWS))
def test_form_of_a_workflow(action: str) -> None:
    workflow = WORKFLOWS[action]
    assert workflow.action == action
    names = [step.name for step in workflow.steps]
    assert len(set(names)) == len(names)
    assert isinstance(workflow.steps[0], Step)
    assert isinstance(workflow.steps[-1], RowStep), "the resting state is written with the end of the job"


def test_workflows_and_moves_belong_together() -> None:
    moves = {f"{resource}.{action}" for resource, table in MOVES.items() for action in table}
    assert moves == WORKFLOWS.keys() - WATCHES - APPLIES


@pytest.mark.parametrize("resource", sorted(WORDS))
def test_moves_of_networks_use_their_words(resource: str) -> None:
    statuses, transitions = WORDS[resource]
    for move in MOVES[resource].values():
        assert {statuses(source) for source in move.sources} == move.sources
        assert transitions(move.transition) == move.transition
        assert move.target is not None
        assert statuses(move.target)
    assert {move.transition for move in MOVES[resource].values()} <= set(transitions)
    if resource != "nic":
        assert MOVES[resource]["create"].sources == frozenset()
        assert NetworkStatus.FAILED in MOVES[resource]["delete"].sources
        assert all(NetworkStatus.PENDING not in move.sources for move in MOVES[resource].values())


def test_moves_use_the_words_of_the_resource() -> None:
    for move in INSTANCE_MOVES.values():
        assert {InstanceStatus(source) for source in move.sources} == move.sources
        assert InstanceTransition(move.transition) == move.transition
        assert move.target is None or InstanceStatus(move.target)
    # A recovery is the server's own doing: no tenant's action begins it.
    assert set(InstanceTransition) - {move.transition for move in INSTANCE_MOVES.values()} <= {"recovering"}
    assert INSTANCE_MOVES["create"].sources == frozenset()
    assert InstanceStatus.FAILED in INSTANCE_MOVES["delete"].sources
    assert all(InstanceStatus.PENDING not in move.sources for move in INSTANCE_MOVES.values())
    of_the_deleted = {action for action, move in INSTANCE_MOVES.items() if InstanceStatus.DELETED in move.sources}
    assert of_the_deleted <= {"recover", "purge"}
