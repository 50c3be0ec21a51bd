"""Many at once on networks, through two servers on PostgreSQL and one on SQLite: what one may have one gets."""

from __future__ import annotations

from collections.abc import Sequence

from iaas.cloud import Cloud
from iaas.db.repositories import shared, subnets
from iaas.resources.networks import NewNIC, NewRoute, Subnet
from tests.factories import assert_consistent, operator, settle, wish
from tests.unit.services.networks import ALL, make_nic, make_subnet, make_vpc, spec_of, used
from tests.unit.services.racing import RACERS, ROUNDS, Entry, race


def makes_vpc(name: str) -> Entry:
    return lambda cloud: cloud.vpcs.create(operator(cloud), cidr="10.0.0.0/16", name=name)


def makes_subnet(name: str | None = None, vpc: str | None = None, cidr: str | None = None) -> Entry:
    return lambda cloud: cloud.subnets.create(operator(cloud), name=name, vpc=vpc, cidr=cidr)


def deletes_vpc(vpc: str) -> Entry:
    return lambda cloud: cloud.vpcs.delete(operator(cloud), vpc)


def deletes_subnet(subnet: str) -> Entry:
    return lambda cloud: cloud.subnets.delete(operator(cloud), subnet)


def leaves(subnet: str) -> Entry:
    return lambda cloud: cloud.subnets.leave(operator(cloud), subnet, force=True)


def makes_instance(subnet: str) -> Entry:
    nic = NewNIC(subnet=subnet)
    return lambda cloud: cloud.instances.create(
        operator(cloud), [wish(flavor=None, vcpus=1, memory_mib=64, nics=(nic,))]
    )


def joins(wire: str, vpc: str, cidr: str) -> Entry:
    return lambda cloud: cloud.subnets.join(operator(cloud), wire, vpc=vpc, cidr=cidr)


def adds_route(vpc: str, destination: str) -> Entry:
    wish = NewRoute(destination=destination, address="10.0.1.9")
    return lambda cloud: cloud.vpc_entries.add_routes(operator(cloud), vpc, [wish])


def replaces_routes(vpc: str, table: Sequence[NewRoute]) -> Entry:
    return lambda cloud: cloud.vpc_entries.replace_routes(operator(cloud), vpc, table)


def adds_record(vpc: str, name: str, type: str = "A", value: str = "10.0.1.9") -> Entry:
    return lambda cloud: cloud.vpc_entries.add_record(operator(cloud), vpc, name=name, type=type, values=[value])


def makes_nic(subnet: str, address: str | None = None) -> Entry:
    return lambda cloud: cloud.nics.create(operator(cloud), NewNIC(subnet=subnet, address=address))


def reserves(
    subnet: str,
    *,
    address: str | None = None,
    first: str | None = None,
    last: str | None = None,
    count: int | None = None,
) -> Entry:
    return lambda cloud: cloud.reservations.create(
        operator(cloud), subnet=subnet, address=address, first=first, last=last, count=count
    )


def settle_all(clouds: Sequence[Cloud]) -> None:
    """Let all servers do what they took on; then nothing may be left that does not fit together."""
    for cloud in clouds:
        settle(cloud)
    assert_consistent(clouds[0])


def test_one_name_goes_to_one(clouds: Sequence[Cloud]) -> None:
    for number in range(ROUNDS):
        assert race(clouds, [makes_vpc(f"vpc-{number}")] * RACERS) == {"won": 1, "AlreadyExists": RACERS - 1}
        assert race(clouds, [makes_subnet(f"wire-{number}")] * RACERS) == {"won": 1, "AlreadyExists": RACERS - 1}
    settle_all(clouds)
    assert used(clouds[0], "vpcs") == used(clouds[0], "subnets") == ROUNDS


def test_overlapping_blocks_go_to_one(clouds: Sequence[Cloud]) -> None:
    first = clouds[0]
    vpc = make_vpc(first)
    for number in range(ROUNDS):
        blocks = [f"10.0.{number * 16}.0/{prefix}" for prefix in range(21, 25)]
        joining = [joins(make_subnet(first).id, vpc.id, block) for block in blocks]
        making = [makes_subnet(vpc=vpc.id, cidr=block) for block in blocks]
        assert race(clouds, joining + making) == {"won": 1, "InvalidInput": 7}
        settle_all(clouds)
    found, _ = first.subnets.list_page(operator(first), ALL)
    assert len([subnet for subnet in found if subnet.vpc_id == vpc.id]) == ROUNDS


def test_a_subnet_joins_one_vpc(clouds: Sequence[Cloud]) -> None:
    first = clouds[0]
    vpcs = [make_vpc(first).id for _ in range(4)]
    wire = make_subnet(first)
    nic = make_nic(first, wire.id)
    outcome = race(clouds, [joins(wire.id, vpc, "10.0.1.0/24") for vpc in vpcs])
    assert outcome["won"] == 1
    assert set(outcome) <= {"won", "InTransition", "InvalidState"}
    settle_all(clouds)
    joined = first.subnets.get(operator(first), wire.id)
    assert joined.vpc_id in vpcs
    assert first.nics.get(operator(first), nic.id).vpc_id == joined.vpc_id
    assert _claimed(first, joined) == {"10.0.1.1": wire.id, "10.0.1.2": nic.id}


