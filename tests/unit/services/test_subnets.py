"""Subnets: made, changed, deleted, at the level of the service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from iaas.cloud import Cloud
from iaas.db.repositories.query import Listing
from iaas.drivers.interface import PermanentError, SubnetState, TransientError
from iaas.kernel.errors import (
    AlreadyExists,
    InUse,
    InvalidInput,
    NotFound,
    OutOfCapacity,
    PermissionDenied,
    PreconditionFailed,
    QuotaExceeded,
    ResourceRef,
)
from iaas.kernel.labels import parse_selector
from iaas.resources.common import Page, Role
from iaas.resources.jobs import JobStatus
from iaas.resources.networks import NewNIC, NewRoute
from tests.factories import assert_consistent, create, job_of, open_cloud, operator, principal_in, settle, world
from tests.unit.services.networks import (
    done,
    events_of,
    field_of,
    join,
    make_nic,
    make_subnet,
    make_vpc,
    segment,
    used,
)


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with open_cloud() as opened:
        yield opened
        settle(opened)
        assert_consistent(opened)


# -- making -----------------------------------------------------------------------------------------------------


def test_a_subnet_is_made_in_a_vpc(cloud: Cloud) -> None:
    vpc = make_vpc(cloud, name="prod")
    accepted, job = cloud.subnets.create(
        operator(cloud), name="web", vpc="prod", cidr="10.0.1.0/24", zone="zone-2", mtu=9000, labels={"tier": "web"}
    )
    assert (accepted.status, accepted.transition, accepted.generation) == ("pending", "creating", 1)
    done(cloud, job)
    subnet = cloud.subnets.get(operator(cloud), "web")
    assert (subnet.status, subnet.transition, subnet.zone, subnet.mtu) == ("active", None, "zone-2", 9000)
    assert (subnet.vpc_id, subnet.cidr, subnet.gateway) == (vpc.id, "10.0.1.0/24", "10.0.1.1")
    assert (subnet.dhcp_first, subnet.dhcp_last) == ("10.0.1.2", "10.0.1.254")
    assert segment(cloud, subnet.id) == SubnetState(subnet_id=subnet.id, vpc_id=vpc.id)
    assert events_of(cloud, subnet.id) == ["subnet.creating", "subnet.created"]
    assert used(cloud, "subnets") == 1


def test_a_bare_subnet_has_no_addresses(cloud: Cloud) -> None:
    subnet = make_subnet(cloud, name="wire")
    assert (subnet.vpc_id, subnet.cidr, subnet.gateway, subnet.dhcp_first) == (None, None, None, None)
    assert subnet.zone == "zone-1"
    assert segment(cloud, subnet.id) == SubnetState(subnet_id=subnet.id, vpc_id=None)
    assert make_nic(cloud, "wire").address is None


@pytest.mark.parametrize(
    ("wish", "field", "code"),
    [
        ({"vpc": "prod"}, "cidr", "required"),
        ({"vpc": "nowhere", "cidr": "10.0.1.0/24"}, "vpc", "not_found"),
        ({"vpc": "prod", "cidr": "10.1.0.0/24"}, "cidr", "outside"),
        ({"vpc": "prod", "cidr": "10.0.1.0/24", "gateway": "10.0.2.1"}, "gateway", "outside"),
        ({"vpc": "prod", "cidr": "10.0.1.0/24", "mtu": 100}, "mtu", "out_of_range"),
        ({"vpc": "prod", "cidr": "10.0.1.0/24", "zone": "moon"}, "zone", "not_found"),
        ({"cidr": "10.0.1.0/24"}, "cidr", "excluded"),
        ({"gateway": "10.0.1.1"}, "gateway", "excluded"),
        ({"dhcp_first": "10.0.1.1"}, "dhcp_first", "excluded"),
        ({"labels": {"": "x"}}, "labels.", "invalid_key"),
    ],
)
def test_each_wrong_field_is_named(cloud: Cloud, wish: dict[str, Any], field: str, code: str) -> None:
    make_vpc(cloud, name="prod")
    with pytest.raises(InvalidInput) as refused:
        cloud.subnets.create(operator(cloud), **wish)
    assert field_of(refused) == (field, code)
    assert used(cloud, "subnets") == 0


@pytest.mark.parametrize("cidr", ["10.0.1.0/24", "10.0.1.128/25", "10.0.0.0/23", "10.0.0.0/16"])
def test_blocks_of_neighbours_do_not_overlap(cloud: Cloud, cidr: str) -> None:
    vpc = make_vpc(cloud)
    make_subnet(cloud, vpc.id, "10.0.1.0/24")
    with pytest.raises(InvalidInput) as refused:
        make_subnet(cloud, vpc.id, cidr)
    assert field_of(refused) == ("cidr", "overlaps")
    make_subnet(cloud, vpc.id, "10.0.2.0/24")
    make_subnet(cloud, make_vpc(cloud).id, cidr)


def test_a_block_is_not_where_a_route_leads(cloud: Cloud) -> None:
    vpc = make_vpc(cloud)
    make_subnet(cloud, vpc.id, "10.0.1.0/24")
    cloud.vpc_entries.add_routes(operator(cloud), vpc.id, [NewRoute(destination="10.0.2.0/24", address="10.0.1.9")])
    settle(cloud)
    with pytest.raises(InvalidInput) as refused:
        make_subnet(cloud, vpc.id, "10.0.2.0/24")
    assert field_of(refused) == ("cidr", "conflict")


def test_names_and_projects(cloud: Cloud) -> None:
    subnet = make_subnet(cloud, name="web")
    with pytest.raises(AlreadyExists) as refused:
        make_subnet(cloud, name="web")
    assert field_of(refused) == ("name", "taken")
    other, _ = principal_in(cloud, "other")
    with pytest.raises(NotFound):
        cloud.subnets.get(other, subnet.id)
    with pytest.raises(NotFound):
        cloud.subnets.delete(other, "web")
    vpc = make_vpc(cloud)
    with pytest.raises(InvalidInput) as unknown:
        cloud.subnets.create(other, vpc=vpc.id, cidr="10.0.1.0/24")
    assert field_of(unknown) == ("vpc", "not_found")
    reader, _ = principal_in(cloud, "default", Role.READER)
    with pytest.raises(PermissionDenied):
        cloud.subnets.create(reader)


# -- shared ones ------------------------------------------------------------------------------------------------


def test_basic_subnets_are_everybodys_and_nobodys(cloud: Cloud) -> None:
    other, _ = principal_in(cloud, "other")
    basic = cloud.subnets.get(other, "basic")
    assert basic.is_shared
    assert basic.zone == "zone-1"
    assert cloud.subnets.get(other, "basic", zone="zone-2") == cloud.subnets.get(other, "basic-zone-2")
    assert cloud.subnets.get(other, basic.id) == basic
    attempts: list[Callable[[], object]] = [
        lambda: cloud.subnets.delete(operator(cloud), basic.id),
        lambda: cloud.subnets.update(operator(cloud), basic.id, name="mine"),
        lambda: cloud.subnets.leave(operator(cloud), basic.id, force=True),
        lambda: cloud.subnets.join(operator(cloud), basic.id, vpc="x", cidr="10.0.1.0/24"),
    ]
    for attempt in attempts:
        with pytest.raises(PermissionDenied):
            attempt()


def test_a_list_begins_with_the_shared_ones(cloud: Cloud) -> None:
    names = [f"own-{number}" for number in range(4)]
    for name in names:
        make_subnet(cloud, name=name, labels={"name": name})
    first, cursor = cloud.subnets.list_page(operator(cloud), Listing(page=Page(limit=4, sort="name", descending=False)))
    assert [(subnet.name, subnet.zone) for subnet in first[:2]] == [("basic", "zone-1"), ("basic", "zone-2")]
    assert [subnet.name for subnet in first[2:]] == names[:2]
    second, cursor = cloud.subnets.list_page(
        operator(cloud), Listing(page=Page(limit=4, sort="name", descending=False, cursor=cursor))
    )
    assert [subnet.name for subnet in second] == names[2:]
    assert cursor is None
    labelled, _ = cloud.subnets.list_page(operator(cloud), Listing(labels=parse_selector("name=own-1")))
    assert [subnet.name for subnet in labelled] == ["own-1"]
    filtered, _ = cloud.subnets.list_page(operator(cloud), Listing(filters={"zone": "zone-2"}))
    assert [subnet.name for subnet in filtered] == ["basic"]


# -- changing ---------------------------------------------------------------------------------------------------


def test_names_labels_and_pools_are_changed_without_a_job(cloud: Cloud) -> None:
    vpc = make_vpc(cloud)
    subnet = make_subnet(cloud, vpc.id, "10.0.1.0/24", name="web", labels={"a": "1"})
    changed, job = cloud.subnets.update(
        operator(cloud),
        "web",
        name="www",
        labels={"a": None, "b": "2"},
        dhcp_first="10.0.1.100",
        dhcp_last="10.0.1.101",
    )
    assert job is None
    assert (changed.name, changed.labels) == ("www", {"b": "2"})
    assert (changed.dhcp_first, changed.dhcp_last) == ("10.0.1.100", "10.0.1.101")
    assert changed.generation == subnet.generation + 1
    assert sorted(str(make_nic(cloud, "www").address) for _ in range(2)) == ["10.0.1.100", "10.0.1.101"]
    with pytest.raises(OutOfCapacity):
        make_nic(cloud, "www")
    assert make_nic(cloud, "www", address="10.0.1.7").address == "10.0.1.7"  # given ones need not be of the pool
    with pytest.raises(PreconditionFailed):
        cloud.subnets.update(operator(cloud), "www", name="x", if_generation=subnet.generation)


@pytest.mark.parametrize(
    ("wish", "field", "code"),
    [
        ({"dhcp_first": "10.0.1.1"}, "dhcp_first", "reserved"),
        ({"dhcp_last": "10.0.1.255"}, "dhcp_last", "reserved"),
        ({"dhcp_first": "10.0.9.9"}, "dhcp_first", "outside"),
        ({"dhcp_first": "10.0.1.50", "dhcp_last": "10.0.1.40"}, "dhcp_last", "out_of_range"),
    ],
)
def test_pools_that_make_no_sense(cloud: Cloud, wish: dict[str, Any], field: str, code: str) -> None:
    vpc = make_vpc(cloud)
    make_subnet(cloud, vpc.id, "10.0.1.0/24", name="web")
    with pytest.raises(InvalidInput) as refused:
        cloud.subnets.update(operator(cloud), "web", **wish)
    assert field_of(refused) == (field, code)


def test_a_bare_subnet_has_no_pool(cloud: Cloud) -> None:
    subnet = make_subnet(cloud)
    with pytest.raises(InvalidInput) as refused:
        cloud.subnets.update(operator(cloud), subnet.id, dhcp_last="10.0.1.9")
    assert field_of(refused) == ("dhcp_last", "excluded")


# -- deleting ---------------------------------------------------------------------------------------------------


def test_deletion_names_what_stands_against_it(cloud: Cloud) -> None:
    vpc = make_vpc(cloud)
    subnet = make_subnet(cloud, vpc.id, "10.0.1.0/24", name="web")
    nic = make_nic(cloud, "web", address="none")
    reservation, _ = cloud.reservations.create(operator(cloud), subnet="web")
    settle(cloud)
    with pytest.raises(InUse) as refused:
        cloud.subnets.delete(operator(cloud), "web")
    assert set(refused.value.blockers) == {
        ResourceRef("nic", nic.id),
        ResourceRef("address_reservation", reservation.id),
    }
    cloud.nics.delete(operator(cloud), nic.id)
    done(cloud, cloud.reservations.delete(operator(cloud), reservation.id))
    with pytest.raises(PreconditionFailed):
        cloud.subnets.delete(operator(cloud), "web", if_generation=1)
    deleting, job = cloud.subnets.delete(operator(cloud), "web")
    assert deleting.transition == "deleting"
    done(cloud, job)
    with pytest.raises(NotFound):
        cloud.subnets.get(operator(cloud), subnet.id)
    assert segment(cloud, subnet.id) is None
    assert used(cloud, "subnets") == 0
    assert events_of(cloud, subnet.id)[-2:] == ["subnet.deleting", "subnet.deleted"]
    make_subnet(cloud, vpc.id, "10.0.1.0/24", name="web")


def test_one_that_failed_has_no_place_in_its_vpc(cloud: Cloud) -> None:
    vpc = make_vpc(cloud)
    world(cloud).faults.fail_next("ensure_subnet", PermanentError("no"), when="after")
    failed, _ = cloud.subnets.create(operator(cloud), vpc=vpc.id, cidr="10.0.1.0/24", name="web")
    settle(cloud)
    failed = cloud.subnets.get(operator(cloud), failed.id)
    assert (failed.status, failed.vpc_id, failed.cidr) == ("failed", None, None)
    assert segment(cloud, failed.id) is None
    assert used(cloud, "subnets") == 0
    make_subnet(cloud, vpc.id, "10.0.1.0/24", name="web")
    with pytest.raises(InvalidInput):
        make_nic(cloud, failed.id)
    done(cloud, cloud.subnets.delete(operator(cloud), failed.id)[1])
    assert used(cloud, "subnets") == 1


def test_one_whose_deletion_failed_can_be_deleted_again(cloud: Cloud) -> None:
    vpc = make_vpc(cloud)
    subnet = make_subnet(cloud, vpc.id, "10.0.1.0/24")
    world(cloud).faults.fail_next("remove_subnet", PermanentError("busy"))
    cloud.subnets.delete(operator(cloud), subnet.id)
    settle(cloud)
    assert cloud.subnets.get(operator(cloud), subnet.id).status == "failed"
    assert used(cloud, "subnets") == 0
    with pytest.raises(InUse):
        cloud.vpcs.delete(operator(cloud), vpc.id)  # something of it may still be there
    done(cloud, cloud.subnets.delete(operator(cloud), subnet.id)[1])
    assert used(cloud, "subnets") == 0
    done(cloud, cloud.vpcs.delete(operator(cloud), vpc.id)[1])


def test_an_application_that_comes_late_brings_nothing_back(cloud: Cloud) -> None:
    vpc = make_vpc(cloud)
    subnet = make_subnet(cloud, vpc.id, "10.0.1.0/24")
    reservation, _ = cloud.reservations.create(operator(cloud), subnet=subnet.id)
    settle(cloud)
    world(cloud).faults.fail_next("ensure_subnet", TransientError("later"), count=3)
    applying = cloud.reservations.delete(operator(cloud), reservation.id)
    cloud.executor.run_due()  # the first attempt; more come when the subnet and its VPC are gone
    cloud.subnets.delete(operator(cloud), subnet.id)
    cloud.executor.run_due()
    _, deleting = cloud.vpcs.delete(operator(cloud), vpc.id)
    done(cloud, deleting)
    assert job_of(cloud, applying.id).status == JobStatus.SUCCEEDED
    assert segment(cloud, subnet.id) is None
    assert vpc.id not in {state.vpc_id for state in cloud.backend.networks.vpcs()}


def test_an_instance_comes_back_without_the_nics_whose_subnets_are_going(cloud: Cloud) -> None:
    vpc = make_vpc(cloud)
    make_subnet(cloud, vpc.id, "10.0.1.0/24", name="web")
    instance = create(cloud, nics=(NewNIC(), NewNIC(subnet="web")))
    cloud.instances.retention_s = 7200
    cloud.instances.delete(operator(cloud), instance.id)
    settle(cloud)
    _, deleting = cloud.subnets.delete(operator(cloud), "web")
    cloud.instances.recover(operator(cloud), instance.id)
    done(cloud, deleting)
    recovered = cloud.instances.get(operator(cloud), instance.id)
    assert [nic.subnet_id for nic in recovered.nics] == [cloud.subnets.get(operator(cloud), "basic").id]


def test_an_instance_comes_back_with_an_address_that_fits(cloud: Cloud) -> None:
    vpc = make_vpc(cloud)
    make_subnet(cloud, vpc.id, "10.0.1.0/24", name="web")
    instance = create(cloud, nics=(NewNIC(subnet="web", address="10.0.1.16"),))
    cloud.instances.retention_s = 7200
    cloud.instances.delete(operator(cloud), instance.id)
    settle(cloud)
    done(cloud, cloud.subnets.leave(operator(cloud), "web")[1])
    join(cloud, "web", vpc.id, "10.0.1.16/28")  # what was a host's address is the network's now
    _, job = cloud.instances.recover(operator(cloud), instance.id)
    done(cloud, job)
    assert cloud.instances.get(operator(cloud), instance.id).nics[0].address == "10.0.1.18"


def test_the_quota(cloud: Cloud) -> None:
    cloud.quotas.update(operator(cloud), "default", {"subnets": 1})
    make_subnet(cloud)
    with pytest.raises(QuotaExceeded) as refused:
        make_subnet(cloud)
    assert field_of(refused) == ("subnets", "quota_exceeded")
