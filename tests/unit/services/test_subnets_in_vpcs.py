"""Subnets that join VPCs and leave them, at the level of the service."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from iaas.cloud import Cloud
from iaas.drivers.interface import PermanentError, SubnetState
from iaas.kernel.errors import (
    InTransition,
    InUse,
    InvalidInput,
    InvalidState,
    OutOfCapacity,
    ResourceRef,
)
from iaas.resources.jobs import JobStatus
from iaas.resources.networks import NewNIC, NewRoute
from tests.factories import assert_consistent, create, job_of, open_cloud, operator, settle, world
from tests.unit.services.networks import (
    ALL,
    done,
    events_of,
    field_of,
    join,
    make_nic,
    make_subnet,
    make_vpc,
    segment,
    spec_of,
)


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with open_cloud() as opened:
        yield opened
        settle(opened)
        assert_consistent(opened)


def test_joining_gives_addresses_to_nics_that_are_there(cloud: Cloud) -> None:
    vpc = make_vpc(cloud)
    subnet = make_subnet(cloud, name="wire")
    loose = make_nic(cloud, "wire")
    instance = create(cloud, nics=(NewNIC(subnet="wire"),))
    joining, job = cloud.subnets.join(operator(cloud), "wire", vpc=vpc.id, cidr="10.0.1.0/24", gateway="10.0.1.254")
    assert (job.action, joining.transition, joining.vpc_id) == ("subnet.join", "updating", vpc.id)
    with pytest.raises(InTransition):
        cloud.subnets.leave(operator(cloud), "wire", force=True)
    done(cloud, job)
    joined = cloud.subnets.get(operator(cloud), "wire")
    assert (joined.transition, joined.cidr, joined.gateway) == (None, "10.0.1.0/24", "10.0.1.254")
    assert segment(cloud, subnet.id) == SubnetState(subnet_id=subnet.id, vpc_id=vpc.id)
    found = [cloud.nics.get(operator(cloud), nic) for nic in (loose.id, instance.nics[0].id)]
    assert sorted(str(nic.address) for nic in found) == ["10.0.1.1", "10.0.1.2"]
    assert {nic.vpc_id for nic in found} == {vpc.id}
    # The machine's port speaks for its address from now on: the simulated guest is found at it.
    address = cloud.instances.get(operator(cloud), instance.id).nics[0].address
    assert address is not None
    cloud.backend.networks.dial(vpc.id, address, 80, timeout_s=5).close()
    assert events_of(cloud, subnet.id)[-2:] == ["subnet.updating", "subnet.joined"]


def test_a_pool_that_is_too_small_changes_nothing(cloud: Cloud) -> None:
    vpc = make_vpc(cloud)
    before = make_subnet(cloud, name="wire")
    nics = [make_nic(cloud, "wire") for _ in range(6)]
    with pytest.raises(OutOfCapacity):
        cloud.subnets.join(operator(cloud), "wire", vpc=vpc.id, cidr="10.0.1.0/29")
    assert cloud.subnets.get(operator(cloud), "wire") == before
    assert [cloud.nics.get(operator(cloud), nic.id) for nic in nics] == nics
    join(cloud, "wire", vpc.id, "10.0.1.0/28")


def test_a_subnet_is_in_one_vpc_at_most(cloud: Cloud) -> None:
    first, second = make_vpc(cloud), make_vpc(cloud)
    subnet = make_subnet(cloud, first.id, "10.0.1.0/24")
    with pytest.raises(InvalidState):
        cloud.subnets.join(operator(cloud), subnet.id, vpc=second.id, cidr="10.0.2.0/24")
    with pytest.raises(InvalidState):
        cloud.subnets.leave(operator(cloud), make_subnet(cloud).id)
    assert cloud.subnets.get(operator(cloud), subnet.id) == subnet


def test_joining_looks_at_the_neighbours(cloud: Cloud) -> None:
    vpc = make_vpc(cloud)
    make_subnet(cloud, vpc.id, "10.0.1.0/24")
    wire = make_subnet(cloud)
    with pytest.raises(InvalidInput) as refused:
        cloud.subnets.join(operator(cloud), wire.id, vpc=vpc.id, cidr="10.0.0.0/22")
    assert field_of(refused) == ("cidr", "overlaps")


def test_leaving_is_refused_while_nics_have_addresses(cloud: Cloud) -> None:
    vpc = make_vpc(cloud)
    subnet = make_subnet(cloud, vpc.id, "10.0.1.0/24", name="web")
    nic = make_nic(cloud, "web")
    mute = make_nic(cloud, "web", address="none")
    with pytest.raises(InUse) as refused:
        cloud.subnets.leave(operator(cloud), "web")
    assert refused.value.blockers == (ResourceRef("nic", nic.id),)
    cloud.nics.delete(operator(cloud), nic.id)
    left, job = cloud.subnets.leave(operator(cloud), "web")
    assert (left.vpc_id, left.cidr, left.gateway, left.transition) == (None, None, None, "updating")
    done(cloud, job)
    assert segment(cloud, subnet.id) == SubnetState(subnet_id=subnet.id, vpc_id=None)
    assert cloud.nics.get(operator(cloud), mute.id).vpc_id is None
    assert events_of(cloud, subnet.id)[-2:] == ["subnet.updating", "subnet.left"]


def test_leaving_by_force_takes_the_addresses(cloud: Cloud) -> None:
    vpc = make_vpc(cloud)
    make_subnet(cloud, vpc.id, "10.0.1.0/24", name="web")
    instance = create(cloud, nics=(NewNIC(subnet="web", secondary_addresses=("10.0.1.77",)),))
    reservation, _ = cloud.reservations.create(operator(cloud), subnet="web", address="10.0.1.200")
    settle(cloud)
    with pytest.raises(InUse) as refused:
        cloud.subnets.leave(operator(cloud), "web", force=True)
    assert refused.value.blockers == (ResourceRef("address_reservation", reservation.id),)
    done(cloud, cloud.reservations.delete(operator(cloud), reservation.id))
    done(cloud, cloud.subnets.leave(operator(cloud), "web", force=True)[1])
    [nic] = cloud.instances.get(operator(cloud), instance.id).nics
    assert (nic.vpc_id, nic.address, nic.secondary_addresses) == (None, None, ())
    join(cloud, "web", vpc.id, "10.0.9.0/24")  # another block: nothing of the old one is left
    [nic] = cloud.instances.get(operator(cloud), instance.id).nics
    assert nic.address == "10.0.9.2"


def test_a_block_is_taken_until_its_subnet_has_left(cloud: Cloud) -> None:
    vpc = make_vpc(cloud)
    old = make_subnet(cloud, vpc.id, "10.0.1.0/24")
    _, leaving = cloud.subnets.leave(operator(cloud), old.id)
    with pytest.raises(InTransition) as refused:
        cloud.subnets.create(operator(cloud), vpc=vpc.id, cidr="10.0.0.0/23")
    assert refused.value.resource == ResourceRef("subnet", old.id)
    cloud.subnets.create(operator(cloud), vpc=vpc.id, cidr="10.0.2.0/24")
    done(cloud, leaving)
    make_subnet(cloud, vpc.id, "10.0.0.0/23")


def test_addresses_may_change_hands_between_leaving_and_joining(cloud: Cloud) -> None:
    """Ports that still have addresses of before let go of them, so that others can have them now."""
    vpc = make_vpc(cloud)
    make_subnet(cloud, vpc.id, "10.0.1.0/29", name="web")
    ids = sorted(make_nic(cloud, "web", address="none").id for _ in range(3))
    for nic_id, address in zip(ids, ("10.0.1.4", "10.0.1.3", "10.0.1.2"), strict=True):
        cloud.nics.update(operator(cloud), nic_id, address=address)
        create(cloud, nics=(NewNIC(nic=nic_id),))
    world(cloud).faults.fail_next("ensure_port", PermanentError("no"), count=2)
    _, leaving = cloud.subnets.leave(operator(cloud), "web", force=True)
    settle(cloud)
    assert job_of(cloud, leaving.id).status == JobStatus.FAILED
    assert world(cloud).faults.waiting() == 0
    join(cloud, "web", vpc.id, "10.0.1.0/29")
    for nic_id, address in zip(ids, ("10.0.1.2", "10.0.1.3", "10.0.1.4"), strict=True):
        assert cloud.nics.get(operator(cloud), nic_id).address == address
        cloud.backend.networks.dial(vpc.id, address, 80, timeout_s=5).close()


def test_a_joining_that_the_data_plane_refuses_ends_its_transition(cloud: Cloud) -> None:
    vpc = make_vpc(cloud)
    subnet = make_subnet(cloud)
    world(cloud).faults.fail_next("ensure_subnet", PermanentError("no"))
    _, job = cloud.subnets.join(operator(cloud), subnet.id, vpc=vpc.id, cidr="10.0.1.0/24")
    settle(cloud)
    assert job_of(cloud, job.id).status == JobStatus.FAILED
    declared = cloud.subnets.get(operator(cloud), subnet.id)
    assert (declared.status, declared.transition, declared.vpc_id) == ("active", None, vpc.id)
    assert events_of(cloud, subnet.id)[-1] == "subnet.join_failed"
    done(cloud, cloud.subnets.leave(operator(cloud), subnet.id)[1])
    join(cloud, subnet.id, vpc.id, "10.0.1.0/24")


def test_routes_wait_for_subnets_and_lose_them(cloud: Cloud) -> None:
    vpc = make_vpc(cloud)
    make_subnet(cloud, vpc.id, "10.0.1.0/24", name="web")
    cloud.vpc_entries.add_routes(operator(cloud), vpc.id, [NewRoute(destination="10.9.0.0/16", address="10.0.1.9")])
    settle(cloud)

    def hops() -> list[str]:
        return [route.next_hop for route in spec_of(cloud, vpc.id).routes]

    def applied() -> int:
        return events_of(cloud, vpc.id).count("vpc.applied")

    assert hops() == ["10.0.1.9"]
    known = applied()
    cloud.subnets.leave(operator(cloud), "web")
    assert hops() == [""], "the router must not lead to a leg that is going"
    settle(cloud)
    assert applied() == known + 1
    assert [route.next_hop for route in cloud.vpc_entries.list_routes(operator(cloud), vpc.id, ALL)[0]] == [None]
    cloud.subnets.join(operator(cloud), "web", vpc=vpc.id, cidr="10.0.1.0/24")
    assert hops() == [""], "nor to one that is not there yet"
    settle(cloud)
    assert hops() == ["10.0.1.9"]
    assert applied() == known + 2
    done(cloud, cloud.subnets.delete(operator(cloud), "web")[1])
    assert hops() == [""]
    make_subnet(cloud, vpc.id, "10.0.1.0/28")
    assert hops() == ["10.0.1.9"]
    assert applied() == known + 4
