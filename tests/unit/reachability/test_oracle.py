from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from iaas.drivers.interface import BLACKHOLE, METADATA_ADDRESS, SERVICE_ADDRESS
from iaas.kernel.errors import InvalidInput, NotFound
from iaas.reachability import (
    AddressIn,
    Direction,
    Element,
    Interface,
    Protocol,
    Question,
    Reason,
    Rule,
    Topology,
    Verdict,
    answer,
)
from tests.unit.reachability.towns import Town, pair_of_machines

POD = "10.244.1.5"
PODS = "10.244.1.0/24"


def lost_at(verdict: Verdict) -> tuple[Direction, Element, str]:
    """Return where the packet died: the last hop, the only one that did not let it pass."""
    assert [hop.passed for hop in verdict.path] == [True] * (len(verdict.path) - 1) + [False]
    last = verdict.path[-1]
    return last.direction, last.element, last.id


def elements(verdict: Verdict, direction: Direction = Direction.FORWARD) -> list[tuple[Element, str]]:
    return [(hop.element, hop.id) for hop in verdict.path if hop.direction == direction]


def test_neighbours_on_a_subnet_need_no_router() -> None:
    town = Town().vpc().machine("a", "vpc/1", "10.0.1.10").machine("b", "vpc/1", "10.0.1.11")
    verdict = town.ask("a", "b")
    assert (verdict.reachable, verdict.reason) == (True, Reason.DELIVERED)
    way = [(Element.INSTANCE, "a"), (Element.NIC, "a"), (Element.SUBNET, "vpc/1"), (Element.INSTANCE, "b")]
    assert elements(verdict) == way


def test_subnets_of_a_vpc_are_routed() -> None:
    verdict = pair_of_machines().ask("a", "b", protocol=Protocol.TCP, port=80)
    assert verdict.reachable
    assert (Element.ROUTER, "vpc") in elements(verdict)
    assert (Element.ROUTER, "vpc") in elements(verdict, Direction.BACK)
    assert "ok   router vpc: connected" in verdict.explain()


def test_equal_addresses_in_two_vpcs_are_different() -> None:
    town = Town().vpc("one").vpc("two")
    for vpc in ("one", "two"):
        town.machine(f"{vpc}-a", f"{vpc}/1", "10.0.1.10").machine(f"{vpc}-b", f"{vpc}/1", "10.0.1.11")
    assert town.ask("one-a", "one-b").reachable
    assert town.ask("one-a", "two-b").reason == Reason.OTHER_VPC
    assert town.ask("one-a", AddressIn("one", "10.0.1.11")).reachable
    assert town.ask("one-a", AddressIn("two", "10.0.1.11")).reason == Reason.OTHER_VPC


def test_an_address_only_the_other_vpc_has_is_in_another_vpc() -> None:
    town = Town().vpc("one").vpc("two").machine("a", "one/1", "10.0.1.10").machine("b", "two/2", "10.0.2.10")
    assert town.ask("a", "b").reason == Reason.OTHER_VPC


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("10.0.1.99", Reason.NOBODY_HAS_IT),
        ("10.0.2.99", Reason.NOBODY_HAS_IT),
        ("10.0.1.0", Reason.NOBODY_HAS_IT),
        ("10.0.1.255", Reason.BROADCAST),
        ("10.0.2.255", Reason.BROADCAST),
        ("10.0.3.10", Reason.NO_ROUTE),
        ("192.0.2.1", Reason.NO_ROUTE),
        ("127.0.0.1", Reason.NOT_UNICAST),
        ("224.0.0.1", Reason.NOT_UNICAST),
        ("255.255.255.255", Reason.NOT_UNICAST),
    ],
)
def test_what_nobody_has_is_unreachable(target: str, reason: Reason) -> None:
    assert pair_of_machines().ask("a", AddressIn("vpc", target)).reason == reason


@pytest.mark.parametrize("address", ["10.0.1.1", "10.0.2.1", METADATA_ADDRESS, SERVICE_ADDRESS])
def test_the_router_answers_pings_at_all_its_addresses(address: str) -> None:
    verdict = pair_of_machines().ask("a", AddressIn("vpc", address))
    assert verdict.reachable
    assert elements(verdict)[-1] == (Element.ROUTER, "vpc")


