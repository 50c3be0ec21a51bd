"""Probes: one packet let in at a NIC, and followed to where it gets."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from iaas.drivers.interface import ProbeReport, ProbeSpec, RouteSpec
from iaas.drivers.linux.links import link_names
from tests.contract.network_subjects import NetworkSubject
from tests.contract.wire_guest import plug
from tests.real_host import RealHost

NEAR, FAR = "10.77.0.10", "10.77.1.10"


class Wire:
    """A guest on each of two subnets."""

    def __init__(self, wired: NetworkSubject, host: RealHost, undo: ExitStack) -> None:
        self.host = host
        self.driver = wired.driver
        self.vpc = wired.vpc()
        self.subnets = wired.subnet(self.vpc), wired.subnet(self.vpc, cidr="10.77.1.0/24")
        self.ports = [wired.port(subnet, address) for subnet, address in zip(self.subnets, (NEAR, FAR), strict=True)]
        self.guests = [
            undo.enter_context(plug(host, port, subnet=subnet))
            for port, subnet in zip(self.ports, self.subnets, strict=True)
        ]

    def probe(self, target: str, *, source: str = NEAR, protocol: str = "icmp", port: int | None = None) -> ProbeReport:
        near = self.ports[0]
        spec = ProbeSpec(
            subnet_id=near.subnet_id,
            nic_id=near.nic_id,
            source_address=source,
            target=target,
            protocol=protocol,
            port=port,
        )
        report = self.driver.probe(spec)
        assert report is not None
        return report

    def places(self, report: ProbeReport, *, is_back: bool) -> list[str]:
        known = {self.ports[0].nic_id: "near", self.ports[1].nic_id: "far"}
        known |= {self.subnets[0].subnet_id: "near gateway", self.subnets[1].subnet_id: "far gateway"}
        return [
            f"{'to' if seen.leaves else 'from'} {known[seen.place]}"
            for seen in report.sightings
            if seen.is_back == is_back
        ]


@pytest.fixture
def wire(wired: NetworkSubject, host: RealHost) -> Iterator[Wire]:
    with ExitStack() as undo:
        yield Wire(wired, host, undo)
    assert [name for name in link_names(host.fabric.namespace) if name[:2] in ("pi", "po")] == []


THERE = ["from near", "to near gateway", "from far gateway", "to far"]
BACK = ["from far", "to far gateway", "from near gateway", "to near"]


def test_a_packet_and_its_answer_are_seen_at_every_step(wire: Wire) -> None:
    report = wire.probe(FAR)
    assert (report.answered, report.next_hop, report.next_hop_found) == (True, "10.77.0.1", True)
    assert wire.places(report, is_back=False) == THERE
    assert wire.places(report, is_back=True) == BACK


def test_a_refused_connection_is_an_answer_too(wire: Wire) -> None:
    listener = wire.guests[1].listen(FAR, 8080)
    try:
        for port in (8080, 8081):
            report = wire.probe(FAR, protocol="tcp", port=port)
            assert report.answered
            assert wire.places(report, is_back=True) == BACK
    finally:
        listener.close()


def test_a_datagram_arrives_or_is_refused_by_the_guest(wire: Wire) -> None:
    report = wire.probe(FAR, protocol="udp", port=9999)
    assert wire.places(report, is_back=False) == THERE
    assert report.refused_by == FAR  # nobody listens there


def test_a_foreign_source_ends_at_the_nic(wire: Wire) -> None:
    report = wire.probe(FAR, source="10.77.0.99")
    assert not report.answered
    assert wire.places(report, is_back=False) == ["from near"]


def test_the_router_says_that_there_is_no_way(wire: Wire) -> None:
    report = wire.probe("10.99.0.1")
    assert (report.answered, report.refused_by) == (False, "10.77.0.1")
    assert wire.places(report, is_back=False) == ["from near", "to near gateway"]


def test_nobody_on_the_subnet_has_the_address(wire: Wire) -> None:
    report = wire.probe("10.77.0.77")
    assert (report.answered, report.next_hop, report.next_hop_found) == (False, "10.77.0.77", False)


def test_a_route_leads_to_a_guest_that_does_not_forward(wire: Wire) -> None:
    route = RouteSpec(destination="10.244.0.0/16", next_hop=FAR)
    wire.driver.ensure_vpc(dataclasses.replace(wire.vpc, routes=(route,), revision=wire.vpc.revision + 1))
    report = wire.probe("10.244.0.1")
    assert not report.answered
    assert wire.places(report, is_back=False) == THERE


def test_a_nic_that_is_not_plugged_sends_nothing(wire: Wire, wired: NetworkSubject) -> None:
    spare = wired.port(wire.subnets[0], "10.77.0.50")
    spec = ProbeSpec(
        subnet_id=spare.subnet_id, nic_id=spare.nic_id, source_address="10.77.0.50", target=FAR, protocol="icmp"
    )
    assert wire.driver.probe(spec) is None
