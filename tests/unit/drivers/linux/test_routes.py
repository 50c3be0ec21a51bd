"""Which table a VPC's routes come to."""

from __future__ import annotations

from iaas.drivers.interface import BLACKHOLE, RouteSpec, SubnetSpec, VPCSpec
from iaas.drivers.linux.routes import TableRoute, table_of

SUBNET = SubnetSpec(subnet_id="net-aaaaaaaa", vpc_id="vpc-aaaaaaaa", cidr="10.0.1.0/24", gateway="10.0.1.1")
LEG = TableRoute("10.0.1.0/24", "gwaaaaaaaa", source="10.0.1.1")


def table(destination: str, next_hop: str, *subnets: SubnetSpec) -> list[TableRoute]:
    route = RouteSpec(destination=destination, next_hop=next_hop)
    return table_of(VPCSpec(vpc_id="vpc-aaaaaaaa", cidr="10.0.0.0/16", routes=(route,)), subnets)


def test_a_route_goes_by_the_leg_of_its_next_hop() -> None:
    assert table("10.244.0.0/24", "10.0.1.9", SUBNET) == [LEG, TableRoute("10.244.0.0/24", LEG.link, "10.0.1.9")]


def test_a_route_to_nobody_refuses() -> None:
    for next_hop in (BLACKHOLE, "10.0.2.9", "10.0.1.1", "10.0.1.0", "10.0.1.255"):
        assert table("10.244.0.0/24", next_hop, SUBNET) == [LEG, TableRoute("10.244.0.0/24")]
    assert table("10.244.0.0/24", "10.0.1.9") == [TableRoute("10.244.0.0/24")]


def test_a_subnets_own_block_goes_nowhere_else() -> None:
    assert table("10.0.1.0/24", "10.0.1.9", SUBNET) == [LEG]


def test_routes_as_commands() -> None:
    assert LEG.command() == "10.0.1.0/24 dev gwaaaaaaaa scope link src 10.0.1.1"
    assert TableRoute("10.244.0.0/24", "gwaaaaaaaa", "10.0.1.9").command() == (
        "10.244.0.0/24 via 10.0.1.9 dev gwaaaaaaaa onlink"
    )
    assert TableRoute("10.244.0.0/24").command() == "unreachable 10.244.0.0/24"