@pytest.mark.parametrize(
    ("address", "protocol", "port", "is_served"),
    [
        (METADATA_ADDRESS, Protocol.TCP, 80, True),
        (SERVICE_ADDRESS, Protocol.TCP, 80, True),
        (METADATA_ADDRESS, Protocol.TCP, 22, False),
        (METADATA_ADDRESS, Protocol.UDP, 80, False),
        ("10.0.1.1", Protocol.TCP, 80, False),
        ("10.0.1.1", Protocol.TCP, 53, True),
        ("10.0.1.1", Protocol.UDP, 53, True),
    ],
)
def test_a_router_serves_metadata_apis_and_names(address: str, protocol: Protocol, port: int, is_served: bool) -> None:
    verdict = pair_of_machines().ask("a", AddressIn("vpc", address), protocol=protocol, port=port)
    assert verdict.reason == (Reason.DELIVERED if is_served else Reason.NOTHING_LISTENS)


def test_a_guest_reaches_its_own_addresses() -> None:
    assert pair_of_machines().ask("a", "a").reachable


def test_a_stopped_guest_neither_speaks_nor_answers() -> None:
    town = pair_of_machines()
    town.guests["b"] = replace(town.guests["b"], is_running=False)
    verdict = town.ask("a", "b")
    assert (verdict.reason, lost_at(verdict)) == (Reason.NOT_RUNNING, (Direction.FORWARD, Element.SUBNET, "vpc/2"))
    assert lost_at(town.ask("b", "a")) == (Direction.FORWARD, Element.INSTANCE, "b")


def test_a_nic_in_no_guest_neither_speaks_nor_answers() -> None:
    town = pair_of_machines().nic("loose", "vpc/1", "10.0.1.20")
    assert town.ask("a", "loose").reason == Reason.NOT_ATTACHED
    assert town.ask("b", "loose").reason == Reason.NOT_ATTACHED
    assert town.ask("loose", "a").reason == Reason.NOT_ATTACHED


def test_a_nic_without_address_cannot_speak_and_is_no_target() -> None:
    town = pair_of_machines().machine("mute", "vpc/1")
    assert town.ask("mute", "a").reason == Reason.NO_ADDRESS
    assert town.ask("a", "mute").reason == Reason.NO_ADDRESS


def test_who_speaks_for_another_is_stopped_at_his_port() -> None:
    verdict = pair_of_machines().ask("a", "b", source_address="10.0.1.77")
    assert (verdict.reason, lost_at(verdict)) == (Reason.ANTI_SPOOFING, (Direction.FORWARD, Element.NIC, "a"))


def test_reserved_addresses_are_for_all_nics_of_their_owner() -> None:
    town = pair_of_machines().reserve("vpc/1", "10.0.1.100", "10.0.1.110")
    town.nic("theirs", "vpc/1", "10.0.1.30", owner="them").guest("theirs", "theirs")
    verdict = town.ask("a", "b", source_address="10.0.1.105")
    assert verdict.reachable
    assert Rule.RESERVATION in {hop.rule for hop in verdict.path}
    assert town.ask("theirs", "b", source_address="10.0.1.105").reason == Reason.ANTI_SPOOFING
    assert town.ask("a", "b", source_address="10.0.1.111").reason == Reason.ANTI_SPOOFING


def test_a_reserved_address_answers_where_somebody_has_it() -> None:
    town = pair_of_machines().reserve("vpc/2", "10.0.2.100", "10.0.2.100")
    assert town.ask("a", AddressIn("vpc", "10.0.2.100")).reason == Reason.NOBODY_HAS_IT
    town.guest("b", Interface(nic_id="b", addresses=("10.0.2.10", "10.0.2.100")))
    assert town.ask("a", AddressIn("vpc", "10.0.2.100")).reachable
    assert town.ask("a", "b", target_address="10.0.2.100").reachable


def test_who_has_an_address_that_he_may_not_have_is_not_heard() -> None:
    town = pair_of_machines()
    town.guest("b", Interface(nic_id="b", addresses=("10.0.2.10", "10.0.2.66")))
    verdict = town.ask("a", AddressIn("vpc", "10.0.2.66"))
    assert (verdict.reason, lost_at(verdict)) == (Reason.ANTI_SPOOFING, (Direction.FORWARD, Element.SUBNET, "vpc/2"))


