"""Whether specs of networks make sense: what no data plane could be built from is refused before it is kept."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError

from iaas.drivers.interface import BLACKHOLE, PermanentError, PortSpec, SubnetSpec, VPCSpec

RECORD_TYPES = frozenset({"A", "CNAME", "TXT"})
MTU_BYTES = range(576, 9217)


@lru_cache(maxsize=1024)
def block(cidr: str) -> IPv4Network:
    """Return the block; raises ValueError for what is none, also for one with bits behind its prefix."""
    return IPv4Network(cidr)


def address_number(address: str) -> int:
    """Return the address as a number, for comparisons; raises ValueError for what is none."""
    return int(IPv4Address(address))


def check_vpc(spec: VPCSpec) -> None:
    """Return when the spec makes sense; raises PermanentError with what does not."""
    try:
        block(spec.cidr)
        for address in (*spec.dns_servers, *spec.ntp_servers):
            IPv4Address(address)
        for forwarder in spec.forwarders:
            if not forwarder.domain or not forwarder.servers:
                raise ValueError(f"the forwarder {forwarder.domain!r} has no domain or no server")
            for address in forwarder.servers:
                IPv4Address(address)
        for record in spec.records:
            if record.type not in RECORD_TYPES or not record.name or not record.values:
                raise ValueError(f"{record.name!r} of type {record.type!r} is no DNS record")
            for value in record.values if record.type == "A" else ():
                IPv4Address(value)
        destinations = [block(route.destination) for route in spec.routes]
        if len(set(destinations)) != len(destinations):
            raise ValueError("two routes have the same destination")
        for route in spec.routes:
            if route.next_hop != BLACKHOLE:
                IPv4Address(route.next_hop)
    except (AddressValueError, NetmaskValueError, ValueError) as exc:
        raise PermanentError(f"VPC {spec.vpc_id}: {exc}") from exc


def check_subnet(spec: SubnetSpec, vpc_cidr: str | None) -> None:
    """Return when the spec makes sense in its VPC of ``vpc_cidr`` (None for a bare segment).

    Raises:
        PermanentError: it does not; says why.
    """
    try:
        if (spec.vpc_id is None, spec.vpc_id is None) != (spec.cidr is None, spec.gateway is None):
            raise ValueError("block and gateway belong to a subnet in a VPC, and to no other")
        if spec.mtu not in MTU_BYTES:
            raise ValueError(f"an MTU of {spec.mtu} bytes is not supported")
        own = None
        if vpc_cidr is not None and spec.cidr is not None and spec.gateway is not None:
            own = block(spec.cidr)
            if not own.subnet_of(block(vpc_cidr)):
                raise ValueError(f"{spec.cidr} is not inside the VPC's {vpc_cidr}")
            if not _is_host_of(own, spec.gateway):
                raise ValueError(f"the gateway {spec.gateway} is no host's address in {spec.cidr}")
        for each in spec.reservations:
            first, last = IPv4Address(each.first), IPv4Address(each.last)
            if first > last or (own is not None and (first not in own or last not in own)):
                raise ValueError(f"{each.first} to {each.last} cannot be reserved")
    except (AddressValueError, NetmaskValueError, ValueError) as exc:
        raise PermanentError(f"subnet {spec.subnet_id}: {exc}") from exc


def check_port(spec: PortSpec, cidr: str | None, gateway: str | None) -> None:
    """Return when a NIC of the subnet can have these addresses; raises PermanentError with the one that it cannot."""
    for address in spec.addresses:
        if not is_guest_address(address, cidr, gateway):
            raise PermanentError(f"{address} is no guest address of subnet {spec.subnet_id}")
    if len(set(spec.addresses)) != len(spec.addresses):
        raise PermanentError(f"NIC {spec.nic_id}: an address is named twice")
    try:
        for pair in spec.allowed_pairs:
            block(pair.cidr)
    except (AddressValueError, NetmaskValueError, ValueError) as exc:
        raise PermanentError(f"NIC {spec.nic_id}: {exc}") from exc


def is_guest_address(address: str, cidr: str | None, gateway: str | None) -> bool:
    """Return whether a guest may have the address: inside the block, and neither its ends nor the gateway's."""
    try:
        if cidr is None:
            IPv4Address(address)
            return True
        return address != gateway and _is_host_of(block(cidr), address)
    except (AddressValueError, NetmaskValueError, ValueError):
        return False


def _is_host_of(network: IPv4Network, address: str) -> bool:
    host = IPv4Address(address)
    ends = (network.network_address, network.broadcast_address) if network.prefixlen < 31 else ()
    return host in network and host not in ends
