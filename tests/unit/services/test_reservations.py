"""Address reservations, at the level of the service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from iaas.cloud import Cloud
from iaas.drivers.interface import ReservationSpec
from iaas.kernel.errors import (
    AlreadyExists,
    InTransition,
    InvalidInput,
    NotFound,
    OutOfCapacity,
    PermissionDenied,
    QuotaExceeded,
    ResourceRef,
)
from iaas.resources.common import Role
from iaas.resources.networks import AddressReservation, Subnet
from iaas.workflows.network_specs import subnet_spec
from tests.factories import assert_consistent, open_cloud, operator, principal_in, settle
from tests.unit.services.networks import ALL, done, events_of, field_of, make_nic, make_subnet, make_vpc, used


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with open_cloud() as opened:
        yield opened
        settle(opened)
        assert_consistent(opened)


@pytest.fixture
def web(cloud: Cloud) -> Subnet:
    make_vpc(cloud, name="prod")
    return make_subnet(cloud, "prod", "10.0.1.0/24", name="web")


def reserve(cloud: Cloud, **wish: Any) -> AddressReservation:
    reservation, job = cloud.reservations.create(operator(cloud), **{"subnet": "web", **wish})
    done(cloud, job)
    return reservation


def specs(cloud: Cloud, subnet: Subnet) -> set[ReservationSpec]:
    """Return the reservations that the driver is told of."""
    with cloud.store.read() as connection:
        spec = subnet_spec(connection, subnet.id)
    assert spec is not None
    return set(spec.reservations)


def test_a_given_address(cloud: Cloud, web: Subnet) -> None:
    reservation, job = cloud.reservations.create(
        operator(cloud), subnet=web.id, name="vip", address="10.0.1.100", labels={"for": "lb"}
    )
    assert (reservation.name, reservation.first, reservation.last) == ("vip", "10.0.1.100", "10.0.1.100")
    assert (job.action, job.resource) == ("subnet.apply", ResourceRef("subnet", web.id))
    done(cloud, job)
    owner = operator(cloud).project_id
    assert specs(cloud, web) == {ReservationSpec(owner=owner, first="10.0.1.100", last="10.0.1.100")}
    assert cloud.reservations.get(operator(cloud), "vip") == reservation
    assert cloud.reservations.list_page(operator(cloud), ALL)[0] == [reservation]
    assert events_of(cloud, reservation.id) == ["address_reservation.created"]
    changed = cloud.subnets.get(operator(cloud), "web")
    assert (changed.generation, changed.applied_revision) == (web.generation + 1, web.revision + 1)
    assert changed.transition is None


def test_a_range_is_out_of_the_pool(cloud: Cloud, web: Subnet) -> None:
    reserve(cloud, first="10.0.1.2", last="10.0.1.51")
    assert used(cloud, "reserved_addresses") == 50
    assert make_nic(cloud, "web").address == "10.0.1.52"
    with pytest.raises(AlreadyExists):
        make_nic(cloud, "web", address="10.0.1.20")


def test_free_ones_in_a_row(cloud: Cloud, web: Subnet) -> None:
    make_nic(cloud, "web", address="10.0.1.250")
    one = reserve(cloud)
    assert (one.first, one.last) == ("10.0.1.254", "10.0.1.254")
    few = reserve(cloud, count=3)
    assert (few.first, few.last) == ("10.0.1.251", "10.0.1.253")
    more = reserve(cloud, count=10)
    assert (more.first, more.last) == ("10.0.1.240", "10.0.1.249")
    assert used(cloud, "reserved_addresses") == 14
    with pytest.raises(OutOfCapacity) as refused:
        cloud.reservations.create(operator(cloud), subnet="web", count=300)
    assert field_of(refused) == ("count", "out_of_capacity")
    assert used(cloud, "reserved_addresses") == 14


def test_a_conflict_names_the_address_and_what_has_it(cloud: Cloud, web: Subnet) -> None:
    make_nic(cloud, "web", address="10.0.1.20", secondary_addresses=("10.0.1.40",))
    reserve(cloud, address="10.0.1.30")
    conflicts: list[tuple[dict[str, Any], str, str, str]] = [
        ({"address": "10.0.1.1"}, "address", "10.0.1.1", "the gateway"),
        ({"address": "10.0.1.40"}, "address", "10.0.1.40", "a NIC"),
        ({"first": "10.0.1.10", "last": "10.0.1.50"}, "first", "10.0.1.20", "a NIC"),
        ({"first": "10.0.1.21", "last": "10.0.1.50"}, "first", "10.0.1.30", "an address reservation"),
    ]
    for wish, field, address, what in conflicts:
        with pytest.raises(AlreadyExists) as refused:
            cloud.reservations.create(operator(cloud), subnet="web", **wish)
        assert field_of(refused) == (field, "taken")
        assert address in refused.value.message
        assert what in refused.value.message
    assert used(cloud, "reserved_addresses") == 1
    reserve(cloud, first="10.0.1.21", last="10.0.1.29")  # what was refused left no claim behind


@pytest.mark.parametrize(
    ("wish", "field", "code"),
    [
        ({"subnet": "nowhere"}, "subnet", "not_found"),
        ({"subnet": "wire"}, "subnet", "no_vpc"),
        ({"address": "10.0.2.1"}, "address", "outside"),
        ({"address": "10.0.1.0"}, "address", "reserved"),
        ({"address": "10.0.1.255"}, "address", "reserved"),
        ({"address": "fd00::1"}, "address", "not_supported"),
        ({"address": "x"}, "address", "invalid"),
        ({"first": "10.0.1.9"}, "last", "required"),
        ({"last": "10.0.1.9"}, "first", "required"),
        ({"first": "10.0.1.9", "last": "10.0.1.8"}, "last", "out_of_range"),
        ({"first": "10.0.1.9", "last": "10.0.2.8"}, "last", "outside"),
        ({"address": "10.0.1.9", "count": 1}, "count", "excluded"),
        ({"address": "10.0.1.9", "first": "10.0.1.9", "last": "10.0.1.9"}, "first", "excluded"),
        ({"count": 0}, "count", "out_of_range"),
        ({"count": 1025}, "count", "out_of_range"),
        ({"labels": {"": "x"}}, "labels.", "invalid_key"),
    ],
)
def test_each_wrong_field_is_named(cloud: Cloud, web: Subnet, wish: dict[str, Any], field: str, code: str) -> None:
    make_subnet(cloud, name="wire")
    with pytest.raises(InvalidInput) as refused:
        cloud.reservations.create(operator(cloud), **{"subnet": "web", **wish})
    assert field_of(refused) == (field, code)
    assert used(cloud, "reserved_addresses") == 0
    assert cloud.subnets.get(operator(cloud), "web") == web


def test_a_range_has_a_limited_size(cloud: Cloud) -> None:
    make_vpc(cloud, name="prod")
    make_subnet(cloud, "prod", "10.0.0.0/16", name="web")
    reserve(cloud, first="10.0.8.0", last="10.0.11.255")
    with pytest.raises(InvalidInput) as refused:
        reserve(cloud, first="10.0.16.0", last="10.0.20.0")
    assert field_of(refused) == ("last", "too_many")
    reserve(cloud, count=1024)
    assert used(cloud, "reserved_addresses") == 2048


def test_reservations_on_a_shared_subnet(cloud: Cloud) -> None:
    other, _ = principal_in(cloud, "other")
    mine = reserve(cloud, subnet="basic", address="10.64.9.9")
    theirs, job = cloud.reservations.create(other, subnet="basic", address="10.64.9.10")
    settle(cloud)
    assert cloud.jobs.get(other, job.id).error is None
    basic = cloud.subnets.get(other, "basic")
    assert {spec.owner for spec in specs(cloud, basic)} == {operator(cloud).project_id, other.project_id}
    with pytest.raises(AlreadyExists) as refused:
        cloud.reservations.create(other, subnet="basic", address="10.64.9.9")
    assert mine.id not in refused.value.message
    with pytest.raises(NotFound):
        cloud.reservations.delete(other, mine.id)
    assert cloud.reservations.list_page(other, ALL)[0] == [theirs]


def test_name_and_labels(cloud: Cloud, web: Subnet) -> None:
    vip = reserve(cloud, name="vip", labels={"a": "1"})
    reserve(cloud, name="other")
    changed = cloud.reservations.update(operator(cloud), "vip", name="front", labels={"a": None, "b": "2"})
    assert (changed.id, changed.name, changed.labels) == (vip.id, "front", {"b": "2"})
    with pytest.raises(AlreadyExists) as refused:
        cloud.reservations.update(operator(cloud), "front", name="other")
    assert field_of(refused) == ("name", "taken")
    reserve(cloud, name="vip")


def test_addresses_are_given_back(cloud: Cloud, web: Subnet) -> None:
    vip = reserve(cloud, name="vip", first="10.0.1.20", last="10.0.1.29")
    done(cloud, cloud.reservations.delete(operator(cloud), "vip"))
    assert specs(cloud, web) == set()
    assert used(cloud, "reserved_addresses") == 0
    with pytest.raises(NotFound):
        cloud.reservations.delete(operator(cloud), vip.id)
    assert make_nic(cloud, "web", address="10.0.1.25").address == "10.0.1.25"
    reserve(cloud, name="vip")
    assert events_of(cloud, vip.id)[-1] == "address_reservation.deleted"


def test_nothing_is_reserved_while_the_subnet_moves(cloud: Cloud, web: Subnet) -> None:
    vip = reserve(cloud)
    empty, _ = cloud.subnets.create(operator(cloud), vpc="prod", cidr="10.0.2.0/24", name="new")
    with pytest.raises(InTransition):
        cloud.reservations.create(operator(cloud), subnet=empty.id)
    settle(cloud)
    assert cloud.reservations.get(operator(cloud), vip.id) == vip


def test_the_quota(cloud: Cloud, web: Subnet) -> None:
    cloud.quotas.update(operator(cloud), "default", {"reserved_addresses": 10})
    with pytest.raises(QuotaExceeded) as refused:
        reserve(cloud, count=11)
    assert field_of(refused) == ("reserved_addresses", "quota_exceeded")
    reserve(cloud, count=10)
    with pytest.raises(QuotaExceeded):
        reserve(cloud)


def test_projects_and_roles(cloud: Cloud, web: Subnet) -> None:
    vip = reserve(cloud, name="vip")
    stranger, _ = principal_in(cloud, "stranger")
    for wanted in (vip.id, "vip"):
        with pytest.raises(NotFound):
            cloud.reservations.get(stranger, wanted)
    with pytest.raises(InvalidInput):
        cloud.reservations.create(stranger, subnet=web.id)
    reader, _ = principal_in(cloud, "default", Role.READER)
    assert cloud.reservations.get(reader, "vip") == vip
    attempts: list[Callable[[], object]] = [
        lambda: cloud.reservations.create(reader, subnet="web"),
        lambda: cloud.reservations.delete(reader, "vip"),
        lambda: cloud.reservations.update(reader, "vip", name="x"),
    ]
    for attempt in attempts:
        with pytest.raises(PermissionDenied):
            attempt()
