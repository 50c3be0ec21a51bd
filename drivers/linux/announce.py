"""Tell a segment that an address has a new MAC: others would send to the old one for half a minute and more."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable

from iaas.drivers.linux.namespaces import entered

EVERYBODY = bytes([0xFF] * 6)
ETHERTYPE_ARP = 0x0806
# Ethernet, IPv4, lengths of both addresses, request. Source: RFC 826; RFC 5227 section 3 on announcing by request
ARP_HEADER = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)


def announce(namespace: str, bridge: str, *, mac: str, addresses: Iterable[str]) -> None:
    """Send an ARP announcement for each address to all that is on the bridge.

    Raises:
        NotFoundError: the namespace is gone.
        OSError: the bridge is gone.
    """
    hardware = bytes.fromhex(mac.replace(":", ""))
    with entered(namespace):
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with sender:
        sender.bind((bridge, ETHERTYPE_ARP))
        for address in addresses:
            place = socket.inet_aton(address)
            body = ARP_HEADER + hardware + place + bytes(6) + place
            sender.send(EVERYBODY + hardware + struct.pack("!H", ETHERTYPE_ARP) + body)
