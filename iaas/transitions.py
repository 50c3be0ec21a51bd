"""The allowed moves, as data: used by the services, shown in the docs, walked by the tests.

A resource rests in a status; an action moves it through a transition into another status. At most one
transition at a time: a second action on a resource in transition is refused with a conflict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from iaas.resources.instances import InstanceStatus as S
from iaas.resources.instances import InstanceTransition as T
from iaas.resources.networks import NetworkStatus, NetworkTransition, NICStatus, NICTransition


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """``sources``: statuses in which the action may begin; empty for the creation of the resource.

    ``target`` is the status after success; None when it stays what it was.
    """

    sources: frozenset[str]
    transition: str
    target: str | None


INSTANCE_MOVES: Mapping[str, Move] = {
    "create": Move(sources=frozenset(), transition=T.CREATING, target=S.RUNNING),
    "start": Move(sources=frozenset({S.STOPPED}), transition=T.STARTING, target=S.RUNNING),
    "stop": Move(sources=frozenset({S.RUNNING}), transition=T.STOPPING, target=S.STOPPED),
    "restart": Move(sources=frozenset({S.RUNNING}), transition=T.RESTARTING, target=S.RUNNING),
    "resize": Move(sources=frozenset({S.STOPPED}), transition=T.RESIZING, target=S.STOPPED),
    "rebuild": Move(sources=frozenset({S.RUNNING, S.STOPPED}), transition=T.REBUILDING, target=S.RUNNING),
    "delete": Move(
        sources=frozenset({S.RUNNING, S.STOPPED, S.SUSPENDED, S.FAILED}), transition=T.DELETING, target=S.DELETED
    ),
    # A delete that keeps the instance recoverable; one of "failed" leaves nothing worth keeping.
    "retire": Move(sources=frozenset({S.RUNNING, S.STOPPED, S.SUSPENDED}), transition=T.DELETING, target=S.DELETED),
    "recover": Move(sources=frozenset({S.DELETED}), transition=T.RECOVERING, target=S.STOPPED),
    "purge": Move(sources=frozenset({S.DELETED}), transition=T.DELETING, target=S.DELETED),
}

# What changes in a VPC or subnet that is active (routes, records, reservations) sets no transition: hundreds may
# do so at the same time. Each change is applied by a job of its own, in any order.
VPC_MOVES: Mapping[str, Move] = {
    "create": Move(sources=frozenset(), transition=NetworkTransition.CREATING, target=NetworkStatus.ACTIVE),
    "delete": Move(
        sources=frozenset({NetworkStatus.ACTIVE, NetworkStatus.FAILED}),
        transition=NetworkTransition.DELETING,
        target=NetworkStatus.DELETED,
    ),
}
SUBNET_MOVES: Mapping[str, Move] = {
    **VPC_MOVES,
    "join": Move(
        sources=frozenset({NetworkStatus.ACTIVE}), transition=NetworkTransition.UPDATING, target=NetworkStatus.ACTIVE
    ),
    "leave": Move(
        sources=frozenset({NetworkStatus.ACTIVE}), transition=NetworkTransition.UPDATING, target=NetworkStatus.ACTIVE
    ),
}

NIC_MOVES: Mapping[str, Move] = {
    "attach": Move(
        sources=frozenset({NICStatus.AVAILABLE}), transition=NICTransition.ATTACHING, target=NICStatus.IN_USE
    ),
    "detach": Move(
        sources=frozenset({NICStatus.IN_USE}), transition=NICTransition.DETACHING, target=NICStatus.AVAILABLE
    ),
}

MOVES: Mapping[str, Mapping[str, Move]] = {
    "instance": INSTANCE_MOVES,
    "vpc": VPC_MOVES,
    "subnet": SUBNET_MOVES,
    "nic": NIC_MOVES,
}
