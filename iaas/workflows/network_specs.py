"""Rows of the network down to the specs of its driver, and the configurations that wait to be applied.

A driver is told what is *applied*: the document that a revision has fixed (:mod:`iaas.services.revisions`). The
functions that make those documents from rows are here beside those that read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from sqlalchemy import Connection

from iaas.db.repositories import nics, reservations, subnets, vpc_entries, vpcs
from iaas.drivers.interface import (
    BLACKHOLE,
    AllowedPair,
    DNSRecordSpec,
    ForwarderSpec,
    PortSpec,
    ReservationSpec,
    RouteSpec,
    SubnetSpec,
    VPCSpec,
)
from iaas.resources.networks import NIC, NetworkStatus, RouteTarget


def vpc_configuration(connection: Connection, vpc_id: str) -> dict[str, Any]:
    """Return the document of a VPC as its rows are now. Routes keep their targets: where those are may change."""
    vpc = vpcs.get(connection, vpc_id)
    if vpc is None:
        raise LookupError(f"VPC {vpc_id} has no row")
    options = vpc.dhcp_options
    return {
        "cidr": vpc.cidr,
        "dns_domain": vpc.dns_domain,
        "dhcp_options": {
            "dns_servers": list(options.dns_servers),
            "ntp_servers": list(options.ntp_servers),
            "lease_s": options.lease_s,
        },
        "forwarders": [{"domain": one.domain, "servers": list(one.servers)} for one in vpc.forwarders],
        "records": [
            {
                "name": full_name(row.name, vpc.dns_domain),
                "type": row.type,
                "values": record_values(row.type, row.values, vpc.dns_domain),
                "ttl_s": row.ttl_s,
            }
            for row in vpc_entries.records_of(connection, vpc_id)
        ],
        "routes": [
            {"destination": row.destination, "target_type": row.target_type, "target": row.target}
            for row in vpc_entries.leads_of(connection, vpc_id)
        ],
    }


def subnet_configuration(connection: Connection, subnet_id: str) -> dict[str, Any]:
    """Return the document of a subnet as its rows are now."""
    subnet = subnets.get(connection, subnet_id)
    if subnet is None:
        raise LookupError(f"subnet {subnet_id} has no row")
    return {
        "vpc_id": subnet.vpc_id,
        "cidr": subnet.cidr,
        "gateway": subnet.gateway,
        "mtu": subnet.mtu,
        "reservations": [
            {"owner": one.project_id, "first": one.first, "last": one.last}
            for one in reservations.of_subnet(connection, subnet_id)
        ],
    }


def full_name(name: str, domain: str) -> str:
    """Return a record's name fully qualified, without the last dot."""
    return name.rstrip(".") if name.endswith(".") else f"{name}.{domain}"


def record_values(record_type: str, values: Sequence[str], domain: str) -> list[str]:
    """Return a record's values as the data plane wants them: names in them fully qualified, as its own is."""
    return [full_name(value, domain) for value in values] if record_type == "CNAME" else list(values)


class NextHops:
    """Where the routes of one VPC lead now; its subnets are read once for all of them.

    Only what is on a subnet at rest counts: before and after, the router has no way to it. Whoever lets a subnet
    rest, or begins to take it away, has the VPC applied again.
    """

    def __init__(self, connection: Connection, vpc_id: str) -> None:
        self._connection = connection
        self._vpc_id = vpc_id
        self._known: dict[tuple[str, str], str | None] = {}  # hundreds of routes lead to a handful of targets

    @cached_property
    def _blocks(self) -> dict[str, IPv4Network]:
        return {
            subnet.id: IPv4Network(subnet.cidr)
            for subnet in subnets.of_vpc(self._connection, self._vpc_id)
            if subnet.cidr is not None and subnet.status == NetworkStatus.ACTIVE and subnet.transition is None
        }

    def of(self, target_type: str, target: str) -> str | None:
        """Return the address that a route's target means now; None when it has none in the VPC."""
        key = (target_type, target)
        if key not in self._known:
            self._known[key] = self._look_up(target_type, target)
        return self._known[key]

    def _look_up(self, target_type: str, target: str) -> str | None:
        match RouteTarget(target_type):
            case RouteTarget.ADDRESS:
                address = IPv4Address(target)
                return target if any(address in block for block in self._blocks.values()) else None
            case RouteTarget.NIC:
                nic = nics.get(self._connection, target)
                return nic.address if nic is not None and nic.instance_id is not None and self._has(nic) else None
            case RouteTarget.INSTANCE:
                found = nics.of_instance(self._connection, target)
                return next((nic.address for nic in found if nic.address is not None and self._has(nic)), None)

    def _has(self, nic: NIC) -> bool:
        return nic.vpc_id == self._vpc_id and nic.subnet_id in self._blocks


def vpc_spec(connection: Connection, vpc_id: str) -> VPCSpec | None:
    """Return the applied configuration of a VPC, with the next hops that its routes have now; None without a row.

    The generation orders specs: it grows with each change of the rows, and of what routes lead to.
    """
    row = vpcs.applied(connection, vpc_id)
    if row is None:
        return None
    document = row.configuration
    options = document["dhcp_options"]
    next_hops = NextHops(connection, vpc_id)
    return VPCSpec(
        vpc_id=vpc_id,
        cidr=document["cidr"],
        dns_domain=document["dns_domain"],
        dns_servers=tuple(options["dns_servers"]),
        ntp_servers=tuple(options["ntp_servers"]),
        lease_s=options["lease_s"],
        records=tuple(
            DNSRecordSpec(name=one["name"], type=one["type"], values=tuple(one["values"]), ttl_s=one["ttl_s"])
            for one in document["records"]
        ),
        forwarders=tuple(
            ForwarderSpec(domain=one["domain"], servers=tuple(one["servers"])) for one in document["forwarders"]
        ),
        routes=tuple(
            RouteSpec(
                destination=one["destination"],
                next_hop=next_hops.of(one["target_type"], one["target"]) or BLACKHOLE,
            )
            for one in document["routes"]
        ),
        revision=row.generation,
    )


def subnet_spec(connection: Connection, subnet_id: str) -> SubnetSpec | None:
    """Return the applied configuration of a subnet; None without a row."""
    row = subnets.applied(connection, subnet_id)
    if row is None:
        return None
    document = row.configuration
    return SubnetSpec(
        subnet_id=subnet_id,
        vpc_id=document["vpc_id"],
        cidr=document["cidr"],
        gateway=document["gateway"],
        mtu=document["mtu"],
        reservations=tuple(
            ReservationSpec(owner=one["owner"], first=one["first"], last=one["last"])
            for one in document["reservations"]
        ),
        revision=row.generation,
    )


def port_spec(nic: NIC, *, hostname: str) -> PortSpec:
    """Return the port of a NIC that is in an instance (``hostname`` is the instance's)."""
    names = (hostname, nic.instance_id) if nic.instance_id is not None and nic.address is not None else ()
    return PortSpec(
        nic_id=nic.id,
        subnet_id=nic.subnet_id,
        mac=nic.mac,
        owner=nic.project_id,
        addresses=nic.addresses,
        names=tuple(dict.fromkeys(names)),
        allowed_pairs=tuple(AllowedPair(cidr=pair.cidr, mac=pair.mac) for pair in nic.allowed_pairs),
        revision=nic.generation,
    )
