"""VPCs, subnets, NICs and what belongs to them, by the SDK, against the real application."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from iaas.client import (
    NIC,
    NO_ADDRESS,
    AddressIn,
    AllowedPair,
    Client,
    Conflict,
    DHCPOptions,
    DNSForwarder,
    InUse,
    InvalidInput,
    InvalidState,
    NewRoute,
    NICSpec,
    NotFound,
    PreconditionFailed,
)
from iaas.cloud import Cloud
from tests.factories import TOKEN, open_cloud
from tests.unit.client.fake_cloud import ENDPOINT
from tests.unit.client.simulated import SimulatedNetwork


@pytest.fixture
def simulated() -> Iterator[Cloud]:
    with open_cloud() as cloud:
        yield cloud


@pytest.fixture
def client(simulated: Cloud) -> Iterator[Client]:
    with Client(ENDPOINT, TOKEN, http=SimulatedNetwork(simulated)) as made:
        yield made


@pytest.fixture
def shop(client: Client) -> Client:
    """The VPC "shop" with the subnet "web"."""
    client.vpcs.create(cidr="10.0.0.0/16", name="shop").wait()
    client.subnets.create(name="web", vpc="shop", cidr="10.0.1.0/24").wait()
    return client


def machine(client: Client, name: str, *nics: NICSpec) -> NIC:
    """Create an instance and return its first NIC."""
    made = client.instances.create(kind="vm", image="tiny", flavor="nano", name=name, nics=nics).wait()
    return client.nics.get(made.nics[0].id)


def test_vpcs(client: Client) -> None:
    options = DHCPOptions(dns_servers=("10.0.0.9",), lease_s=600)
    forwarder = DNSForwarder(domain="cluster.local", servers=("10.0.0.10",))
    action = client.vpcs.create(
        cidr="10.0.0.0/16", name="shop", dhcp_options=options, forwarders=[forwarder], labels={"a": "b"}
    )
    assert (action.resource.status, action.job.action) == ("pending", "vpc.create")
    vpc = action.wait()
    assert (vpc.status, vpc.dhcp_options, vpc.forwarders, vpc.labels) == ("active", options, (forwarder,), {"a": "b"})

    renamed = vpc.update(name="mall", labels={"a": None})
    assert (renamed.job, renamed.wait().name, renamed.resource.labels) == (None, "mall", {})
    changed = renamed.resource.update(dhcp_options=replace(options, lease_s=900), forwarders=[])
    assert changed.job is not None
    assert changed.job.action == "vpc.apply"
    assert (changed.wait().dhcp_options.lease_s, changed.wait().forwarders) == (900, ())
    with pytest.raises(PreconditionFailed):
        vpc.update(name="late", only_if_unchanged=True)
    assert client.vpcs.find("mall") is not None
    gone = vpc.delete()
    assert gone.wait().transition == "deleting"
    with pytest.raises(NotFound):
        vpc.refresh()


def test_subnets(shop: Client) -> None:
    web = shop.subnets.get("web")
    assert (web.cidr, web.gateway, web.status, web.is_shared) == ("10.0.1.0/24", "10.0.1.1", "active", False)
    assert {each.name for each in shop.subnets.list(vpc="shop")} == {"web"}
    bare = shop.subnets.create(name="bare", mtu=1400).wait()
    assert (bare.vpc_id, bare.mtu) == (None, 1400)
    joined = bare.join("shop", "10.0.2.0/24", gateway="10.0.2.254").wait()
    assert (joined.vpc_id, joined.gateway) == (web.vpc_id, "10.0.2.254")
    assert joined.update(dhcp_first="10.0.2.100").wait().dhcp_first == "10.0.2.100"
    nic = shop.nics.create(subnet="bare")
    with pytest.raises(InUse) as caught:
        joined.leave()
    assert [each.id for each in caught.value.blockers] == [nic.id]
    assert joined.leave(force=True).wait().cidr is None
    nic.delete()
    bare.delete().wait()
    with pytest.raises(NotFound):
        bare.refresh()


def test_a_nic_that_moves(shop: Client) -> None:
    pair = AllowedPair(cidr="10.244.0.0/24")
    nic = shop.nics.create(
        subnet="web", name="spare", address="10.0.1.50", secondary_addresses=["10.0.1.51"], allowed_pairs=[pair]
    )
    assert (nic.status, nic.address, nic.secondary_addresses, nic.allowed_pairs) == (
        "available",
        "10.0.1.50",
        ("10.0.1.51",),
        (pair,),
    )
    with pytest.raises(InvalidState):
        nic.statistics()
    first = machine(shop, "a", NICSpec(subnet="web"))
    attached = nic.attach(shop.instances.get("a")).wait()
    assert (attached.status, attached.instance_id, attached.device_index) == ("in_use", first.instance_id, 1)
    assert attached.statistics().sent_bytes >= 0
    with pytest.raises(InUse):
        attached.delete()
    changed = attached.update(allowed_pairs=[], secondary_addresses=[])
    assert changed.job is not None
    assert (changed.wait().allowed_pairs, changed.wait().secondary_addresses) == ((), ())
    assert changed.resource.update(name="other").job is None
    assert attached.detach().wait().status == "available"
    nic.delete()
    with pytest.raises(NotFound):
        nic.refresh()


def test_nics_of_instances(shop: Client) -> None:
    shop.nics.create(subnet="web", name="spare")
    specs = (NICSpec(subnet="web", address="10.0.1.10"), NICSpec(nic="spare"), NICSpec(address=NO_ADDRESS))
    made = machine(shop, "web-1", *specs)
    nics = shop.instances.get("web-1").nics
    assert [nic.address for nic in nics][::2] == ["10.0.1.10", None]
    assert nics[1].subnet_id == made.subnet_id
    assert {nic.id for nic in shop.nics.iterate(instance="web-1")} == {nic.id for nic in nics}
    hermit = shop.instances.create(kind="vm", image="tiny", flavor="nano", nics=(), metadata_labels=True).wait()
    assert (hermit.nics, hermit.metadata_labels) == ((), True)
    assert len(shop.instances.create(kind="vm", image="tiny", flavor="nano").wait().nics) == 1


def test_routes(shop: Client) -> None:
    machine(shop, "gate", NICSpec(subnet="web", address="10.0.1.10"))
    routes = shop.vpcs.get("shop").routes
    added = routes.add("10.244.0.0/24", instance="gate")
    assert added.job.action == "vpc.apply"
    route = added.wait()
    assert (route.next_hop, route.target.type) == ("10.0.1.10", "instance")
    many = routes.add_many([NewRoute(destination=f"10.244.{n}.0/24", address="10.0.1.10") for n in range(1, 4)])
    assert [each.target.address for each in many.wait()] == ["10.0.1.10"] * 3
    with pytest.raises(Conflict):
        routes.add("10.244.0.0/24", instance="gate")
    assert len({each.id for each in routes.iterate(page_size=2)}) == 4
    assert routes.get(route.id) == route
    assert route.delete().wait() == route
    table = shop.vpcs.routes_of("shop")
    assert [
        each.destination for each in table.replace([NewRoute(destination="10.9.0.0/16", nic="none")] * 0).wait()
    ] == []
    assert table.list().items == ()
    with pytest.raises(NotFound):
        route.refresh()
    with pytest.raises(NotFound, match="vpc"):
        shop.vpcs.routes_of("").list()


def test_dns_records_and_reservations(shop: Client) -> None:
    record = shop.vpcs.get("shop").dns_records.add("db", ["10.0.1.9"], ttl_s=5).wait()
    assert (record.name, record.type, record.values, record.ttl_s) == ("db", "A", ("10.0.1.9",), 5)
    assert shop.vpcs.dns_records_of("shop").find("db") == record
    record.delete().wait()
    with pytest.raises(NotFound):
        record.refresh()

    pods = shop.address_reservations.create(subnet="web", name="pods", count=50).wait()
    assert int(pods.last.rpartition(".")[2]) - int(pods.first.rpartition(".")[2]) == 49
    with pytest.raises(Conflict):
        shop.nics.create(subnet="web", address=pods.first)
    assert pods.update(name="vips").name == "vips"
    pods.delete().wait()
    assert shop.nics.create(subnet="web", address=pods.first).address == pods.first


def test_reachability(shop: Client) -> None:
    a, b = (machine(shop, name, NICSpec(subnet="web")) for name in ("a", "b"))
    assert a.address is not None
    verdict = shop.reachability.check(a, b.id, port=80)
    assert (verdict.reachable, verdict.reason) == (True, "delivered")
    assert {hop.direction for hop in verdict.path} == {"forward", "back"}
    verdict = shop.reachability.check(
        AddressIn(vpc="shop", address=a.address), AddressIn(vpc="shop", address="10.0.1.99")
    )
    assert (verdict.reachable, verdict.path[-1].passed) == (False, False)
    assert verdict.raw["reason"] == verdict.reason
    assert not shop.reachability.check(a, b, source_address="10.0.1.99").reachable
    with pytest.raises(InvalidInput) as caught:
        shop.reachability.check(a, b, protocol="udp")
    assert caught.value.errors[0].field == "port"
