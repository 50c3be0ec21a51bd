"""Who reaches whom, at the level of the service: that the oracle is told what the rows say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from iaas.cloud import Cloud
from iaas.drivers.interface import NetworkCapability, ProbeReport, ProbeSpec, Sighting
from iaas.kernel.errors import InvalidInput
from iaas.reachability import Protocol, Reason, Rule, Verdict
from iaas.resources.instances import Instance
from iaas.resources.networks import NewNIC, NewRoute, Pair
from iaas.services.reachability import Answer
from tests.factories import create, open_cloud, operator, principal_in, settle
from tests.unit.services.networks import done, field_of, make_nic, make_subnet, make_vpc

PODS = "10.244.1.0/24"


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    """A cloud with a VPC of two subnets, ``web`` 10.0.1.0/24 and ``db`` 10.0.2.0/24."""
    with open_cloud() as opened:
        make_vpc(opened, name="prod")
        make_subnet(opened, "prod", "10.0.1.0/24", name="web")
        make_subnet(opened, "prod", "10.0.2.0/24", name="db")
        yield opened
        settle(opened)


def machine(cloud: Cloud, subnet: str, address: str, **nic: Any) -> Instance:
    """Return an instance that runs, with one NIC."""
    return create(cloud, nics=(NewNIC(subnet=subnet, address=address, **nic),))


def ask(cloud: Cloud, source: Any, target: Any, **more: Any) -> Verdict:
    answer = cloud.reachability.ask(operator(cloud), source=source, target=target, **more)
    assert answer.observed is None  # nothing can be sent in the simulation
    assert (answer.reachable, answer.reason) == (answer.verdict.reachable, answer.verdict.reason.value)
    return answer.verdict


def test_instances_of_two_subnets_reach_each_other(cloud: Cloud) -> None:
    [web], [db] = machine(cloud, "web", "10.0.1.10").nics, machine(cloud, "db", "10.0.2.10").nics
    assert ask(cloud, web.id, db.id, protocol=Protocol.TCP, port=5432).reachable
    assert ask(cloud, web.id, ("prod", "10.0.2.10")).reachable
    assert ask(cloud, ("prod", "10.0.1.10"), db.id).reachable
    assert ask(cloud, web.id, ("prod", "10.0.2.11")).reason == Reason.NOBODY_HAS_IT
    assert ask(cloud, web.id, db.id, source_address="10.0.1.11").reason == Reason.ANTI_SPOOFING


def test_two_vpcs_do_not_meet(cloud: Cloud) -> None:
    make_vpc(cloud, name="other")
    make_subnet(cloud, "other", "10.0.1.0/24", name="there")
    [here], [there] = machine(cloud, "web", "10.0.1.10").nics, machine(cloud, "there", "10.0.1.11").nics
    assert ask(cloud, here.id, there.id).reason == Reason.OTHER_VPC


def test_a_nic_in_no_instance_does_not_answer(cloud: Cloud) -> None:
    [web] = machine(cloud, "web", "10.0.1.10").nics
    loose = make_nic(cloud, "db", address="10.0.2.20")
    assert ask(cloud, web.id, loose.id).reason == Reason.NOT_ATTACHED


def test_a_stopped_instance_does_not_answer(cloud: Cloud) -> None:
    [web], db = machine(cloud, "web", "10.0.1.10").nics, machine(cloud, "db", "10.0.2.10")
    cloud.instances.stop(operator(cloud), db.id)
    settle(cloud)
    assert ask(cloud, web.id, db.nics[0].id).reason == Reason.NOT_RUNNING


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [((Pair(cidr=PODS),), Reason.DELIVERED), ((), Reason.ANTI_SPOOFING), ((Pair(cidr="10.0.0.0/16"),), None)],
)
def test_a_route_leads_to_pods_for_which_their_node_may_speak(
    cloud: Cloud, pairs: tuple[Pair, ...], reason: Reason | None
) -> None:
    [web] = machine(cloud, "web", "10.0.1.10").nics
    node = machine(cloud, "db", "10.0.2.10", allowed_pairs=pairs)
    done(
        cloud, cloud.vpc_entries.add_routes(operator(cloud), "prod", [NewRoute(destination=PODS, instance=node.id)])[1]
    )
    verdict = ask(cloud, web.id, ("prod", "10.244.1.5"))
    assert verdict.reason == (reason or Reason.ROUTE_LOOP)
    assert verdict.reachable == (Rule.BEHIND in {hop.rule for hop in verdict.path})


def test_a_nic_of_another_project_is_not_there(cloud: Cloud) -> None:
    [web] = machine(cloud, "web", "10.0.1.10").nics
    stranger, _ = principal_in(cloud, "strangers")
    with pytest.raises(InvalidInput) as refused:
        cloud.reachability.ask(stranger, source=web.id, target=web.id)
    assert field_of(refused) == ("source.nic", "not_found")


def observed(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, report: ProbeReport, **more: Any) -> Answer:
    """Ask from web to db on a backend that sends packets, and sees this."""
    [web], [db] = machine(cloud, "web", "10.0.1.10").nics, machine(cloud, "db", "10.0.2.10").nics
    asked: list[ProbeSpec] = []
    networks = type(cloud.backend.networks)
    monkeypatch.setattr(networks, "capabilities", networks.capabilities | {NetworkCapability.PROBE})
    seen = replace(report, sightings=tuple(replace(one, place=db.id) for one in report.sightings))

    def probe(_: object, spec: ProbeSpec) -> ProbeReport:
        asked.append(spec)
        return seen

    monkeypatch.setattr(networks, "probe", probe)
    answer = cloud.reachability.ask(operator(cloud), source=web.id, target=db.id, **more)
    assert [(spec.nic_id, spec.source_address, spec.target) for spec in asked] == [(web.id, "10.0.1.10", "10.0.2.10")]
    assert answer.observed == seen
    return answer


ANSWERED = ProbeReport(answered=True, next_hop="10.0.1.1", next_hop_found=True)
LOST = replace(ANSWERED, answered=False, sightings=(Sighting(place="", leaves=True, is_back=False),))


def test_where_packets_are_sent_they_decide(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = observed(cloud, monkeypatch, ANSWERED)
    assert (answer.reachable, answer.reason) == (True, "delivered")


def test_a_guest_that_does_not_answer_is_named_as_the_last_place(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = observed(cloud, monkeypatch, LOST)
    assert (answer.reachable, answer.reason, answer.verdict.reachable) == (False, "observed", True)
    assert "seen last going to nic-" in answer.message


def test_a_datagram_need_not_be_answered(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    assert observed(cloud, monkeypatch, LOST, protocol=Protocol.UDP, port=53).reachable
