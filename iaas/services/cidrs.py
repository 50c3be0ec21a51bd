"""Blocks and addresses as clients write them: strict, IPv4, each error names its field. Pure: nothing is looked up."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from iaas.drivers.interface.networks import DEFAULT_MTU
from iaas.kernel.errors import FieldError, InvalidInput

# Private use and carrier-grade NAT. Source: RFC 1918, section 3; RFC 6598, section 7.
VPC_BLOCKS = tuple(IPv4Network(block) for block in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"))
VPC_PREFIXES = (16, 28)
SUBNET_PREFIXES = (16, 29)
MTU_LEAST, MTU_MOST = 576, 9000  # RFC 791: what every host must take; what Ethernet hardware takes as a rule

# "This network", loopback, link-local (metadata), multicast, reserved. Source: RFC 6890, section 2.2.2; RFC 5771.
NOWHERE = tuple(
    IPv4Network(block) for block in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")
)

_BLOCK = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}/[0-9]{1,2}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressPlan:
    """A subnet's block, its gateway, and the first and last address of its pool; all inside the block."""

    cidr: str
    gateway: str
    dhcp_first: str
    dhcp_last: str


def parse_address(text: str, field: str) -> IPv4Address:
    """Return an IPv4 address.

    Raises:
        InvalidInput: it is none; ``not_supported`` when it is one of IPv6.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise invalid(field, "invalid", f"{shown(text)} is not an IPv4 address") from error
    if not isinstance(address, IPv4Address):
        raise invalid(field, "not_supported", "IPv6 is not supported")
    return address


def parse_block(text: str, field: str) -> IPv4Network:
    """Return a block in CIDR form, ``10.0.0.0/16``.

    Raises:
        InvalidInput: it is none, or bits beyond the prefix are set (``host_bits``); ``not_supported`` when it is
            one of IPv6.
    """
    if not _BLOCK.match(text):
        if ":" in text and _is_ipv6_block(text):
            raise invalid(field, "not_supported", "IPv6 is not supported")
        raise invalid(field, "invalid", f"{shown(text)} is not a block such as 10.0.0.0/16")
    try:
        loose = IPv4Network(text, strict=False)
    except ValueError as error:
        raise invalid(field, "invalid", f"{shown(text)} is not a block such as 10.0.0.0/16") from error
    if str(loose.network_address) != text.partition("/")[0]:
        raise invalid(field, "host_bits", f"{text} has bits set beyond its prefix: {loose} is meant?")
    return loose


def check_vpc_block(text: str, field: str = "cidr") -> IPv4Network:
    """Return the block of a VPC, or raise InvalidInput."""
    block = parse_block(text, field)
    _check_prefix(block, VPC_PREFIXES, field)
    if not any(block.subnet_of(allowed) for allowed in VPC_BLOCKS):
        allowed = ", ".join(str(each) for each in VPC_BLOCKS)
        raise invalid(field, "out_of_range", f"{block} is not private; it must be inside one of {allowed}")
    return block


def check_subnet_block(text: str, vpc_cidr: str, field: str = "cidr") -> IPv4Network:
    """Return the block of a subnet inside its VPC's, or raise InvalidInput. Its neighbours are not looked at."""
    block = parse_block(text, field)
    _check_prefix(block, SUBNET_PREFIXES, field)
    if not block.subnet_of(IPv4Network(vpc_cidr)):
        raise invalid(field, "outside", f"{block} is not inside the VPC's {vpc_cidr}")
    return block


