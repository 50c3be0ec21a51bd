"""The plays of networks and NICs."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from iaas.db.repositories import jobs
from iaas.resources.instances import Instance
from iaas.resources.jobs import Job
from iaas.resources.networks import NIC, VPC, NetworkStatus, NewNIC, NewRoute, NICStatus, Subnet
from tests.chaos.stage import GONE, Play, Stage, running, status_of
from tests.factories import operator, wait_for

CIDR = "10.9.0.0/16"
BLOCK = "10.9.1.0/24"
DESTINATION = "10.244.0.0/24"

# A namespace that dies takes the links in it along; the cloud is to notice.
LOSE_LINK = "ip netns add pod && ip link set eth{index} netns pod && ip netns del pod"


@dataclass(frozen=True)
class Scene:
    """A subnet with one NIC, and a running instance in its zone."""

    instance: Instance
    vpc: VPC | None
    subnet: Subnet
    nic: NIC


# -- how to get there --------------------------------------------------------------------------------------------


def _vpc(stage: Stage, _nothing: None = None) -> VPC:
    vpc, _ = stage.cloud.vpcs.create(operator(stage.cloud), cidr=CIDR)
    stage.rest()
    assert status_of(stage.cloud, vpc.id) == NetworkStatus.ACTIVE
    return vpc


def _subnet(stage: Stage, vpc: VPC | None, **options: Any) -> Subnet:
    place: dict[str, Any] = {} if vpc is None else {"vpc": vpc.id, "cidr": BLOCK}
    subnet, _ = stage.cloud.subnets.create(operator(stage.cloud), **place, **options)
    stage.rest()
    assert status_of(stage.cloud, subnet.id) == NetworkStatus.ACTIVE
    return subnet


def _inhabited(stage: Stage, *, is_bare: bool = False) -> Scene:
    instance = running(stage)
    vpc = _vpc(stage)
    subnet = _subnet(stage, None if is_bare else vpc, zone=instance.zone)
    nic = stage.cloud.nics.create(operator(stage.cloud), NewNIC(subnet=subnet.id))
    return Scene(instance, vpc, subnet, nic)


def _attached(stage: Stage, *, is_bare: bool = False) -> Scene:
    scene = _inhabited(stage, is_bare=is_bare)
    attach(stage, scene.instance, scene.nic)
    return scene


def _bare(stage: Stage) -> Scene:
    return _attached(stage, is_bare=True)


def attach(stage: Stage, instance: Instance, nic: NIC) -> None:
    stage.cloud.nics.attach(operator(stage.cloud), nic.id, instance=instance.id)
    stage.rest()
    assert status_of(stage.cloud, nic.id) == NICStatus.IN_USE


# -- how to begin ------------------------------------------------------------------------------------------------


def _attach(stage: Stage, scene: Scene) -> tuple[NIC, Job]:
    return stage.cloud.nics.attach(operator(stage.cloud), scene.nic.id, instance=scene.instance.id)


def _detach(stage: Stage, scene: Scene) -> tuple[NIC, Job]:
    return stage.cloud.nics.detach(operator(stage.cloud), scene.nic.id)


def _apply_nic(stage: Stage, scene: Scene) -> tuple[NIC, Job]:
    assert scene.nic.address is not None
    further = str(IPv4Address(scene.nic.address) + 7)
    nic, job = stage.cloud.nics.update(operator(stage.cloud), scene.nic.id, secondary_addresses=[further])
    assert job is not None
    return nic, job


def _replug(stage: Stage, scene: Scene) -> tuple[NIC, Job]:
    """Let the link be lost by what the guest does; in a VM links cannot be lost, there only the news come."""
    cloud = stage.cloud
    if stage.kind == "container":
        index = cloud.nics.get(operator(cloud), scene.nic.id).device_index
        command = ["sh", "-c", LOSE_LINK.format(index=index)]
        done = cloud.instances.execute(operator(cloud), scene.instance.id, command, timeout_s=30)
        assert done.exit_code == 0, done
    else:
        cloud.nics.note_link_lost(scene.nic.id)
    found: list[Job] = []

    def is_noticed() -> bool:
        with cloud.store.read() as connection:
            found[:] = [job for job in jobs.unfinished(connection) if job.action == "nic.replug"]
        return bool(found)

    wait_for(is_noticed, what="the news of the lost link")
    return scene.nic, found[0]


def _create_vpc(stage: Stage, _nothing: None) -> tuple[VPC, Job]:
    return stage.cloud.vpcs.create(operator(stage.cloud), cidr=CIDR)


def _apply_vpc(stage: Stage, scene: Scene) -> tuple[VPC, Job]:
    assert scene.vpc is not None
    wanted = NewRoute(destination=DESTINATION, nic=scene.nic.id)
    _, job = stage.cloud.vpc_entries.add_routes(operator(stage.cloud), scene.vpc.id, [wanted])
    return scene.vpc, job


def _delete_vpc(stage: Stage, vpc: VPC) -> tuple[VPC, Job]:
    return stage.cloud.vpcs.delete(operator(stage.cloud), vpc.id)


def _create_subnet(stage: Stage, vpc: VPC) -> tuple[Subnet, Job]:
    return stage.cloud.subnets.create(operator(stage.cloud), vpc=vpc.id, cidr=BLOCK)


def _apply_subnet(stage: Stage, scene: Scene) -> tuple[Subnet, Job]:
    _, job = stage.cloud.reservations.create(operator(stage.cloud), subnet=scene.subnet.id, count=4)
    return scene.subnet, job


def _join(stage: Stage, scene: Scene) -> tuple[Subnet, Job]:
    assert scene.vpc is not None
    return stage.cloud.subnets.join(operator(stage.cloud), scene.subnet.id, vpc=scene.vpc.id, cidr=BLOCK)


def _leave(stage: Stage, scene: Scene) -> tuple[Subnet, Job]:
    return stage.cloud.subnets.leave(operator(stage.cloud), scene.subnet.id, force=True)


def _delete_subnet(stage: Stage, subnet: Subnet) -> tuple[Subnet, Job]:
    return stage.cloud.subnets.delete(operator(stage.cloud), subnet.id)


_IN_USE = frozenset({NICStatus.IN_USE})
_FREE = frozenset({NICStatus.AVAILABLE})
_ACTIVE = frozenset({NetworkStatus.ACTIVE})
_FAILED = frozenset({NetworkStatus.FAILED})
_GONE = frozenset({GONE})

PLAYS: dict[str, Play] = {
    "nic.attach": Play(_inhabited, _attach, _IN_USE, _FREE),
    "nic.detach": Play(_attached, _detach, _FREE, _IN_USE),
    "nic.apply": Play(_attached, _apply_nic, _IN_USE, _IN_USE),
    "nic.replug": Play(_attached, _replug, _IN_USE, _IN_USE),
    "vpc.create": Play(lambda _: None, _create_vpc, _ACTIVE, _FAILED),
    "vpc.apply": Play(_attached, _apply_vpc, _ACTIVE, _ACTIVE),
    "vpc.delete": Play(_vpc, _delete_vpc, _GONE, _FAILED),
    "subnet.create": Play(_vpc, _create_subnet, _ACTIVE, _FAILED),
    "subnet.apply": Play(_attached, _apply_subnet, _ACTIVE, _ACTIVE),
    "subnet.join": Play(_bare, _join, _ACTIVE, _ACTIVE),
    "subnet.leave": Play(_attached, _leave, _ACTIVE, _ACTIVE),
    "subnet.delete": Play(lambda stage: _subnet(stage, _vpc(stage)), _delete_subnet, _GONE, _FAILED),
}
