"""What must hold in any world. Worlds are drawn by seed: see ``tests.reachability.worlds``."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from iaas.drivers.interface import ReservationSpec
from iaas.reachability import (
    Direction,
    Element,
    Guest,
    Interface,
    Oracle,
    Question,
    Reason,
    Rule,
    Topology,
    Verdict,
)
from tests.reachability.worlds import OWNERS, World, random_world

CHOSEN = settings(
    max_examples=40,
    deadline=None,  # the machine that runs it is shared
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
QUESTIONS = 40


def worlds(*, vpcs: int = 3) -> st.SearchStrategy[World]:
    seeds = st.integers(0, 2**32)
    return st.builds(
        lambda seed, count: random_world(seed, vpcs=count, questions=QUESTIONS), seeds, st.integers(1, vpcs)
    )


def verdicts(topology: Topology, questions: tuple[Question, ...]) -> list[Verdict]:
    oracle = Oracle(topology)
    return [oracle.answer(question) for question in questions]


def with_guest(topology: Topology, changed: Guest) -> Topology:
    guests = tuple(changed if each.guest_id == changed.guest_id else each for each in topology.guests)
    return replace(topology, guests=guests)


def test_worlds_are_full_of_what_goes_wrong() -> None:
    """Else the proof against packets would prove little."""
    met: set[Rule | Reason] = set()
    for seed in range(60):
        world = random_world(seed, vpcs=6, questions=160)
        for verdict in verdicts(world.topology, world.questions):
            met |= {verdict.reason, *(hop.rule for hop in verdict.path)}
    assert (set(Rule) | set(Reason)) - met == {Reason.NOT_UNICAST, Rule.BEHIND}


@CHOSEN
@given(worlds())
def test_a_path_ends_where_the_packet_does_and_nowhere_before(world: World) -> None:
    for verdict in verdicts(world.topology, world.questions):
        lost = [hop for hop in verdict.path if not hop.passed]
        if verdict.reachable:
            assert lost == []
            assert verdict.reason == Reason.DELIVERED
        elif verdict.reason not in (Reason.OTHER_VPC, Reason.OTHER_GUEST, Reason.NO_RETURN_PATH):
            assert lost == [verdict.path[-1]]
            assert lost[0].rule == verdict.reason
        else:
            assert len(lost) <= 1
        back = [hop.direction for hop in verdict.path]
        assert back == sorted(back, key=lambda each: each == Direction.BACK)


@CHOSEN
@given(worlds())
def test_reachability_is_symmetric_but_for_routers_services(world: World) -> None:
    oracle = Oracle(world.topology)
    for question in world.questions:
        if isinstance(question.source, str) and isinstance(question.target, str) and oracle.answer(question).reachable:
            back = replace(
                question,
                source=question.target,
                source_address=question.target_address,
                target=question.source,
                target_address=question.source_address,
            )
            assert oracle.answer(back).reachable, oracle.answer(back).explain()


@CHOSEN
@given(worlds())
def test_vpcs_that_no_guest_joins_do_not_matter_to_each_other(world: World) -> None:
    topology = world.topology
    vpc_of_subnet = {subnet.subnet_id: subnet.vpc_id for subnet in topology.subnets}
    vpc_of_nic = {port.nic_id: vpc_of_subnet[port.subnet_id] for port in topology.ports}
    feet = [{vpc_of_nic[each.nic_id] for each in guest.interfaces} for guest in topology.guests]
    for vpc in topology.vpcs:
        if any(vpc.vpc_id in each and len(each) > 1 for each in feet):
            continue
        subnets = tuple(each for each in topology.subnets if each.vpc_id == vpc.vpc_id)
        alone = Topology(
            vpcs=(vpc,),
            subnets=subnets,
            ports=tuple(each for each in topology.ports if vpc_of_nic[each.nic_id] == vpc.vpc_id),
            guests=tuple(guest for guest, each in zip(topology.guests, feet, strict=True) if vpc.vpc_id in each),
        )
        together, single = Oracle(topology), Oracle(alone)
        for question in world.questions:
            source, target = question.source, question.target
            if not isinstance(source, str) or vpc_of_nic[source] != vpc.vpc_id:
                continue
            target_vpc = vpc_of_nic[target] if isinstance(target, str) else target.vpc_id
            if target_vpc == vpc.vpc_id:
                assert together.answer(question) == single.answer(question)
            else:
                assert not together.answer(question).reachable


@CHOSEN
@given(worlds())
def test_what_is_reserved_more_is_lost_to_nobody(world: World) -> None:
    """Only who now answers, where nobody was heard, can make an address ambiguous."""
    first, last = "0.0.0.0", "255.255.255.255"  # noqa: S104 - the ends of a range, nothing is bound
    everything = tuple(ReservationSpec(owner=owner, first=first, last=last) for owner in OWNERS)
    subnets = tuple(replace(each, reservations=everything) for each in world.topology.subnets)
    before = verdicts(world.topology, world.questions)
    after = verdicts(replace(world.topology, subnets=subnets), world.questions)
    for one, other in zip(before, after, strict=True):
        assert other.reachable or not one.reachable or _is_ambiguous(other)
        assert not any(hop.rule == Reason.ANTI_SPOOFING for hop in other.path)


def _is_ambiguous(verdict: Verdict) -> bool:
    return any(hop.rule == Reason.CLAIMED_TWICE for hop in verdict.path)


def _addresses(topology: Topology, interface: Interface) -> tuple[str, ...]:
    own = next(port.addresses for port in topology.ports if port.nic_id == interface.nic_id)
    return own if interface.addresses is None else interface.addresses


@CHOSEN
@given(worlds())
def test_who_takes_an_address_for_a_question_is_as_who_had_it_before(world: World) -> None:
    oracle = Oracle(world.topology)
    for guest in world.topology.guests:
        if not guest.is_running or not guest.interfaces:
            continue
        interface = guest.interfaces[0]
        shared = [each for each in world.topology.guests for plug in each.interfaces if plug.nic_id == interface.nic_id]
        if len(shared) > 1 or interface.addresses is None:
            continue
        taken = interface.addresses[-1]
        if any(taken in _addresses(world.topology, each) for each in guest.interfaces[1:]):
            continue  # it has it without that interface
        less = Interface(nic_id=interface.nic_id, addresses=interface.addresses[:-1], mac=interface.mac)
        poorer = with_guest(world.topology, replace(guest, interfaces=(less, *guest.interfaces[1:])))
        for question in world.questions:
            if question.source == interface.nic_id and question.source_address == taken:
                assert Oracle(poorer).answer(question) == oracle.answer(question)


@CHOSEN
@given(worlds(), st.data())
def test_nobody_reaches_what_is_stopped(world: World, data: st.DataObject) -> None:
    assume(world.topology.guests)
    guest = data.draw(st.sampled_from(world.topology.guests))
    stopped = Oracle(with_guest(world.topology, replace(guest, is_running=False)))
    nics = {each.nic_id for each in guest.interfaces if each.mac is None}
    pods = {each.nic_id for other in world.topology.guests for each in other.interfaces if each.mac is not None}
    for question in world.questions:
        if question.source in nics - pods or question.target in nics - pods:
            assert not stopped.answer(question).reachable


@CHOSEN
@given(worlds())
def test_without_routes_no_packet_meets_one_and_none_loops(world: World) -> None:
    topology = replace(
        world.topology,
        vpcs=tuple(replace(each, routes=()) for each in world.topology.vpcs),
        guests=tuple(replace(each, routes=()) for each in world.topology.guests),
    )
    for verdict in verdicts(topology, world.questions):
        assert not any(hop.element == Element.ROUTE for hop in verdict.path)
        assert not any(hop.rule == Reason.ROUTE_LOOP for hop in verdict.path)
