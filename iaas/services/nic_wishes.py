"""What a wish for a NIC means: names looked up, fields checked; nothing is written."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from iaas.db.repositories import nics, subnets
from iaas.kernel.errors import FieldError, InUse, InvalidInput, ResourceRef
from iaas.kernel.ids import ID_PATTERN
from iaas.resources.networks import NIC, NetworkStatus, NewNIC, NICStatus, Pair, Subnet

NO_ADDRESS = "none"
BASIC = "basic"
MAX_SECONDARY_ADDRESSES = 64
MAX_ALLOWED_PAIRS = 64

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")
_NEVER_GUESTS = tuple(ipaddress.IPv4Network(block) for block in ("127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4"))


@dataclass(frozen=True, slots=True, kw_only=True)
class NICPlan:
    """A wish with everything looked up. ``existing`` is set when it names a NIC that is there.

    ``address`` is a given one or None; ``wants_address`` says whether one of the pool is to be taken then.
    """

    field_prefix: str
    subnet: Subnet
    existing: NIC | None = None
    address: str | None = None
    wants_address: bool = True
    mac: str | None = None
    name: str | None = None
    labels: dict[str, str]
    secondary_addresses: tuple[str, ...] = ()
    allowed_pairs: tuple[Pair, ...] = ()


def plan_nic(connection: Connection, project_id: str, wish: NewNIC, *, zone: str | None, prefix: str) -> NICPlan:
    """Return the plan.

    Args:
        zone: where it must be; wherever the subnet is when None.
        prefix: stands before the fields of errors.

    Raises:
        InvalidInput: what is wrong with the wish.
        InUse: the NIC that it names is another instance's.
    """
    if wish.nic is not None:
        return _existing(connection, project_id, wish, zone=zone, prefix=prefix)
    if wish.subnet is None and zone is not None:  # as a rule, and on the way of every instance: no search by name
        subnet = subnets.basic_of(connection, zone)
    else:
        subnet = find_subnet(connection, project_id, wish.subnet or BASIC, zone=zone)
    if subnet is None or subnet.status == NetworkStatus.FAILED:
        raise invalid(prefix + "subnet", "not_found", f"there is no subnet {wish.subnet}")
    _check_usable(subnet, zone, prefix + "subnet")
    address = None if wish.address in (None, NO_ADDRESS) else wish.address
    if address is not None:
        address = check_address(subnet, address, prefix + "address")
    return NICPlan(
        field_prefix=prefix,
        subnet=subnet,
        address=address,
        wants_address=wish.address is None and subnet.cidr is not None,
        mac=None if wish.mac is None else check_mac(wish.mac, prefix + "mac"),
        name=wish.name,
        labels=dict(wish.labels),
        secondary_addresses=check_secondary(subnet, address, wish.secondary_addresses, prefix + "secondary_addresses"),
        allowed_pairs=check_pairs(subnet, wish.allowed_pairs, prefix + "allowed_pairs"),
    )


def find_subnet(connection: Connection, project_id: str, wanted: str, *, zone: str | None) -> Subnet | None:
    """Return the project's subnet by id or name; ``basic`` is the zone's shared one (``basic-<zone>`` that of any)."""
    if ID_PATTERN.match(wanted) and (found := subnets.get(connection, wanted, project_id=project_id)) is not None:
        return found
    if (found := subnets.find_by_name(connection, wanted, project_id=project_id)) is not None:
        return found
    if wanted == BASIC:
        if zone is not None:
            return subnets.basic_of(connection, zone)
        return next(iter(subnets.shared_ones(connection)), None)
    if wanted.startswith(f"{BASIC}-"):
        return subnets.basic_of(connection, wanted.removeprefix(f"{BASIC}-"))
    return None


def find_nic(connection: Connection, project_id: str, wanted: str) -> NIC | None:
    """Return the project's NIC by id, name or MAC."""
    if ID_PATTERN.match(wanted) and (found := nics.get(connection, wanted, project_id=project_id)) is not None:
        return found
    if (found := nics.find_by_name(connection, wanted, project_id=project_id)) is not None:
        return found
    mac = wanted.lower()
    return nics.find_by_mac(connection, mac, project_id=project_id) if _MAC.match(mac) else None


def _existing(connection: Connection, project_id: str, wish: NewNIC, *, zone: str | None, prefix: str) -> NICPlan:
    for name in ("subnet", "address", "mac", "name"):
        if getattr(wish, name) is not None:
            raise invalid(prefix + name, "excluded", "is the NIC's own; give a NIC or what a new one shall be")
    for name in ("secondary_addresses", "allowed_pairs", "labels"):
        if getattr(wish, name):
            raise invalid(prefix + name, "excluded", "is the NIC's own; give a NIC or what a new one shall be")
    assert wish.nic is not None  # noqa: S101 - the caller has looked; for the type checker
    nic = find_nic(connection, project_id, wish.nic)
    subnet = subnets.get(connection, nic.subnet_id) if nic is not None else None
    if nic is None or subnet is None:
        raise invalid(prefix + "nic", "not_found", f"there is no NIC {wish.nic}")
    if nic.status != NICStatus.AVAILABLE or nic.transition is not None:
        raise in_use(nic)
    _check_usable(subnet, zone, prefix + "nic")
    return NICPlan(field_prefix=prefix, subnet=subnet, existing=nic, labels={})