def test_two_who_may_answer_leave_it_to_chance() -> None:
    town = pair_of_machines().reserve("vpc/2", "10.0.2.100", "10.0.2.100").nic("c", "vpc/2", "10.0.2.11")
    town.guest("b", Interface(nic_id="b", addresses=("10.0.2.10", "10.0.2.100")))
    town.guest("c", Interface(nic_id="c", addresses=("10.0.2.11", "10.0.2.100")))
    assert town.ask("a", AddressIn("vpc", "10.0.2.100")).reason == Reason.CLAIMED_TWICE


@pytest.mark.parametrize(("mac", "may"), [("52:54:00:aa:00:01", True), ("52:54:00:aa:00:02", False)])
def test_an_allowed_pair_may_ask_for_a_mac_of_its_own(mac: str, may: bool) -> None:
    town = pair_of_machines().nic("node", "vpc/1", pairs=("10.0.1.50/32@52:54:00:aa:00:01",))
    town.guest("pod", Interface(nic_id="node", addresses=("10.0.1.50",), mac=mac))
    assert town.ask("node", "b").reachable is may


def test_pods_bridged_on_to_a_nic_without_address_speak_with_their_own_macs() -> None:
    town = pair_of_machines().reserve("vpc/1", "10.0.1.100", "10.0.1.110").machine("node", "vpc/1")
    for number in (100, 101, 120):
        pod = Interface(nic_id="node", addresses=(f"10.0.1.{number}",), mac=f"52:54:00:bb:00:{number:02x}")
        town.guest(f"pod{number}", pod)
    assert town.ask("node", "b", source_address="10.0.1.100").reachable
    assert town.ask("b", "node", target_address="10.0.1.101").reachable
    assert town.ask("node", "b", source_address="10.0.1.120").reason == Reason.ANTI_SPOOFING
    inside = town.ask("node", "node", source_address="10.0.1.120", target_address="10.0.1.100")
    assert inside.reachable
    assert Rule.BRIDGED_INSIDE in {hop.rule for hop in inside.path}
    assert Element.NIC not in {hop.element for hop in inside.path}


def test_a_node_that_goes_out_to_its_own_pods_is_answered_on_the_way_it_came() -> None:
    """Its pods could reach it inside; they know its other NIC by then, and what that lets through counts."""
    town = Town().vpc().reserve("vpc/1", "10.0.1.100", "10.0.1.110").nic("a", "vpc/1", "10.0.1.10").nic("b", "vpc/1")
    town.guest("node", "a", "b")
    town.guest("pod", Interface(nic_id="b", addresses=("10.0.1.100",), mac="52:54:00:bb:00:01"))
    verdict = town.ask("a", "b", target_address="10.0.1.100", protocol=Protocol.UDP, port=67)
    assert verdict.reason == Reason.NO_RETURN_PATH
    assert lost_at(verdict) == (Direction.BACK, Element.NIC, "b")
    assert town.ask("a", "b", target_address="10.0.1.100").reachable
    asked_inside = town.ask("b", "a", source_address="10.0.1.100")
    assert asked_inside.reachable
    assert Rule.BRIDGED_INSIDE in {hop.rule for hop in asked_inside.path}


def routed_pods(**node: Any) -> Town:
    """Return a VPC that routes PODS to ``node``, which has one of them."""
    town = Town().vpc(routes={PODS: "10.0.1.20"}).machine("a", "vpc/2", "10.0.2.10")
    town.nic("node", "vpc/1", "10.0.1.20", pairs=(PODS,))
    return town.guest("node", Interface(nic_id="node", addresses=("10.0.1.20", POD)), **node)


def test_a_route_leads_to_the_pods_of_a_node() -> None:
    verdict = routed_pods().ask("a", AddressIn("vpc", POD))
    assert verdict.reachable
    assert (Element.ROUTE, PODS) in elements(verdict)
    assert Rule.ALLOWED_PAIR in {hop.rule for hop in verdict.path}
    back = routed_pods().ask("node", "a", source_address=POD)
    assert back.reachable


