"""Follow a packet through the fabric: it is let in where a NIC's link enters its bridge, and seen wherever it passes.

The guest need not help: the kernel is told to take a frame of ours as one that came in by the guest's own link, so
all that holds for the guest (anti-spoofing, the bridge, the router) holds for it. One socket sees every link of the
fabric, the ends of routers' legs among them. What comes back goes to the guest as well, which takes it for a stray.
"""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from iaas.drivers.interface import PortSpec, ProbeReport, ProbeSpec, Sighting, SubnetSpec
from iaas.drivers.linux import names
from iaas.drivers.linux.links import link_names
from iaas.drivers.linux.namespaces import entered, netlink, run_inside
from iaas.drivers.linux.probe_frames import ETHERTYPE_IP, Kind, Probe, arp_kind_of, arp_question, ethernet
from iaas.kernel.ids import NIC, SUBNET

ETH_P_ALL = 3  # Source: linux/if_ether.h
PACKET_OUTGOING = 4  # Source: packet(7)
ARP_TRIES = 3
ARP_PATIENCE_S = 0.3
FRAME_BYTES = 2048
_AFTER_ANSWER_S = 0.05  # for the last hop of what has just been seen to be seen


@dataclass(slots=True)
class _Deadline:
    """Until when frames are waited for (monotonic seconds); it may come nearer meanwhile."""

    at_s: float


@dataclass(slots=True)
class _Log:
    """What was seen, each place and direction once, in order."""

    sightings: list[Sighting] = field(default_factory=list)
    answered: bool = False
    refused_by: str | None = None

    def add(self, sighting: Sighting) -> None:
        if sighting not in self.sightings:
            self.sightings.append(sighting)


def follow(namespace: str, tag: str, subnet: SubnetSpec, port: PortSpec, spec: ProbeSpec) -> ProbeReport | None:
    """Send the packet and return where it was seen; None while no machine has the NIC plugged.

    Raises:
        ProgramError: this kernel cannot let frames in.
    """
    present = link_names(namespace)
    link = next((name for name in names.port_links(tag, spec.nic_id) if name in present), None)
    if link is None:
        return None
    mac = bytes.fromhex(port.mac.replace(":", ""))
    mark = 0x8000 | secrets.randbelow(0x8000)
    probe = Probe(protocol=spec.protocol, source=spec.source_address, target=spec.target, port=spec.port, mark=mark)
    log = _Log()
    with _doorway(namespace, tag, link) as (door, watch):
        speaker = port.addresses[0] if port.addresses else spec.source_address
        next_hop = _next_hop(subnet, spec.target)
        hardware = _resolve(door, watch, tag, link, mac, speaker, next_hop, log)
        if hardware is not None:
            log.sightings.clear()  # the question's way; from here on the packet's own
            door.send(ethernet(mac, hardware, ETHERTYPE_IP, probe.packet()))
            _watch_packet(watch, tag, link, probe, log, spec.timeout_s)
    return ProbeReport(
        answered=log.answered,
        next_hop=next_hop,
        next_hop_found=hardware is not None,
        refused_by=log.refused_by,
        sightings=tuple(log.sightings),
    )


def _next_hop(subnet: SubnetSpec, target: str) -> str:
    if subnet.cidr is None or subnet.gateway is None:
        return target
    return target if ipaddress.IPv4Address(target) in ipaddress.IPv4Network(subnet.cidr) else subnet.gateway


@contextmanager
def _doorway(namespace: str, tag: str, link: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give a socket whose frames come in by ``link``, and one that sees all links."""
    inner, outer = names.probe_veths(tag, secrets.token_hex(4))
    with netlink(namespace) as handle:
        handle.link("add", ifname=inner, kind="veth", peer={"ifname": outer})
        for name in (inner, outer):
            handle.link("set", index=handle.link_lookup(ifname=name)[0], state="up")
    try:
        run_inside(namespace, ["tc", "qdisc", "add", "dev", outer, "ingress"])
        into = ["action", "mirred", "ingress", "redirect", "dev", link]
        match_all = ["protocol", "all", "u32", "match", "u32", "0", "0"]
        run_inside(namespace, ["tc", "filter", "add", "dev", outer, "parent", "ffff:", *match_all, *into])
        with entered(namespace):
            door = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            watch = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        with door, watch:
            door.bind((inner, 0))
            watch.setblocking(False)
            yield door, watch
    finally:
        with netlink(namespace) as handle, contextlib.suppress(IndexError):
            handle.link("del", index=handle.link_lookup(ifname=inner)[0])


def _resolve(
    door: socket.socket,
    watch: socket.socket,
    tag: str,
    link: str,
    mac: bytes,
    source: str,
    target: str,
    log: _Log,
) -> bytes | None:
    """Ask for the next hop's MAC, as the guest would; None when nobody answers."""
    for _ in range(ARP_TRIES):
        door.send(arp_question(mac, source, target))
        for name, leaves, frame in _frames(watch, _Deadline(time.monotonic() + ARP_PATIENCE_S)):
            found = arp_kind_of(frame, source, target)
            if found is None:
                continue
            _note(log, tag, name, leaves, is_back=found[0] is Kind.FOUND)
            if found[0] is Kind.FOUND and (name, leaves) == (link, True):
                return found[1]
    return None


def _watch_packet(watch: socket.socket, tag: str, link: str, probe: Probe, log: _Log, patience_s: float) -> None:
    deadline = _Deadline(time.monotonic() + patience_s)
    for name, leaves, frame in _frames(watch, deadline):
        kind = probe.kind_of(frame)
        if kind is None:
            continue
        _note(log, tag, name, leaves, is_back=kind is not Kind.SENT)
        if kind in (Kind.ANSWER, Kind.REFUSAL) and (name, leaves) == (link, True):
            if kind is Kind.ANSWER:
                log.answered = True
            else:
                log.refused_by = socket.inet_ntoa(frame[26:30])
            deadline.at_s = time.monotonic() + _AFTER_ANSWER_S


def _note(log: _Log, tag: str, name: str, leaves: bool, *, is_back: bool) -> None:
    place = _place(tag, name)
    if place is not None:
        log.add(Sighting(place=place, leaves=leaves, is_back=is_back))


def _place(tag: str, name: str) -> str | None:
    """Return the id of the NIC, or of the subnet whose router leg it is."""
    for prefix, kind in ((names.TAP, NIC), (names.CONTAINER_VETH, NIC), (names.ROUTER_VETH, SUBNET)):
        if name.startswith(f"{prefix}{tag}"):
            return f"{kind}-{name[len(prefix) + len(tag) :]}"
    return None


def _frames(watch: socket.socket, deadline: _Deadline) -> Iterator[tuple[str, bool, bytes]]:
    """Yield (link, whether it leaves the fabric there, frame) until the time is over."""
    while True:
        left_s = deadline.at_s - time.monotonic()
        if left_s <= 0 or not select.select([watch], [], [], left_s)[0]:
            return
        with contextlib.suppress(BlockingIOError):
            frame, (name, _, kind, *_) = watch.recvfrom(FRAME_BYTES)
            yield name, kind == PACKET_OUTGOING, frame