def in_use(nic: NIC) -> InUse:
    holder = nic.instance_id or "another instance"
    return InUse(
        f"NIC {nic.id} is {nic.transition or 'attached'}: {holder} has it",
        resource=ResourceRef("nic", nic.id),
        blockers=[ResourceRef("instance", nic.instance_id)] if nic.instance_id else [],
    )


def _check_usable(subnet: Subnet, zone: str | None, field: str) -> None:
    if zone is not None and subnet.zone != zone:
        raise invalid(field, "other_zone", f"is in {subnet.zone}, not in {zone}")
    if subnet.status != NetworkStatus.ACTIVE:
        raise invalid(field, "not_active", f"subnet {subnet.id} is {subnet.status}; it must be active")


def check_address(subnet: Subnet, address: str, field: str) -> str:
    """Return an address that a NIC of the subnet can have, in its usual form.

    Raises:
        InvalidInput: it is none.
    """
    if subnet.cidr is None:
        raise invalid(field, "no_vpc", "a subnet in no VPC has no addresses")
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError as error:
        raise invalid(field, "invalid", "is not an IP address") from error
    if parsed.version != 4:
        raise invalid(field, "not_supported", "IPv6 is not supported")
    block = ipaddress.IPv4Network(subnet.cidr)
    if parsed not in block:
        raise invalid(field, "outside", f"is not in the subnet's block {block}")
    if parsed in (block.network_address, block.broadcast_address):
        raise invalid(field, "reserved", f"is the network's or broadcast address of {block}")
    if str(parsed) == subnet.gateway:
        raise invalid(field, "reserved", "is the subnet's gateway")
    return str(parsed)


def check_secondary(subnet: Subnet, address: str | None, wanted: Sequence[str], field: str) -> tuple[str, ...]:
    """Return secondary addresses in their usual form, or raise InvalidInput."""
    if len(wanted) > MAX_SECONDARY_ADDRESSES:
        raise invalid(field, "too_many", f"at most {MAX_SECONDARY_ADDRESSES}")
    checked = tuple(check_address(subnet, one, f"{field}.{index}") for index, one in enumerate(wanted))
    for index, one in enumerate(checked):
        if one == address or one in checked[:index]:
            raise invalid(f"{field}.{index}", "twice", f"{one} is given twice")
    return checked


def check_mac(mac: str, field: str) -> str:
    """Return a MAC address that a NIC can have, in lower case; raises InvalidInput."""
    lower = mac.lower().replace("-", ":")
    if not _MAC.match(lower):
        raise invalid(field, "invalid", "is not a MAC address (six pairs of hexadecimal digits with colons)")
    if int(lower[:2], 16) & 1:
        raise invalid(field, "multicast", "is a multicast address; a NIC needs a unicast one")
    if lower == "00:00:00:00:00:00":
        raise invalid(field, "invalid", "is no NIC's address")
    return lower


def check_pairs(subnet: Subnet, wanted: Sequence[Pair], field: str) -> tuple[Pair, ...]:
    """Return allowed pairs in their usual form; raises InvalidInput.

    Where all projects are neighbours nobody may speak for what is others' or the gateway's.
    """
    if len(wanted) > MAX_ALLOWED_PAIRS:
        raise invalid(field, "too_many", f"at most {MAX_ALLOWED_PAIRS}")
    checked: list[Pair] = []
    for index, pair in enumerate(wanted):
        where = f"{field}.{index}.cidr"
        try:
            block = ipaddress.ip_network(pair.cidr)
        except ValueError as error:
            raise invalid(where, "invalid", f"is not a CIDR block: {error}") from error
        if not isinstance(block, ipaddress.IPv4Network):
            raise invalid(where, "not_supported", "IPv6 is not supported")
        if any(block.overlaps(one) for one in _NEVER_GUESTS) and block.prefixlen:
            raise invalid(where, "reserved", f"{block} is no guest's")
        if subnet.is_shared and subnet.cidr is not None and block.overlaps(ipaddress.IPv4Network(subnet.cidr)):
            raise invalid(where, "shared", f"overlaps {subnet.cidr}, which all projects share: take a subnet of yours")
        one = Pair(cidr=str(block), mac=None if pair.mac is None else check_mac(pair.mac, f"{field}.{index}.mac"))
        if one not in checked:
            checked.append(one)
    return tuple(checked)


def invalid(field: str, code: str, message: str) -> InvalidInput:
    return InvalidInput(f"{field}: {message}", errors=[FieldError(field, code, message)])