def test_what_is_routed_to_a_node_reaches_the_networks_inside_it() -> None:
    town = Town().vpc(routes={PODS: "10.0.1.20"}).machine("a", "vpc/2", "10.0.2.10")
    town.machine("node", "vpc/1", "10.0.1.20", pairs=(PODS,), forwards=True, behind=(PODS,))
    verdict = town.ask("a", AddressIn("vpc", POD))
    assert verdict.reachable
    assert Rule.BEHIND in {hop.rule for hop in verdict.path}
    assert town.ask("node", AddressIn("vpc", POD)).reachable
    assert town.ask("a", "node", target_address=POD).reachable
    town.guests["node"] = replace(town.guests["node"], forwards=False)
    assert town.ask("a", AddressIn("vpc", POD)).reason == Reason.NOT_FORWARDING
    town.machine("node", "vpc/1", "10.0.1.20", forwards=True, behind=(PODS,))
    assert town.ask("a", AddressIn("vpc", POD)).reason == Reason.NO_RETURN_PATH


def test_neighbours_do_not_find_what_is_inside_a_node() -> None:
    """It answers for its own addresses only."""
    town = Town().vpc().machine("a", "vpc/1", "10.0.1.10")
    town.machine("node", "vpc/1", "10.0.1.20", pairs=("10.0.1.64/28",), forwards=True, behind=("10.0.1.64/28",))
    assert town.ask("a", AddressIn("vpc", "10.0.1.65")).reason == Reason.NOBODY_HAS_IT


def test_pods_whose_node_may_not_speak_for_them_get_no_answer_out() -> None:
    town = routed_pods()
    town.ports["node"] = replace(town.ports["node"], allowed_pairs=())
    verdict = town.ask("a", AddressIn("vpc", POD))
    assert verdict.reason == Reason.NO_RETURN_PATH
    assert lost_at(verdict) == (Direction.BACK, Element.NIC, "node")


def test_without_a_route_pods_can_speak_and_hear_nothing() -> None:
    town = routed_pods()
    town.vpcs["vpc"] = replace(town.vpcs["vpc"], routes=())
    verdict = town.ask("node", "a", source_address=POD)
    assert verdict.reason == Reason.NO_RETURN_PATH
    assert lost_at(verdict) == (Direction.BACK, Element.ROUTER, "vpc")


def test_a_next_hop_must_forward() -> None:
    verdict = routed_pods().ask("a", AddressIn("vpc", "10.244.1.77"))
    assert (verdict.reason, lost_at(verdict)) == (
        Reason.NOT_FORWARDING,
        (Direction.FORWARD, Element.INSTANCE, "node"),
    )


def test_a_next_hop_that_sends_back_what_it_gets_is_a_loop() -> None:
    town = routed_pods(forwards=True)
    town.nic("node", "vpc/1", "10.0.1.20", pairs=(PODS, "10.0.2.0/24"))
    verdict = town.ask("a", AddressIn("vpc", "10.244.1.77"))
    assert (verdict.reason, lost_at(verdict)) == (Reason.ROUTE_LOOP, (Direction.FORWARD, Element.ROUTER, "vpc"))


def test_a_next_hop_may_forward_only_for_whom_it_may_speak() -> None:
    town = Town().vpc(routes={"10.0.2.10/32": "10.0.1.20"})
    town.machine("a", "vpc/1", "10.0.1.10").machine("b", "vpc/2", "10.0.2.10")
    town.nic("n1", "vpc/1", "10.0.1.20").nic("n2", "vpc/2", "10.0.2.20", pairs=("10.0.1.0/24",))
    town.guest("n", "n1", "n2", forwards=True)
    verdict = town.ask("a", "b")
    assert verdict.reachable
    assert [each for each in elements(verdict) if each[0] == Element.NIC] == [(Element.NIC, "a"), (Element.NIC, "n2")]
    town.ports["n2"] = replace(town.ports["n2"], allowed_pairs=())
    verdict = town.ask("a", "b")
    assert (verdict.reason, lost_at(verdict)) == (Reason.ANTI_SPOOFING, (Direction.FORWARD, Element.NIC, "n2"))


def test_a_router_sends_back_out_where_the_next_hop_is_the_senders_neighbour() -> None:
    town = routed_pods()
    town.machine("c", "vpc/1", "10.0.1.10")
    assert town.ask("c", AddressIn("vpc", POD)).reachable


