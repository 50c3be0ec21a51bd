"""Every action in every status and every transition, through the service: the table alone decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from iaas.cloud import Cloud
from iaas.db.repositories import instances
from iaas.kernel.errors import InTransition, InvalidState, NotFound
from iaas.resources.instances import Instance, InstanceStatus, InstanceTransition
from iaas.transitions import INSTANCE_MOVES
from tests.factories import create, instance_row, operator

ACTIONS: dict[str, Callable[[Cloud, str], Any]] = {
    "start": lambda cloud, it: cloud.instances.start(operator(cloud), it),
    "stop": lambda cloud, it: cloud.instances.stop(operator(cloud), it),
    "restart": lambda cloud, it: cloud.instances.restart(operator(cloud), it),
    "resize": lambda cloud, it: cloud.instances.resize(operator(cloud), it, flavor="nano"),
    "rebuild": lambda cloud, it: cloud.instances.rebuild(operator(cloud), it),
    "delete": lambda cloud, it: cloud.instances.delete(operator(cloud), it),
}
EXISTING = [status for status in InstanceStatus if status is not InstanceStatus.DELETED]


def put(cloud: Cloud, instance: Instance, **columns: Any) -> Instance:
    """Force the row into a state, whatever the machine is."""
    cloud.store.write(lambda tx: instances.change(tx, instance.id, **columns))
    return instance_row(cloud, instance.id)


def test_all_actions_are_walked() -> None:
    # What has to do with retention begins in states that come about only by it: test_retention.py walks that.
    assert ACTIONS.keys() == INSTANCE_MOVES.keys() - {"create", "retire", "recover", "purge"}


@pytest.mark.parametrize("action", ACTIONS)
def test_actions_at_rest(cloud: Cloud, action: str) -> None:
    instance = create(cloud)
    move = INSTANCE_MOVES[action]
    for status in EXISTING:
        before = put(cloud, instance, status=status, transition=None)
        if status in move.sources:
            accepted, job = ACTIONS[action](cloud, instance.id)
            assert (accepted.status, accepted.transition) == (status, move.transition)
            assert accepted.generation == before.generation + 1
            assert job.action == f"instance.{action}"
        else:
            with pytest.raises(InvalidState, match=str(status)):
                ACTIONS[action](cloud, instance.id)
            assert instance_row(cloud, instance.id) == before


@pytest.mark.parametrize("action", ACTIONS)
def test_actions_in_transition(cloud: Cloud, action: str) -> None:
    instance = create(cloud)
    for status in EXISTING:
        for transition in InstanceTransition:
            before = put(cloud, instance, status=status, transition=transition)
            with pytest.raises(InTransition, match=str(transition)):
                ACTIONS[action](cloud, instance.id)
            assert instance_row(cloud, instance.id) == before


@pytest.mark.parametrize("action", ACTIONS)
def test_actions_on_the_deleted(cloud: Cloud, action: str) -> None:
    instance = create(cloud)
    put(cloud, instance, status=InstanceStatus.DELETED, deleted_at=cloud.clock.now())
    with pytest.raises(NotFound):
        ACTIONS[action](cloud, instance.id)
