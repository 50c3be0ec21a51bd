"""The frames of a probe: an ARP question, an echo request, a TCP SYN, a UDP datagram; and what answers to them.

Sources: RFC 826 (ARP), RFC 791 (IPv4), RFC 792 (ICMP), RFC 9293 (TCP), RFC 768 (UDP).
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from enum import Enum, auto

ETHERTYPE_IP = 0x0800
ETHERTYPE_ARP = 0x0806
BROADCAST = bytes([0xFF] * 6)
ICMP, TCP, UDP = 1, 6, 17
PROTOCOLS = {"icmp": ICMP, "tcp": TCP, "udp": UDP}
TTL = 64
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_ARP_REQUEST, _ARP_REPLY = 1, 2
_ICMP_ECHO, _ICMP_ECHO_REPLY, _ICMP_UNREACHABLE, _ICMP_TIME_EXCEEDED = 8, 0, 3, 11
_SYN = 0x02


class Kind(Enum):
    """What a frame is to a probe."""

    ASKED = auto()  # the ARP question
    FOUND = auto()  # its answer
    SENT = auto()
    ANSWER = auto()
    REFUSAL = auto()  # a router's or guest's ICMP error about it


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One packet from ``source`` to ``target``, both IPv4; ``mark`` tells it from others (an id, or a source port)."""

    protocol: str
    source: str
    target: str
    port: int | None
    mark: int

    def packet(self) -> bytes:
        """Return the IPv4 packet."""
        body = self._body()
        source, target = socket.inet_aton(self.source), socket.inet_aton(self.target)
        number = PROTOCOLS[self.protocol]
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), self.mark, 0, TTL, number, 0) + source + target
        return header[:10] + struct.pack("!H", _checksum(header)) + header[12:] + body

    def _body(self) -> bytes:
        source, target = socket.inet_aton(self.source), socket.inet_aton(self.target)
        if self.protocol == "icmp":
            echo = struct.pack("!BBHHH", _ICMP_ECHO, 0, 0, self.mark, 1)
            return echo[:2] + struct.pack("!H", _checksum(echo)) + echo[4:]
        if self.protocol == "tcp":
            segment = struct.pack("!HHIIBBHHH", self.mark, self.port, self.mark, 0, 5 << 4, _SYN, 8192, 0, 0)
            pseudo = source + target + struct.pack("!BBH", 0, TCP, len(segment))
            return segment[:16] + struct.pack("!H", _checksum(pseudo + segment)) + segment[18:]
        return struct.pack("!HHHH", self.mark, self.port, 8, 0)  # no checksum: none is needed over IPv4

    def kind_of(self, frame: bytes) -> Kind | None:
        """Return what an Ethernet frame is to this probe; None when it has nothing to do with it."""
        if len(frame) < 34 or frame[12:14] != struct.pack("!H", ETHERTYPE_IP):
            return None
        packet = frame[14:]
        if self._is_sent(packet):
            return Kind.SENT
        header_size = (packet[0] & 0x0F) * 4
        source, target, number = packet[12:16], packet[16:20], packet[9]
        if target != socket.inet_aton(self.source):
            return None
        body = packet[header_size:]
        if number == ICMP and len(body) >= 8 and body[0] in (_ICMP_UNREACHABLE, _ICMP_TIME_EXCEEDED):
            return Kind.REFUSAL if self._is_sent(body[8:]) else None
        if source != socket.inet_aton(self.target) or number != PROTOCOLS[self.protocol] or len(body) < 8:
            return None
        if self.protocol == "icmp":
            kind, mark = body[0], struct.unpack("!H", body[4:6])[0]
            return Kind.ANSWER if (kind, mark) == (_ICMP_ECHO_REPLY, self.mark) else None
        ports: tuple[int, int] = struct.unpack("!HH", body[:4])
        return Kind.ANSWER if ports == (self.port, self.mark) else None

    def _is_sent(self, packet: bytes) -> bool:
        if len(packet) < 28 or packet[9] != PROTOCOLS[self.protocol]:
            return False
        ends = packet[12:16], packet[16:20]
        if ends != (socket.inet_aton(self.source), socket.inet_aton(self.target)):
            return False
        body = packet[(packet[0] & 0x0F) * 4 :]
        if self.protocol == "icmp":
            return body[0] == _ICMP_ECHO and struct.unpack("!H", body[4:6])[0] == self.mark
        return bool(struct.unpack("!HH", body[:4]) == (self.mark, self.port))


def ethernet(source_mac: bytes, target_mac: bytes, ethertype: int, payload: bytes) -> bytes:
    return target_mac + source_mac + struct.pack("!H", ethertype) + payload


def arp_question(mac: bytes, source: str, target: str) -> bytes:
    """Return the frame that asks who has ``target``."""
    asked = _ARP.pack(
        1, ETHERTYPE_IP, 6, 4, _ARP_REQUEST, mac, socket.inet_aton(source), bytes(6), socket.inet_aton(target)
    )
    return ethernet(mac, BROADCAST, ETHERTYPE_ARP, asked)


def arp_kind_of(frame: bytes, source: str, target: str) -> tuple[Kind, bytes] | None:
    """Return whether the frame is the question of ``source`` for ``target``, or an answer, and its sender's MAC."""
    if len(frame) < 14 + _ARP.size or frame[12:14] != struct.pack("!H", ETHERTYPE_ARP):
        return None
    *_, operation, mac, sender, _, wanted = _ARP.unpack_from(frame, 14)
    here, there = socket.inet_aton(source), socket.inet_aton(target)
    if (operation, sender, wanted) == (_ARP_REQUEST, here, there):
        return Kind.ASKED, mac
    if (operation, sender, wanted) == (_ARP_REPLY, there, here):
        return Kind.FOUND, mac
    return None


def _checksum(data: bytes) -> int:
    """Return the Internet checksum. Source: RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
