"""What a port lets its guest say: the rules of ``PortSpec``, as a pure function."""

from __future__ import annotations

from ipaddress import IPv4Address

from iaas.reachability.elements import Port
from iaas.reachability.questions import Rule


def permitting_rule(port: Port, address: IPv4Address, mac: str) -> Rule | None:
    """Return by what the port may speak with the MAC for the address, as source of IP and of ARP; None: it may not."""
    spec = port.spec
    if port.segment.spec.vpc_id is None and mac in {spec.mac, *(pair_mac for _, pair_mac in port.pairs)}:
        return Rule.BARE_SUBNET
    if mac == spec.mac and address in port.addresses:
        return Rule.OWN_ADDRESS
    if any(mac == pair_mac and address in network for network, pair_mac in port.pairs):
        return Rule.ALLOWED_PAIR
    if any(each.owner == spec.owner and each.first <= address <= each.last for each in port.segment.reserved):
        return Rule.RESERVATION
    return None