def test_neighbours_speak_directly_whatever_the_vpc_routes() -> None:
    town = Town().vpc(routes={"10.0.1.11/32": BLACKHOLE, "10.0.1.0/24": BLACKHOLE})
    town.machine("a", "vpc/1", "10.0.1.10").machine("b", "vpc/1", "10.0.1.11").machine("c", "vpc/2", "10.0.2.10")
    assert town.ask("a", "b").reachable
    assert town.ask("c", "a").reachable  # a subnet's own block is never taken over
    verdict = town.ask("c", "b")
    assert (verdict.reason, lost_at(verdict)) == (
        Reason.BLACKHOLE,
        (Direction.FORWARD, Element.ROUTE, "10.0.1.11/32"),
    )
    assert town.ask("b", "c").reason == Reason.NO_RETURN_PATH


@pytest.mark.parametrize(
    ("next_hop", "reason"),
    [
        ("10.0.1.66", Reason.NOBODY_HAS_IT),
        ("192.0.2.1", Reason.NEXT_HOP_NOT_ON_LINK),
        ("10.0.1.1", Reason.NEXT_HOP_NOT_ON_LINK),
        (BLACKHOLE, Reason.BLACKHOLE),
    ],
)
def test_routes_to_nowhere(next_hop: str, reason: Reason) -> None:
    town = pair_of_machines()
    town.vpc(routes={PODS: next_hop})
    assert town.ask("a", AddressIn("vpc", POD)).reason == reason


def test_the_most_specific_route_wins() -> None:
    town = routed_pods()
    town.vpc(routes={"0.0.0.0/0": BLACKHOLE, PODS: "10.0.1.20", "10.244.0.0/16": BLACKHOLE})
    assert town.ask("a", AddressIn("vpc", POD)).reachable
    town.vpc(routes={PODS: "10.0.1.20", f"{POD}/32": BLACKHOLE})
    assert town.ask("a", AddressIn("vpc", POD)).reason == Reason.BLACKHOLE


def test_routes_inside_guests_lead_by_neighbours() -> None:
    town = Town().vpc().machine("a", "vpc/1", "10.0.1.10", routes={PODS: "10.0.1.20"})
    town.nic("node", "vpc/1", "10.0.1.20", pairs=(PODS,))
    town.guest("node", Interface(nic_id="node", addresses=("10.0.1.20", POD)))
    verdict = town.ask("a", AddressIn("vpc", POD))
    assert verdict.reachable
    assert verdict.path[0].rule == Rule.GUEST_ROUTE
    assert (Element.ROUTER, "vpc") not in elements(verdict)


def test_a_second_nic_answers_by_the_first_and_is_stopped_there() -> None:
    town = pair_of_machines().nic("x1", "vpc/1", "10.0.1.20").nic("x2", "vpc/2", "10.0.2.20").guest("x", "x1", "x2")
    assert town.ask("b", "x2").reachable
    verdict = town.ask("a", "x2")
    assert verdict.reason == Reason.NO_RETURN_PATH
    assert lost_at(verdict) == (Direction.BACK, Element.NIC, "x1")
    allowed = town.nic("x1", "vpc/1", "10.0.1.20", pairs=("10.0.2.20/32",))
    assert allowed.ask("a", "x2").reachable


def test_of_two_nics_on_one_subnet_the_first_speaks() -> None:
    town = pair_of_machines().nic("x1", "vpc/1", "10.0.1.20").nic("x2", "vpc/1", "10.0.1.21").guest("x", "x1", "x2")
    assert town.ask("a", "x1").reachable
    assert lost_at(town.ask("a", "x2")) == (Direction.BACK, Element.NIC, "x1")


def test_a_guest_with_a_foot_in_two_vpcs_joins_them_if_it_forwards_and_may() -> None:
    town = Town().vpc("one", routes={"10.9.0.0/16": "10.0.1.20"}).vpc("two").machine("a", "one/1", "10.0.1.10")
    town.nic("g1", "one/1", "10.0.1.20").nic("g2", "two/2", "10.0.2.20", pairs=("10.0.1.10/32",))
    town.nic("b", "two/2", "10.0.2.10", pairs=("10.9.0.1/32",))
    town.guest("b", Interface(nic_id="b", addresses=("10.0.2.10", "10.9.0.1")), routes={"10.0.1.0/24": "10.0.2.20"})
    town.guest("g", "g1", "g2", forwards=True, routes={"10.9.0.0/16": "10.0.2.10"})
    assert town.ask("a", "b", target_address="10.9.0.1").reason == Reason.NO_RETURN_PATH  # g1 may not speak for it
    town.nic("g1", "one/1", "10.0.1.20", pairs=("10.9.0.0/16",))
    assert town.ask("a", "b", target_address="10.9.0.1").reachable
    town.guest("g", "g1", "g2", forwards=False, routes={"10.9.0.0/16": "10.0.2.10"})
    assert town.ask("a", "b", target_address="10.9.0.1").reason == Reason.OTHER_VPC