def test_routes_that_come_together_are_all_there(clouds: Sequence[Cloud]) -> None:
    first = clouds[0]
    vpc = make_vpc(first)
    make_subnet(first, vpc.id, "10.0.1.0/24")
    before = first.vpcs.get(operator(first), vpc.id)
    routing = [adds_route(vpc.id, f"10.244.{number}.0/24") for number in range(RACERS)]
    naming = [adds_record(vpc.id, f"host-{number}") for number in range(RACERS)]
    assert race(clouds, routing + naming) == {"won": 2 * RACERS}
    settle_all(clouds)
    spec = spec_of(first, vpc.id)
    assert len(spec.routes) == len(spec.records) == RACERS
    after = first.vpcs.get(operator(first), vpc.id)
    assert after.revision == after.applied_revision == before.revision + 2 * RACERS
    assert spec.revision == after.generation


def test_one_destination_and_one_name_go_to_one(clouds: Sequence[Cloud]) -> None:
    first = clouds[0]
    vpc = make_vpc(first)
    make_subnet(first, vpc.id, "10.0.1.0/24")
    routing = [adds_route(vpc.id, "10.244.0.0/24")] * RACERS
    assert race(clouds, routing) == {"won": 1, "AlreadyExists": RACERS - 1}
    naming = [adds_record(vpc.id, "www")] + [adds_record(vpc.id, "www", "CNAME", value) for value in "abc"]
    assert race(clouds, naming) == {"won": 1, "AlreadyExists": 3}
    settle_all(clouds)
    assert used(first, "routes") == used(first, "dns_records") == 1


def test_tables_that_replace_each_other_do_not_mix(clouds: Sequence[Cloud]) -> None:
    first = clouds[0]
    vpc = make_vpc(first)
    make_subnet(first, vpc.id, "10.0.1.0/24")
    tables = [
        [NewRoute(destination=f"10.244.{number}.0/24", address=f"10.0.1.{10 + racer}") for number in range(5 + racer)]
        for racer in range(4)
    ]
    assert race(clouds, [replaces_routes(vpc.id, table) for table in tables]) == {"won": 4}
    settle_all(clouds)
    routes = spec_of(first, vpc.id).routes
    assert {(route.destination, route.next_hop) for route in routes} in [
        {(wish.destination, wish.address) for wish in table} for table in tables
    ]
    assert used(first, "routes") == len(routes)


def test_one_address_goes_to_one(clouds: Sequence[Cloud]) -> None:
    first = clouds[0]
    subnet = make_subnet(first, make_vpc(first).id, "10.0.1.0/24")
    entries = [
        *[reserves(subnet.id, address="10.0.1.50")] * 3,
        *[reserves(subnet.id, first="10.0.1.45", last="10.0.1.55")] * 3,
        *[makes_nic(subnet.id, "10.0.1.50")] * 2,
    ]
    assert race(clouds, entries) == {"won": 1, "AlreadyExists": 7}
    settle_all(clouds)
    assert len(set(_claimed(first, subnet).values())) == 2, "the gateway's and those of the one who won"


def test_free_addresses_in_a_row_are_nobody_elses(clouds: Sequence[Cloud]) -> None:
    first = clouds[0]
    subnet = make_subnet(first, make_vpc(first).id, "10.0.1.0/25")
    assert race(clouds, [reserves(subnet.id, count=10), makes_nic(subnet.id)] * 6) == {"won": 12}
    settle_all(clouds)
    assert len(_claimed(first, subnet)) == 6 * 10 + 6 + 1


def test_a_vpc_is_deleted_or_lived_in(clouds: Sequence[Cloud]) -> None:
    first = clouds[0]
    for _ in range(ROUNDS):
        vpc = make_vpc(first)
        making = [makes_subnet(vpc=vpc.id, cidr=f"10.0.{number}.0/24") for number in range(4)]
        outcome = race(clouds, [deletes_vpc(vpc.id)] * 2 + making)
        settle_all(clouds)
        found, _ = first.subnets.list_page(operator(first), ALL)
        inside = [subnet for subnet in found if subnet.vpc_id == vpc.id]
        known, _ = first.vpcs.list_page(operator(first), ALL)
        is_there = vpc.id in {each.id for each in known}
        assert is_there == bool(inside)
        assert outcome["won"] == (len(inside) if is_there else 1)


def test_a_subnet_is_deleted_or_lived_on(clouds: Sequence[Cloud]) -> None:
    first = clouds[0]
    vpc = make_vpc(first)
    for number in range(2 * ROUNDS):
        subnet = make_subnet(first, vpc.id, f"10.0.{number}.0/24")
        living = [makes_nic(subnet.id, "none"), makes_nic(subnet.id, f"10.0.{number}.9"), makes_nic(subnet.id)]
        race(clouds, [deletes_subnet(subnet.id), *living, deletes_subnet(subnet.id)])
        settle_all(clouds)
        known = {each.id for each in first.subnets.list_page(operator(first), ALL)[0]}
        nics = first.nics.list_page(operator(first), ALL)[0]
        assert {nic.subnet_id for nic in nics} <= known, "a NIC on a subnet that is gone"


def test_instances_on_a_subnet_that_leaves_have_no_address_there(clouds: Sequence[Cloud]) -> None:
    first = clouds[0]
    vpc = make_vpc(first)
    subnet = make_subnet(first, vpc.id, "10.0.1.0/24")
    outcome = race(clouds, [makes_instance(subnet.id), makes_nic(subnet.id), leaves(subnet.id)] * 2)
    assert outcome["won"] >= 1
    settle_all(clouds)
    nics = first.nics.list_page(operator(first), ALL)[0]
    assert {(nic.vpc_id, nic.address) for nic in nics} <= {(None, None)}
    assert _claimed(first, subnet) == {}


def _claimed(cloud: Cloud, subnet: Subnet) -> dict[str, str]:
    with cloud.store.read() as connection:
        return shared.holders_in(connection, subnets.address_scope(subnet.id))
