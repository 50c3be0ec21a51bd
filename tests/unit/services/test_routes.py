"""Routes of VPCs: added, many at once, replaced, removed, at the level of the service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from iaas.cloud import Cloud
from iaas.db.repositories.query import Listing
from iaas.drivers.interface import RouteSpec
from iaas.kernel.errors import AlreadyExists, InvalidInput, NotFound, PermissionDenied, QuotaExceeded
from iaas.resources.common import Page, Role
from iaas.resources.networks import VPC, NewNIC, NewRoute, Route
from iaas.services import vpc_entries
from tests.factories import assert_consistent, create, open_cloud, operator, principal_in, settle
from tests.unit.services.networks import (
    ALL,
    done,
    events_of,
    field_of,
    make_nic,
    make_subnet,
    make_vpc,
    spec_of,
    used,
)


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with open_cloud() as opened:
        yield opened
        settle(opened)
        assert_consistent(opened)


@pytest.fixture
def vpc(cloud: Cloud) -> VPC:
    """A VPC with the subnet ``web``, 10.0.1.0/24."""
    made = make_vpc(cloud, name="prod")
    make_subnet(cloud, "prod", "10.0.1.0/24", name="web")
    return cloud.vpcs.get(operator(cloud), made.id)


def via(destination: str, address: str = "10.0.1.9", **target: str) -> NewRoute:
    return NewRoute(destination=destination, **(target or {"address": address}))


def add(cloud: Cloud, *wishes: NewRoute) -> list[Route]:
    routes, job = cloud.vpc_entries.add_routes(operator(cloud), "prod", wishes)
    done(cloud, job)
    return routes


def specs(cloud: Cloud, vpc: VPC) -> set[RouteSpec]:
    return set(spec_of(cloud, vpc.id).routes)


def test_a_route_to_an_address(cloud: Cloud, vpc: VPC) -> None:
    routes, job = cloud.vpc_entries.add_routes(operator(cloud), "prod", [via("10.244.1.0/24")])
    [route] = routes
    assert (route.destination, route.target_type, route.target) == ("10.244.1.0/24", "address", "10.0.1.9")
    assert route.next_hop == "10.0.1.9"
    assert job.action == "vpc.apply"
    done(cloud, job)
    assert specs(cloud, vpc) == {RouteSpec(destination="10.244.1.0/24", next_hop="10.0.1.9")}
    assert cloud.vpc_entries.get_route(operator(cloud), vpc.id, route.id) == route
    changed = cloud.vpcs.get(operator(cloud), "prod")
    assert (changed.generation, changed.revision) == (vpc.generation + 1, vpc.revision + 1)
    assert changed.applied_revision == changed.revision
    assert changed.transition is None
    assert events_of(cloud, vpc.id)[-2:] == ["vpc.updated", "vpc.applied"]
    assert used(cloud, "routes") == 1


def test_a_route_to_a_nic_follows_the_nic(cloud: Cloud, vpc: VPC) -> None:
    nic = make_nic(cloud, "web", name="gate", address="10.0.1.50")
    [route] = add(cloud, via("10.244.1.0/24", nic="gate"))
    assert (route.target, route.next_hop) == (nic.id, None)
    assert specs(cloud, vpc) == {RouteSpec(destination="10.244.1.0/24", next_hop="")}
    instance = create(cloud, nics=(NewNIC(nic="gate"),))
    assert cloud.vpc_entries.get_route(operator(cloud), "prod", route.id).next_hop == "10.0.1.50"
    assert specs(cloud, vpc) == {RouteSpec(destination="10.244.1.0/24", next_hop="10.0.1.50")}
    cloud.instances.delete(operator(cloud), instance.id)
    settle(cloud)
    assert specs(cloud, vpc) == {RouteSpec(destination="10.244.1.0/24", next_hop="")}


def test_a_route_to_an_instance_by_name(cloud: Cloud, vpc: VPC) -> None:
    instance = create(cloud, name="node-1", nics=(NewNIC(), NewNIC(subnet="web", address="10.0.1.60")))
    [route] = add(cloud, via("10.244.1.0/24", instance="node-1"))
    assert (route.target_type, route.target, route.next_hop) == ("instance", instance.id, "10.0.1.60")
    cloud.instances.delete(operator(cloud), "node-1")
    settle(cloud)
    assert cloud.vpc_entries.get_route(operator(cloud), "prod", route.id).next_hop is None


@pytest.mark.parametrize(
    ("wish", "field", "code"),
    [
        (via("10.244.1.1/24"), "destination", "host_bits"),
        (via("fd00::/64"), "destination", "not_supported"),
        (via("169.254.0.0/16"), "destination", "reserved"),
        (via("10.0.1.0/24"), "destination", "conflict"),
        (NewRoute(destination="10.244.0.0/16"), "instance", "required"),
        (NewRoute(destination="10.244.0.0/16", nic="x", address="10.0.1.9"), "address", "excluded"),
        (NewRoute(destination="10.244.0.0/16", instance="x", nic="x"), "nic", "excluded"),
        (via("10.244.0.0/16", "10.0.2.9"), "address", "outside"),
        (via("10.244.0.0/16", "10.0.1.0"), "address", "reserved"),
        (via("10.244.0.0/16", "10.0.1.255"), "address", "reserved"),
        (via("10.244.0.0/16", "10.0.1.1"), "address", "loop"),
        (via("10.244.0.0/16", "fd00::1"), "address", "not_supported"),
        (via("10.244.0.0/16", "here"), "address", "invalid"),
        (via("10.0.1.9/32"), "address", "loop"),
        (via("10.0.1.0/28"), "address", "loop"),
        (via("10.244.0.0/16", instance="nobody"), "instance", "not_found"),
        (via("10.244.0.0/16", nic="nobody"), "nic", "not_found"),
        (via("10.244.0.0/16", nic="elsewhere"), "nic", "outside"),
        (via("10.244.0.0/16", instance="far"), "instance", "outside"),
        (via("10.244.0.0/16", nic="theirs"), "nic", "not_found"),
    ],
)
def test_each_wrong_field_is_named(cloud: Cloud, vpc: VPC, wish: NewRoute, field: str, code: str) -> None:
    make_nic(cloud, "basic", name="elsewhere")
    other, _ = principal_in(cloud, "other")
    cloud.nics.create(other, NewNIC(subnet="basic", name="theirs"))
    if code == "outside" and field == "instance":
        create(cloud, name="far")
    with pytest.raises(InvalidInput) as refused:
        cloud.vpc_entries.add_routes(operator(cloud), "prod", [wish])
    assert field_of(refused) == (field, code)
    with pytest.raises(InvalidInput) as in_batch:
        cloud.vpc_entries.add_routes(operator(cloud), "prod", [via("10.9.0.0/16"), wish])
    assert in_batch.value.errors[0].field == f"routes.1.{field}"
    assert used(cloud, "routes") == 0
    assert cloud.vpcs.get(operator(cloud), "prod") == vpc


def test_destinations_may_be_inside_the_vpc_or_everything(cloud: Cloud, vpc: VPC) -> None:
    add(cloud, via("0.0.0.0/0"), via("10.0.0.0/16"), via("10.0.9.0/24"), via("10.0.1.128/25"))
    assert used(cloud, "routes") == 4


def test_a_destination_has_one_route(cloud: Cloud, vpc: VPC) -> None:
    add(cloud, via("10.244.1.0/24"))
    with pytest.raises(AlreadyExists) as refused:
        add(cloud, via("10.244.1.0/24", "10.0.1.10"))
    assert field_of(refused) == ("destination", "taken")
    with pytest.raises(AlreadyExists) as refused:
        add(cloud, via("10.244.2.0/24"), via("10.244.1.0/24", "10.0.1.10"))
    assert field_of(refused) == ("routes.1.destination", "taken")
    with pytest.raises(InvalidInput) as twice:
        add(cloud, via("10.244.3.0/24"), via("10.244.3.0/24"))
    assert field_of(twice) == ("routes.1.destination", "twice")
    assert used(cloud, "routes") == 1
    make_vpc(cloud, name="other")
    make_subnet(cloud, "other", "10.0.1.0/24")
    done(cloud, cloud.vpc_entries.add_routes(operator(cloud), "other", [via("10.244.1.0/24")])[1])


def test_hundreds_at_once_are_one_revision(cloud: Cloud, vpc: VPC) -> None:
    wishes = [via(f"10.{200 + number // 256}.{number % 256}.0/24") for number in range(500)]
    routes, job = cloud.vpc_entries.add_routes(operator(cloud), "prod", wishes)
    done(cloud, job)
    assert [route.destination for route in routes] == [wish.destination for wish in wishes]
    assert len(specs(cloud, vpc)) == 500
    assert cloud.vpcs.get(operator(cloud), "prod").revision == vpc.revision + 1
    listed, cursor = cloud.vpc_entries.list_routes(operator(cloud), "prod", Listing(page=Page(limit=300)))
    more, _ = cloud.vpc_entries.list_routes(operator(cloud), "prod", Listing(page=Page(limit=300, cursor=cursor)))
    assert sorted(route.id for route in listed + more) == sorted(route.id for route in routes)


def test_a_vpc_has_a_limited_number(cloud: Cloud, vpc: VPC, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vpc_entries, "MAX_ROUTES", 3)
    with pytest.raises(InvalidInput) as refused:
        add(cloud, *[via(f"10.244.{number}.0/24") for number in range(4)])
    assert field_of(refused) == ("routes", "too_many")
    add(cloud, via("10.244.0.0/24"), via("10.244.1.0/24"))
    with pytest.raises(QuotaExceeded) as exceeded:
        add(cloud, via("10.244.2.0/24"), via("10.244.3.0/24"))
    assert field_of(exceeded) == ("routes", "quota_exceeded")
    with pytest.raises(InvalidInput):
        add(cloud)
    assert used(cloud, "routes") == 2


def test_the_quota(cloud: Cloud, vpc: VPC) -> None:
    cloud.quotas.update(operator(cloud), "default", {"routes": 2})
    add(cloud, via("10.244.0.0/24"))
    with pytest.raises(QuotaExceeded):
        add(cloud, via("10.244.1.0/24"), via("10.244.2.0/24"))
    with pytest.raises(QuotaExceeded):
        cloud.vpc_entries.replace_routes(
            operator(cloud), "prod", [via(f"10.244.{number}.0/24") for number in range(1, 4)]
        )
    cloud.vpc_entries.replace_routes(operator(cloud), "prod", [via("10.244.1.0/24"), via("10.244.2.0/24")])
    assert used(cloud, "routes") == 2


def test_the_whole_table_is_replaced_at_once(cloud: Cloud, vpc: VPC) -> None:
    kept, moved, gone = add(cloud, via("10.244.0.0/24"), via("10.244.1.0/24"), via("10.244.2.0/24"))
    before = cloud.vpcs.get(operator(cloud), "prod")
    wishes = [via("10.244.3.0/24"), via("10.244.1.0/24", "10.0.1.77"), via("10.244.0.0/24")]
    routes, job = cloud.vpc_entries.replace_routes(operator(cloud), "prod", wishes)
    done(cloud, job)
    assert [route.destination for route in routes] == [wish.destination for wish in wishes]
    assert routes[2] == kept, "what is as wished already stays what it is"
    assert routes[1].id != moved.id
    assert specs(cloud, vpc) == {
        RouteSpec(destination="10.244.3.0/24", next_hop="10.0.1.9"),
        RouteSpec(destination="10.244.1.0/24", next_hop="10.0.1.77"),
        RouteSpec(destination="10.244.0.0/24", next_hop="10.0.1.9"),
    }
    assert cloud.vpcs.get(operator(cloud), "prod").revision == before.revision + 1
    assert used(cloud, "routes") == 3
    with pytest.raises(NotFound):
        cloud.vpc_entries.get_route(operator(cloud), "prod", gone.id)
    with pytest.raises(InvalidInput) as refused:
        cloud.vpc_entries.replace_routes(operator(cloud), "prod", [via("10.244.9.0/24", "10.0.2.1")])
    assert field_of(refused) == ("routes.0.address", "outside")
    done(cloud, cloud.vpc_entries.replace_routes(operator(cloud), "prod", [])[1])
    assert specs(cloud, vpc) == set()
    assert used(cloud, "routes") == 0
    add(cloud, via("10.244.2.0/24"))


def test_a_route_is_removed(cloud: Cloud, vpc: VPC) -> None:
    [route] = add(cloud, via("10.244.0.0/24"))
    done(cloud, cloud.vpc_entries.delete_route(operator(cloud), "prod", route.id))
    assert specs(cloud, vpc) == set()
    assert used(cloud, "routes") == 0
    with pytest.raises(NotFound):
        cloud.vpc_entries.delete_route(operator(cloud), "prod", route.id)
    add(cloud, via("10.244.0.0/24"))


def test_routes_are_their_vpcs_and_projects(cloud: Cloud, vpc: VPC) -> None:
    [route] = add(cloud, via("10.244.0.0/24"))
    make_vpc(cloud, name="other")
    with pytest.raises(NotFound):
        cloud.vpc_entries.get_route(operator(cloud), "other", route.id)
    with pytest.raises(NotFound):
        cloud.vpc_entries.delete_route(operator(cloud), "other", route.id)
    stranger, _ = principal_in(cloud, "stranger")
    attempts: list[Any] = [
        lambda: cloud.vpc_entries.get_route(stranger, vpc.id, route.id),
        lambda: cloud.vpc_entries.list_routes(stranger, vpc.id, ALL),
        lambda: cloud.vpc_entries.add_routes(stranger, vpc.id, [via("10.1.0.0/16")]),
        lambda: cloud.vpc_entries.replace_routes(stranger, vpc.id, []),
        lambda: cloud.vpc_entries.delete_route(stranger, vpc.id, route.id),
    ]
    for attempt in attempts:
        with pytest.raises(NotFound):
            attempt()
    reader, _ = principal_in(cloud, "default", Role.READER)
    assert cloud.vpc_entries.list_routes(reader, vpc.id, ALL)[0] == [route]
    with pytest.raises(PermissionDenied):
        cloud.vpc_entries.add_routes(reader, vpc.id, [via("10.1.0.0/16")])