def test_who_has_the_gateways_address_hears_nothing_from_it() -> None:
    town = pair_of_machines()
    town.guest("a", Interface(nic_id="a", addresses=("10.0.1.10", "10.0.1.1")))
    assert town.ask("b", "a").reason == Reason.MARTIAN_SOURCE
    assert town.ask("a", "b").reason == Reason.NO_ROUTE


def test_what_comes_with_its_own_address_is_dropped_by_a_guest() -> None:
    town = Town().vpc(routes={PODS: "10.0.1.10"}).machine("a", "vpc/1", "10.0.1.10")
    verdict = town.ask("a", AddressIn("vpc", POD))
    assert (verdict.reason, lost_at(verdict)) == (Reason.MARTIAN_SOURCE, (Direction.FORWARD, Element.INSTANCE, "a"))


def test_a_bare_subnet_checks_macs_only() -> None:
    town = Town().bare().nic("a", "bare").nic("b", "bare")
    town.guest("a", Interface(nic_id="a", addresses=("192.0.2.1/24",)))
    town.guest("b", Interface(nic_id="b", addresses=("192.0.2.2/24",)))
    verdict = town.ask("a", "b")
    assert verdict.reachable
    assert Rule.BARE_SUBNET in {hop.rule for hop in verdict.path}
    town.guest("b", Interface(nic_id="b", addresses=("192.0.2.2/24",), mac="52:54:00:cc:00:01"))
    assert town.ask("a", "b").reason == Reason.ANTI_SPOOFING
    town.reserve("bare", "192.0.2.2", "192.0.2.2")
    assert town.ask("a", "b").reachable


def test_a_guest_in_a_vpc_is_no_dhcp_server() -> None:
    town = pair_of_machines()
    verdict = town.ask("a", "b", protocol=Protocol.UDP, port=67)
    assert (verdict.reason, lost_at(verdict)) == (Reason.NO_RETURN_PATH, (Direction.BACK, Element.NIC, "b"))
    assert verdict.path[-1].rule == Reason.DHCP_SERVER
    assert town.ask("a", "b", protocol=Protocol.TCP, port=67).reachable


def test_an_address_of_another_block_is_nobodys() -> None:
    town = pair_of_machines().machine("moved", "vpc/1", "10.0.9.10")
    assert town.ask("moved", "a").reason == Reason.NO_ADDRESS
    assert town.ask("a", "moved").reason == Reason.NO_ADDRESS


def test_a_source_can_be_named_by_its_address() -> None:
    town = pair_of_machines()
    assert town.ask(AddressIn("vpc", "10.0.1.10"), "b").reachable
    assert town.ask(AddressIn("vpc", "10.0.1.99"), "b").reason == Reason.NOBODY_HAS_IT


@pytest.mark.parametrize(
    ("source", "target", "more"),
    [
        ("nobody", "b", {}),
        ("a", "nobody", {}),
        (AddressIn("nowhere", "10.0.1.10"), "b", {}),
    ],
)
def test_unknown_places_are_not_found(source: Any, target: Any, more: dict[str, Any]) -> None:
    with pytest.raises(NotFound):
        pair_of_machines().ask(source, target, **more)


@pytest.mark.parametrize(
    "more",
    [
        {"protocol": Protocol.TCP},
        {"protocol": Protocol.UDP, "port": 0},
        {"protocol": Protocol.UDP, "port": 65536},
        {"protocol": Protocol.ICMP, "port": 80},
        {"source_address": "10.0.1.300"},
        {"target_address": "b"},
    ],
)
def test_questions_without_sense_are_refused(more: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        pair_of_machines().ask("a", "b", **more)


def test_a_topology_that_names_what_it_does_not_have_is_refused() -> None:
    town = pair_of_machines()
    for broken in (
        replace(town.topology(), vpcs=()),
        replace(town.topology(), subnets=()),
        replace(town.topology(), ports=()),
    ):
        with pytest.raises(NotFound):
            answer(broken, Question(source="a", target="b"))
    with pytest.raises(NotFound):
        answer(Topology(), Question(source="a", target="b"))
