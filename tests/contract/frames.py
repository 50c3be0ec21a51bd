"""Frames as bytes, for guests that do not keep to the rules."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address

from tests.contract.wire_guest import WireGuest

BROADCAST = "ff:ff:ff:ff:ff:ff"
# Source: IEEE 802 Numbers (EtherTypes)
IPV4, ARP, VLAN, IPV6, LLDP = 0x0800, 0x0806, 0x8100, 0x86DD, 0x88CC
UDP = 17
ANYBODY = str(IPv4Address(0))  # the source of those who have no address yet
MARK_BYTES = 48  # what ``delivered`` puts behind a frame to know it again
DELIVERY_TIMEOUT_S = 5.0


def ethernet(source: str, payload: bytes, *, kind: int, target: str = BROADCAST) -> bytes:
    """Return a frame; all of these go to everybody unless told otherwise."""
    return mac_bytes(target) + mac_bytes(source) + struct.pack("!H", kind) + payload


def arp(mac: str, address: str, *, sender_mac: str | None = None) -> bytes:
    """Return an announcement that ``address`` is at ``sender_mac`` (the frame's own by default)."""
    header = struct.pack("!HHBBH", 1, IPV4, 6, 4, 1)
    body = mac_bytes(sender_mac or mac) + socket.inet_aton(address) + bytes(6) + socket.inet_aton(address)
    return ethernet(mac, header + body, kind=ARP)


def udp(
    mac: str,
    source: str,
    *,
    source_port: int = 7007,
    port: int = 7007,
    target: str = "255.255.255.255",
    content_bytes: int = 0,
) -> bytes:
    """Return a datagram up to its content, which ends with the mark: bridges cut off what lies behind a datagram."""
    length = content_bytes + MARK_BYTES
    datagram = struct.pack("!HHHH", source_port, port, 8 + length, 0)
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 28 + length, 0, 0, 64, UDP, 0, socket.inet_aton(source), socket.inet_aton(target)
    )
    checksum = sum(struct.unpack("!10H", header))
    checksum = ~((checksum & 0xFFFF) + (checksum >> 16)) & 0xFFFF
    return ethernet(mac, header[:10] + struct.pack("!H", checksum) + header[12:] + datagram, kind=IPV4)


def dhcp(mac: str, *, client: str, source: str = ANYBODY) -> bytes:
    """Return the beginning of a client's DHCP message, sent with ``mac`` in the name of ``client``."""
    plain = udp(mac, source, source_port=68, port=67, content_bytes=240)
    message = bytes([1, 1, 6, 0]) + bytes(24) + mac_bytes(client) + bytes(206)
    return plain + message


def tagged(frame: bytes, *, vlan: int = 7) -> bytes:
    """Return the frame with a VLAN tag."""
    return frame[:12] + struct.pack("!HH", VLAN, vlan) + frame[12:]


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def delivered(sender: WireGuest, receiver: WireGuest, frames: dict[str, bytes], *, last: bytes) -> set[str]:
    """Return the names of the frames that come through from one guest to the other.

    Args:
        sender: sends all of them, in this order.
        receiver: listens at its eth0.
        frames: name -> frame; the name travels behind the frame.
        last: a frame that comes through in any case: when it is there, so is all that was to come.
    """
    end = b"<end of frames>"
    found = set()
    with receiver.raw_socket() as incoming, sender.raw_socket() as outgoing:
        incoming.settimeout(DELIVERY_TIMEOUT_S)
        for name, frame in frames.items():
            outgoing.send(frame + f"<{name}>".encode().ljust(MARK_BYTES, b"."))
        outgoing.send(last + end.ljust(MARK_BYTES, b"."))
        while end not in (data := incoming.recv(2048)):
            found |= {name for name in frames if f"<{name}>".encode() in data}
    return found
