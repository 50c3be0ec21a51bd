"""Specs of networks as the world keeps them: one text per object, equal exactly if the specs are."""

from __future__ import annotations

import json
from typing import NamedTuple

from iaas.drivers.interface import PortSpec, RouteSpec, SubnetSpec, VPCSpec


class VPCDocument(NamedTuple):
    """What a simulated guest can notice of its VPC, in the order of the text."""

    dns_domain: str
    dns_servers: list[str]
    ntp_servers: list[str]
    lease_s: int
    records: list[tuple[str, str, list[str], int]]  # name, type, values, seconds to live
    forwarders: list[tuple[str, list[str]]]
    routes: list[tuple[str, str]]

    def route_specs(self) -> list[RouteSpec]:
        return [RouteSpec(destination=destination, next_hop=next_hop) for destination, next_hop in self.routes]


class PortDocument(NamedTuple):
    """What the network knows of one NIC, in the order of the text."""

    owner: str
    addresses: list[str]
    names: list[str]
    allowed_pairs: list[tuple[str, str | None]]


def vpc_document(spec: VPCSpec) -> str:
    """Return all of the spec but its id, CIDR and revision."""
    return json.dumps(
        [
            spec.dns_domain,
            spec.dns_servers,
            spec.ntp_servers,
            spec.lease_s,
            [(each.name, each.type, each.values, each.ttl_s) for each in spec.records],
            [(each.domain, each.servers) for each in spec.forwarders],
            [(each.destination, each.next_hop) for each in spec.routes],
        ]
    )


def subnet_document(spec: SubnetSpec) -> str:
    """Return the reservations of the spec."""
    return json.dumps([(each.owner, each.first, each.last) for each in spec.reservations])


def port_document(spec: PortSpec) -> str:
    """Return all of the spec but its ids, MAC and revision."""
    pairs = [(each.cidr, each.mac) for each in spec.allowed_pairs]
    return json.dumps([spec.owner, spec.addresses, spec.names, pairs])


def read_vpc(document: str) -> VPCDocument:
    """Return what :func:`vpc_document` has written."""
    return VPCDocument._make(json.loads(document))


def read_reservations(document: str) -> list[tuple[str, str, str]]:
    """Return (owner, first, last) of what :func:`subnet_document` has written."""
    return [(owner, first, last) for owner, first, last in json.loads(document)]


def read_port(document: str) -> PortDocument:
    """Return what :func:`port_document` has written."""
    return PortDocument._make(json.loads(document))
