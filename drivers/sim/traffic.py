"""What simulated guests send each other, and what their links count of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from iaas.drivers.sim.links import Traffic, count, count_dropped
from iaas.drivers.sim.reach import GuestWay, Holder, way_from_guest
from iaas.drivers.sim.web import HTTP_PORT, answer

if TYPE_CHECKING:
    from iaas.drivers.sim.guest import Guest

PING_BYTES = 98  # on the wire: 56 of data, ICMP, IP and Ethernet
FRAME_BYTES = 66  # Ethernet, IP and TCP without data
SEGMENT_BYTES = 1448
HANDSHAKE_PACKETS = 4  # SYN and ACK, FIN and ACK, each way


class UnreachableError(Exception):
    """Nothing answers. ``at_once`` when somebody says so; else only time tells."""

    def __init__(self, *, at_once: bool) -> None:
        super().__init__("no way")
        self.at_once = at_once


class RefusedError(Exception):
    """Somebody is there, and does not listen on the port."""


class Echo(NamedTuple):
    """What became of pings."""

    received: int
    hops_left: int  # the time to live of the answers


def ping(guest: Guest, address: str, packets: int) -> Echo:
    """Send pings and return what came back.

    Raises:
        UnreachableError: the guest itself has no way there.
    """
    going = way_from_guest(guest.connection, guest.facts, guest.namespace, address)
    if going.local:
        return Echo(packets, 64)
    if going.nic is None:
        raise UnreachableError(at_once=True)
    _send(guest, going, Traffic(packets, packets * PING_BYTES))
    holder = _awake(guest, going)
    if holder is None and not going.way.router:
        return Echo(0, 0)
    _receive(guest, going, Traffic(packets, packets * PING_BYTES))
    if holder is not None:
        _count_at(guest, holder, Traffic(packets, packets * PING_BYTES), Traffic(packets, packets * PING_BYTES))
    return Echo(packets, 63 if going.way.routed else 64)


def exchange(guest: Guest, address: str, port: int, request: bytes) -> bytes:
    """Open a TCP connection, send ``request`` and return the answer; without a request none is waited for.

    Raises:
        UnreachableError: nobody answers.
        RefusedError: nothing listens on the port.
    """
    going = way_from_guest(guest.connection, guest.facts, guest.namespace, address)
    if going.local:
        if port != HTTP_PORT:
            raise RefusedError
        return answer(guest, request) if request else b""
    if going.nic is None:
        raise UnreachableError(at_once=True)
    holder = _awake(guest, going)
    if holder is None and not going.way.router:
        _send(guest, going, Traffic(1, FRAME_BYTES))
        raise UnreachableError(at_once=going.way.refused)
    there = None if holder is None else guest.peer(holder.machine.machine_id)
    listens = there is not None and port == HTTP_PORT
    reply = answer(there, request) if there is not None and listens and request else b""
    sent, received = (_stream(request), _stream(reply)) if listens else (Traffic(1, FRAME_BYTES),) * 2
    _send(guest, going, sent)
    _receive(guest, going, received)
    if holder is not None:
        _count_at(guest, holder, sent, received)
    if not listens:
        raise RefusedError
    return reply


def _stream(data: bytes) -> Traffic:
    packets = HANDSHAKE_PACKETS + -(-len(data) // SEGMENT_BYTES)
    return Traffic(packets, packets * FRAME_BYTES + len(data))


def _awake(guest: Guest, going: GuestWay) -> Holder | None:
    """Return who answers, if its guest is up."""
    holder = going.way.holder
    return holder if holder is not None and holder.machine.is_ready(guest.facts.now_us) else None


def _send(guest: Guest, going: GuestWay, traffic: Traffic) -> None:
    if going.nic is None:
        return
    machine_id, nic = guest.facts.machine_id, going.nic
    count(guest.connection, machine_id, nic.nic_id, sent=traffic)
    if going.dropped:
        count_dropped(guest.connection, machine_id, nic.nic_id, traffic.packets)


def _receive(guest: Guest, going: GuestWay, traffic: Traffic) -> None:
    if going.nic is not None:
        count(guest.connection, guest.facts.machine_id, going.nic.nic_id, received=traffic)


def _count_at(guest: Guest, holder: Holder, received: Traffic, sent: Traffic) -> None:
    count(guest.connection, holder.machine.machine_id, holder.nic_id, received=received, sent=sent)
