"""Refuse specs that make no sense, and everything that does not fit a configuration file or a rule set.

Nothing is quoted anywhere below: what has passed here holds no character with a meaning of its own.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network

from iaas.drivers.interface import (
    BLACKHOLE,
    DNSRecordSpec,
    PermanentError,
    PortSpec,
    ReservationSpec,
    SubnetSpec,
    VPCSpec,
)
from iaas.kernel.ids import ID_PATTERN

LINK_LOCAL = IPv4Network("169.254.0.0/16")  # where the metadata service and the tenant APIs are
MAC_PATTERN = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}\Z")  # no group address
LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
HOSTNAME_PATTERN = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
DOMAIN_PATTERN = re.compile(rf"(?=.{{1,253}}\Z){LABEL}(\.{LABEL})*\Z")
RECORD_TYPES = frozenset({"A", "CNAME", "TXT"})
MAX_TXT_BYTES = 255  # one string of a TXT record, and within dnsmasq's longest line
MAX_SERVERS = 8
MTU_RANGE = range(576, 65522)
LEASE_RANGE_S = range(120, 2**31)  # dnsmasq knows no shorter one


def check_id(resource_id: str) -> str:
    """Return the id when it has the form of one."""
    if not ID_PATTERN.match(resource_id):
        raise PermanentError(f"{resource_id!r} is no id")
    return resource_id


def check_vpc(spec: VPCSpec) -> None:
    """Raises PermanentError when the spec makes no sense by itself."""
    what = f"VPC {check_id(spec.vpc_id)}"
    cidr = _network(what, spec.cidr)
    if cidr.overlaps(LINK_LOCAL):
        raise PermanentError(f"{what}: {cidr} overlaps the link-local block {LINK_LOCAL}")
    _check_domain(what, spec.dns_domain)
    for servers in (spec.dns_servers, spec.ntp_servers, *(each.servers for each in spec.forwarders)):
        if len(servers) > MAX_SERVERS:
            raise PermanentError(f"{what}: more than {MAX_SERVERS} servers")
        for server in servers:
            _address(what, server)
    if spec.lease_s not in LEASE_RANGE_S:
        raise PermanentError(f"{what}: leases of {spec.lease_s} s are too short or too long")
    _check_records(what, spec.records)
    for forwarder in spec.forwarders:
        _check_domain(what, forwarder.domain)
    seen: set[IPv4Network] = set()
    for route in spec.routes:
        destination = _network(what, route.destination)
        if destination in seen or (destination.overlaps(LINK_LOCAL) and destination.prefixlen > 0):
            raise PermanentError(f"{what}: the route for {destination} is there twice or covers {LINK_LOCAL}")
        seen.add(destination)
        if route.next_hop != BLACKHOLE:
            _address(what, route.next_hop)


def check_subnet(spec: SubnetSpec, vpc: VPCSpec | None, neighbours: Iterable[SubnetSpec]) -> None:
    """Raises PermanentError when the spec makes no sense.

    Args:
        spec: the subnet.
        vpc: the VPC it is to be in.
        neighbours: subnets of that VPC.
    """
    what = f"subnet {check_id(spec.subnet_id)}"
    if spec.mtu not in MTU_RANGE:
        raise PermanentError(f"{what}: no MTU of {spec.mtu}")
    reserved = [reserved_range(reservation) for reservation in spec.reservations]
    if vpc is None:
        if spec.cidr is not None or spec.gateway is not None:
            raise PermanentError(f"{what}: it is in no VPC and can have no block or gateway")
        return
    if spec.cidr is None or spec.gateway is None:
        raise PermanentError(f"{what}: in a VPC it needs a block and a gateway")
    cidr, gateway = _network(what, spec.cidr), _address(what, spec.gateway)
    if not cidr.subnet_of(IPv4Network(vpc.cidr)):
        raise PermanentError(f"{what}: {cidr} is not inside {vpc.cidr}")
    if gateway not in cidr or gateway in {cidr.network_address, cidr.broadcast_address}:
        raise PermanentError(f"{what}: the gateway {gateway} does not fit {cidr}")
    if any(first not in cidr or last not in cidr for first, last in reserved):
        raise PermanentError(f"{what}: a reservation is not inside {cidr}")
    for other in neighbours:
        if other.subnet_id != spec.subnet_id and other.cidr is not None and cidr.overlaps(IPv4Network(other.cidr)):
            raise PermanentError(f"{what}: {cidr} overlaps {other.cidr} of {other.subnet_id}")


def check_port(spec: PortSpec, subnet: SubnetSpec, others: Iterable[PortSpec]) -> None:
    """Raises PermanentError when the spec makes no sense or takes what another port of the subnet has."""
    what = f"NIC {check_id(spec.nic_id)}"
    _check_mac(what, spec.mac)
    for name in spec.names:
        if not HOSTNAME_PATTERN.match(name):
            raise PermanentError(f"{what}: {name!r} is no host name")
    for address in spec.addresses:
        if subnet.cidr is not None and not is_guest_address(_address(what, address), subnet):
            raise PermanentError(f"{what}: {address} is no guest address of {subnet.cidr}")
    if len(set(spec.addresses)) != len(spec.addresses):
        raise PermanentError(f"{what}: an address twice")
    for pair in spec.allowed_pairs:
        _network(what, pair.cidr)
        if pair.mac is not None:
            _check_mac(what, pair.mac)
    for other in others:
        if other.nic_id != spec.nic_id and (other.mac == spec.mac or set(other.addresses) & set(spec.addresses)):
            raise PermanentError(f"{what}: its MAC or an address of it is reserved for {other.nic_id}")


def is_guest_address(address: IPv4Address, subnet: SubnetSpec) -> bool:
    """Return whether a NIC of the subnet (in a VPC) could have this address."""
    cidr = IPv4Network(subnet.cidr or "0.0.0.0/0")
    return address in cidr and str(address) not in {
        str(cidr.network_address),
        str(cidr.broadcast_address),
        subnet.gateway,
    }


def fitting(port: PortSpec, subnet: SubnetSpec) -> PortSpec:
    """Return the port with the addresses that its subnet has now: it may have joined another VPC since."""
    if subnet.cidr is None:
        return port
    inside = tuple(address for address in port.addresses if _is_inside(address, subnet.cidr))
    return port if inside == port.addresses else dataclasses.replace(port, addresses=inside)


@lru_cache(maxsize=65536)  # asked for all ports of a VPC whenever one of them changes
def _is_inside(address: str, cidr: str) -> bool:
    return IPv4Address(address) in IPv4Network(cidr)


def reserved_range(reservation: ReservationSpec) -> tuple[IPv4Address, IPv4Address]:
    """Return the first and the last address of a reservation; raises PermanentError when they are none."""
    first, last = _address("a reservation", reservation.first), _address("a reservation", reservation.last)
    if first > last:
        raise PermanentError(f"a reservation from {first} to {last} holds nothing")
    return first, last


def _check_records(what: str, records: tuple[DNSRecordSpec, ...]) -> None:
    types_by_name: dict[str, list[str]] = {}
    for record in records:
        _check_domain(what, record.name)
        types_by_name.setdefault(record.name, []).append(record.type)
        if record.type not in RECORD_TYPES or not 0 <= record.ttl_s < 2**31 or not record.values:
            raise PermanentError(f"{what}: no record of type {record.type!r} with {len(record.values)} values")
        for value in record.values:
            if record.type == "A":
                _address(what, value)
            elif record.type == "CNAME":
                _check_domain(what, value)
            elif len(value.encode()) > MAX_TXT_BYTES:
                raise PermanentError(f"{what}: a TXT value of more than {MAX_TXT_BYTES} bytes")
        if record.type == "CNAME" and (len(record.values) != 1 or record.values[0] == record.name):
            raise PermanentError(f"{what}: the alias {record.name} needs one target, another name")
    for name, types in types_by_name.items():
        if "CNAME" in types and len(types) > 1:
            raise PermanentError(f"{what}: {name} is an alias and something else")


def _network(what: str, text: str) -> IPv4Network:
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as exc:
        raise PermanentError(f"{what}: {exc}") from exc
    if str(network) != text:  # a mask in place of a length, or none at all
        raise PermanentError(f"{what}: {text!r} is not written as {network}")
    return network


def _address(what: str, text: str) -> IPv4Address:
    try:
        return ipaddress.IPv4Address(text)
    except ValueError as exc:
        raise PermanentError(f"{what}: {exc}") from exc


def _check_domain(what: str, text: str) -> None:
    if not DOMAIN_PATTERN.match(text):
        raise PermanentError(f"{what}: {text!r} is no domain name")


def _check_mac(what: str, text: str) -> None:
    if not MAC_PATTERN.match(text):
        raise PermanentError(f"{what}: {text!r} is no MAC address in lower case")
