"""Questions asked by packets: many at once, from inside the guests' network namespaces and nowhere else.

Every guest listens at ``PORTS`` and says who it is, so that an answer from somebody else with the same address is
not taken for the right one. One thread moves all of it: it enters a namespace only to make sockets there.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Self

from iaas.drivers.linux.namespaces import entered
from iaas.reachability import AddressIn, Protocol, Question, Topology
from tests.reachability.wires import Wires
from tests.reachability.worlds import DNS_PORT, PORTS, UDP_PORTS, held

OWN_NAMESPACE = "/proc/thread-self/ns/net"
RESEND_AFTER_S = 0.35
ECHO_REQUEST, ECHO_REPLY = 8, 0  # Source: RFC 792
TCP_AGAIN = frozenset({errno.EINPROGRESS, errno.EAGAIN})


@dataclass(frozen=True, slots=True)
class Probe:
    """One packet to send, and by whom (guest ids, or a VPC's id for its router) an answer counts."""

    namespace: str
    source_address: str
    target_address: str
    protocol: Protocol
    port: int | None
    right_answers: frozenset[str]


def probes_for(topology: Topology, wires: Wires, questions: Iterable[Question]) -> Iterator[Probe]:
    """Yield the probe of each question. Sources run and have the address that they speak with."""
    ports = {port.nic_id: port for port in topology.ports}
    vpcs = {subnet.subnet_id: subnet.vpc_id for subnet in topology.subnets}
    holders: dict[tuple[str, str], list[str]] = {}
    there: dict[tuple[str | None, str], set[str]] = {}  # who has the address on a NIC of the VPC
    joined: dict[tuple[str | None, str], set[str]] = {}  # who has the address, and a NIC of the VPC
    for guest in topology.guests:
        local = [address for each in guest.interfaces for address in held(each, ports[each.nic_id])]
        for each in guest.interfaces:
            vpc_id = vpcs[ports[each.nic_id].subnet_id]
            for address in held(each, ports[each.nic_id]):
                holders.setdefault((each.nic_id, address), []).append(guest.guest_id)
                there.setdefault((vpc_id, address), set()).add(guest.guest_id)
            for address in local:
                joined.setdefault((vpc_id, address), set()).add(guest.guest_id)
    for question in questions:
        assert isinstance(question.source, str)
        assert question.source_address is not None
        (source,) = holders[question.source, question.source_address]
        if isinstance(question.target, AddressIn):
            place, address = question.target, question.target.address
            # From outside a guest answers for any of its addresses; itself it has not left for the VPC.
            right = {place.vpc_id} | joined.get((place.vpc_id, address), set()) - {source}
            if source in there.get((place.vpc_id, address), set()):
                right.add(source)
        else:
            address = question.target_address or ""
            right = set(holders.get((question.target, address), ()))
        yield Probe(
            wires.namespaces[source],
            question.source_address,
            address,
            question.protocol,
            question.port,
            frozenset(right),
        )


class NotInside(RuntimeError):
    """The thread is in the machine's own network namespace: a packet from there would leave the machine."""


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Run the block in a namespace; raises NotInside when the thread is in it already: that is the machine's own."""
    home = os.stat(OWN_NAMESPACE).st_ino
    with entered(namespace):
        if os.stat(OWN_NAMESPACE).st_ino == home:
            raise NotInside(f"{namespace} is the machine's own network namespace")
        yield


@dataclass(eq=False, slots=True)
class _Flight:
    """One probe under way."""

    probe: Probe
    number: int
    socket: socket.socket
    is_open: bool = True
    answered_by: str | None = None
    seen: bytes = b""


@dataclass
class Prober:
    """Listens in all guests and routers of the wires; sends probes when asked to. Closed by the end of its block."""

    wires: Wires
    addresses: dict[str, list[str]]  # of the guests that run, by guest id
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _open: ExitStack = field(default_factory=ExitStack)
    _listening: dict[socket.socket, tuple[str, bool]] = field(default_factory=dict)
    _numbers: int = 0

    @classmethod
    def of(cls, topology: Topology, wires: Wires) -> Self:
        """Return a prober for a topology and its wires."""
        ports = {port.nic_id: port for port in topology.ports}
        addresses = {
            guest.guest_id: list(
                dict.fromkeys(address for each in guest.interfaces for address in held(each, ports[each.nic_id]))
            )
            for guest in topology.guests
            if guest.guest_id in wires.namespaces
        }
        return cls(wires, addresses)

    def __enter__(self) -> Self:
        self._open.callback(self._selector.close)
        with ExitStack() as undo:
            undo.enter_context(self._open)
            for guest_id, addresses in self.addresses.items():
                with inside(self.wires.namespaces[guest_id]):
                    self._listen_in(guest_id, addresses)
            for listener, vpc_id in self.wires.listeners:
                self._watch(listener, vpc_id, is_stream=True)
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _listen_in(self, guest_id: str, addresses: Sequence[str]) -> None:
        for port in PORTS:
            stream = self._open.enter_context(socket.create_server(("", port), backlog=256))
            self._watch(stream, guest_id, is_stream=True)
        for port in UDP_PORTS:
            for address in addresses:  # one for each, that the answer comes from the address that was asked
                datagram = self._open.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                datagram.bind((address, port))
                self._watch(datagram, guest_id, is_stream=False)

    def _watch(self, listener: socket.socket, name: str, *, is_stream: bool) -> None:
        listener.setblocking(False)
        self._listening[listener] = (name, is_stream)
        self._selector.register(listener, selectors.EVENT_READ, None)

    def send(self, probes: Sequence[Probe], *, window_s: float) -> list[bool]:
        """Return for each probe whether the right one answered within ``window_s``. All are under way at once."""
        flights: list[_Flight] = []
        by_namespace: dict[str, list[tuple[int, Probe]]] = {}
        for place, probe in enumerate(probes):
            by_namespace.setdefault(probe.namespace, []).append((place, probe))
        order: list[int] = []
        with ExitStack() as sockets:
            for namespace, group in by_namespace.items():
                with inside(namespace):
                    for place, probe in group:
                        self._numbers += 1
                        made = sockets.enter_context(_socket_for(probe))
                        flights.append(_Flight(probe, self._numbers, made))
                        order.append(place)
            for flight in flights:
                self._start(flight)
            self._wait(flights, window_s)
            for flight in flights:
                self._end(flight)
        answers = dict(zip(order, (_is_right(flight) for flight in flights), strict=True))
        return [answers[place] for place in range(len(probes))]

    def _start(self, flight: _Flight) -> None:
        probe = flight.probe
        # A name server says nothing before it is asked: that it takes the connection is all there is to see.
        events = selectors.EVENT_WRITE if probe.port == DNS_PORT else selectors.EVENT_READ
        try:
            if probe.protocol != Protocol.ICMP:
                found = flight.socket.connect_ex((probe.target_address, probe.port))
                if found and found not in TCP_AGAIN:
                    flight.is_open = False
                    return
            self._selector.register(flight.socket, events, flight)
            if probe.protocol != Protocol.TCP:
                self._transmit(flight)
        except OSError:  # the guest itself knows no way
            self._end(flight)

    def _transmit(self, flight: _Flight) -> None:
        probe = flight.probe
        if probe.protocol == Protocol.UDP:
            flight.socket.send(flight.number.to_bytes(4))
        else:
            flight.socket.sendto(_echo_request(flight.number), (probe.target_address, 0))

    def _wait(self, flights: list[_Flight], window_s: float) -> None:
        deadline = time.monotonic() + window_s
        resend_at = time.monotonic() + RESEND_AFTER_S
        while any(flight.is_open for flight in flights) and (now := time.monotonic()) < deadline:
            if now >= resend_at:
                resend_at = now + RESEND_AFTER_S
                for flight in flights:
                    if flight.is_open and flight.probe.protocol != Protocol.TCP:
                        self._try(flight, self._transmit)
            for key, _ in self._selector.select(max(0.0, min(deadline, resend_at) - now)):
                if isinstance(key.data, _Flight):
                    self._try(key.data, self._receive)
                elif isinstance(key.fileobj, socket.socket):
                    self._answer(key.fileobj)

    def _try(self, flight: _Flight, action: Callable[[_Flight], None]) -> None:
        try:
            action(flight)
        except BlockingIOError:
            pass
        except OSError:  # the network says that there is no way, or nobody
            self._end(flight)

    def _end(self, flight: _Flight) -> None:
        if flight.socket in self._selector.get_map():
            self._selector.unregister(flight.socket)
        flight.is_open = False

    def _receive(self, flight: _Flight) -> None:
        if flight.probe.protocol == Protocol.ICMP:
            packet, _ = flight.socket.recvfrom(2048)
            if _is_echo_reply(packet, flight):
                flight.answered_by = next(iter(flight.probe.right_answers), "")
                self._end(flight)
            return
        if flight.probe.port == DNS_PORT:
            if flight.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                flight.answered_by = next(iter(flight.probe.right_answers), "")
            self._end(flight)
            return
        received = flight.socket.recv(2048)
        flight.seen += received
        if flight.probe.protocol == Protocol.TCP and received:
            return  # there may be more of it
        flight.answered_by = flight.seen.decode()
        self._end(flight)

    def _answer(self, listener: socket.socket) -> None:
        name, is_stream = self._listening[listener]
        try:
            if is_stream:
                accepted, _ = listener.accept()
                with accepted:
                    accepted.sendall(name.encode())
            else:
                _, peer = listener.recvfrom(2048)
                listener.sendto(name.encode(), peer)
        except OSError:  # whoever asked is gone, or there is no way back: nobody hears the answer
            return


def _is_right(flight: _Flight) -> bool:
    return flight.answered_by is not None and flight.answered_by in flight.probe.right_answers


def _socket_for(probe: Probe) -> socket.socket:
    """Return the socket of a probe, made in the namespace of the calling thread and bound to its source."""
    match probe.protocol:
        case Protocol.ICMP:
            made = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        case Protocol.TCP:
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        case Protocol.UDP:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    try:
        made.bind((probe.source_address, 0))
    except OSError:
        made.close()
        raise
    return made


def _echo_request(number: int) -> bytes:
    header = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, number >> 16, number & 0xFFFF)
    total = sum(struct.unpack("!4H", header))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    return struct.pack("!BBHHH", ECHO_REQUEST, 0, checksum, number >> 16, number & 0xFFFF)


def _is_echo_reply(packet: bytes, flight: _Flight) -> bool:
    offset = (packet[0] & 15) * 4  # an IP header in words of four bytes. Source: raw(7), RFC 791
    kind, _, _, high, low = struct.unpack_from("!BBHHH", packet, offset)
    sender = socket.inet_ntoa(packet[12:16])
    return kind == ECHO_REPLY and (high << 16 | low) == flight.number and sender == flight.probe.target_address