def plan_addresses(
    block: IPv4Network, *, gateway: str | None, dhcp_first: str | None, dhcp_last: str | None
) -> AddressPlan:
    """Return gateway and pool of a subnet; what is not given is the first host, and all hosts after the gateway.

    Where no host comes after the gateway, the pool is those before it.

    Raises:
        InvalidInput: an address is outside or reserved, or the pool is empty or holds the gateway.
    """
    first_host, last_host = block.network_address + 1, block.broadcast_address - 1
    router = check_host(gateway, block, "gateway") if gateway is not None else first_host
    if router < last_host:
        default_first, default_last = router + 1, last_host
    else:
        default_first, default_last = first_host, router - 1
    first = check_host(dhcp_first, block, "dhcp_first") if dhcp_first is not None else default_first
    last = check_host(dhcp_last, block, "dhcp_last") if dhcp_last is not None else max(default_last, first)
    if dhcp_first is None and dhcp_last is not None and last < first:
        first = first_host  # the pool that was meant lies before the gateway
    check_pool(first, last, router)
    return AddressPlan(cidr=str(block), gateway=str(router), dhcp_first=str(first), dhcp_last=str(last))


def check_host(text: str, block: IPv4Network, field: str) -> IPv4Address:
    """Return an address that a host in the block can have.

    Raises:
        InvalidInput: ``outside``; ``reserved`` for the network's and the broadcast address.
    """
    address = parse_address(text, field)
    if address not in block:
        raise invalid(field, "outside", f"{address} is not in the subnet's block {block}")
    if address in (block.network_address, block.broadcast_address):
        raise invalid(field, "reserved", f"{address} is the network's or broadcast address of {block}")
    return address


def check_pool(first: IPv4Address, last: IPv4Address, gateway: IPv4Address) -> None:
    """Return when addresses can be given from ``first`` to ``last``, or raise InvalidInput."""
    if last < first:
        raise invalid("dhcp_last", "out_of_range", f"{last} comes before the first of the pool, {first}")
    if first <= gateway <= last:
        message = f"the pool {first} to {last} holds the gateway {gateway}"
        raise invalid("dhcp_first" if first == gateway else "dhcp_last", "reserved", message)


def check_mtu(mtu: int | None) -> int:
    """Return the MTU in bytes, the usual one for None; raises InvalidInput."""
    if mtu is None:
        return DEFAULT_MTU
    if not MTU_LEAST <= mtu <= MTU_MOST:
        raise invalid("mtu", "out_of_range", f"must be from {MTU_LEAST} to {MTU_MOST} bytes")
    return mtu


def check_destination(text: str, field: str) -> IPv4Network:
    """Return the destination of a route: any block, inside the VPC or not, that packets can be sent to.

    Raises:
        InvalidInput: no block, or one of those that are never routed (``reserved``).
    """
    block = parse_block(text, field)
    for nowhere in NOWHERE:
        if block.subnet_of(nowhere):  # so 0.0.0.0/0 may be: a default route, to a NAT instance for one
            raise invalid(field, "reserved", f"{block} is never routed (it is in {nowhere})")
    return block


def check_server(text: str, field: str) -> str:
    """Return the address of a server (DNS, NTP), or raise InvalidInput when nothing can be there."""
    address = parse_address(text, field)
    unusable = address.is_loopback or address.is_multicast or address.is_unspecified or address.is_reserved
    if unusable:
        raise invalid(field, "reserved", f"no server can be at {address}")
    return str(address)


def invalid(field: str, code: str, message: str) -> InvalidInput:
    return InvalidInput(f"{field}: {message}", errors=[FieldError(field, code, message)])


def shown(text: str) -> str:
    """Return what a client sent so that it can stand in a message: quoted, and not too long."""
    return repr(text if len(text) <= 64 else text[:61] + "...")


def _check_prefix(block: IPv4Network, allowed: tuple[int, int], field: str) -> None:
    if not allowed[0] <= block.prefixlen <= allowed[1]:
        message = f"/{block.prefixlen} is not possible: from /{allowed[0]} to /{allowed[1]}"
        raise invalid(field, "out_of_range", message)


def _is_ipv6_block(text: str) -> bool:
    try:
        ipaddress.IPv6Network(text, strict=False)
    except ValueError:
        return False
    return True
