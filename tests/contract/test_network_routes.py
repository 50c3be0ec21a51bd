"""Routes of a VPC, seen by packets."""

from __future__ import annotations

import dataclasses
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle, islice

import pytest

from iaas.drivers.interface import BLACKHOLE, AllowedPair, PermanentError, RouteSpec, TransientError, VPCSpec
from iaas.drivers.linux import names
from iaas.drivers.linux.namespaces import entered, run_inside
from tests.contract.network_subjects import NetworkSubject
from tests.contract.wire_guest import CONNECT_TIMEOUT_S, WireGuest, plug
from tests.real_host import RealHost

POD_RANGE, POD = "10.244.1.0/24", "10.244.1.7"
ECHO_PORT = 7007
SWAPS = 10
IP_RECVERR = 11  # Source: ip(7), linux/in.h


def routed(vpc: VPCSpec, *routes: tuple[str, str]) -> VPCSpec:
    """Return the VPC with these (destination, next hop) in place of those it had."""
    specs = tuple(RouteSpec(destination=destination, next_hop=next_hop) for destination, next_hop in routes)
    return dataclasses.replace(vpc, routes=specs, revision=vpc.revision + 1)


@contextmanager
def echoing(guest: WireGuest, address: str, name: str) -> Iterator[None]:
    """Let the guest answer every datagram with its name and the asker's address."""
    with entered(guest.namespace):
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, ECHO_PORT))
    server.settimeout(0.1)
    closing = threading.Event()

    def serve() -> None:
        while not closing.is_set():
            try:
                _, peer = server.recvfrom(100)
                server.sendto(f"{name} {peer[0]}".encode(), peer)
            except TimeoutError:
                continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        closing.set()
        thread.join()
        server.close()


def asking(guest: WireGuest, address: str, *, timeout_s: float = CONNECT_TIMEOUT_S) -> socket.socket:
    """Return a socket whose datagrams go to an echo; the caller closes it."""
    with entered(guest.namespace):
        asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asker.settimeout(timeout_s)
    # Else "net unreachable" is taken for something that may pass, and not told.
    asker.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    asker.connect((address, ECHO_PORT))
    return asker


def ask(guest: WireGuest, address: str, *, timeout_s: float = CONNECT_TIMEOUT_S) -> str:
    """Return what the echo says; raises OSError (TimeoutError among them) when there is no answer."""
    with asking(guest, address, timeout_s=timeout_s) as asker:
        asker.send(b"?")
        return asker.recv(100).decode()


class Wire:
    """A client on one subnet, two nodes on another, both of which have the pod's address behind them."""

    def __init__(self, wired: NetworkSubject, host: RealHost) -> None:
        self.vpc = wired.vpc()
        self._wired = wired
        near, far = wired.subnet(self.vpc), wired.subnet(self.vpc, cidr="10.77.1.0/24")
        self._undo = ExitStack()
        self.client = self._undo.enter_context(plug(host, wired.port(near, "10.77.0.10"), subnet=near))
        self.node_ports = [
            wired.port(far, f"10.77.1.{number}", allowed_pairs=(AllowedPair(cidr=POD_RANGE),)) for number in (10, 11)
        ]
        for name, port in zip(("first", "second"), self.node_ports, strict=True):
            node = self._undo.enter_context(plug(host, port, subnet=far))
            node.add_address(POD, 32, interface="lo")
            self._undo.enter_context(echoing(node, POD, name))

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def route(self, *routes: tuple[str, str]) -> None:
        self.vpc = routed(self.vpc, *routes)
        self._wired.driver.ensure_vpc(self.vpc)


def test_a_route_leads_to_its_next_hop_for_as_long_as_it_is_there(wired: NetworkSubject, host: RealHost) -> None:
    with Wire(wired, host) as wire:
        with pytest.raises(OSError, match="unreachable"):
            ask(wire.client, POD)
        wire.route((POD_RANGE, "10.77.1.10"))
        assert ask(wire.client, POD) == "first 10.77.0.10"  # nothing is translated
        wire.route((POD_RANGE, "10.77.1.11"))
        assert ask(wire.client, POD) == "second 10.77.0.10"
        # The longer prefix wins.
        wire.route((POD_RANGE, "10.77.1.11"), (f"{POD}/32", "10.77.1.10"))
        assert ask(wire.client, POD) == "first 10.77.0.10"
        wire.route((POD_RANGE, BLACKHOLE), ("0.0.0.0/0", "10.77.1.10"))
        with pytest.raises(OSError, match="unreachable"):
            ask(wire.client, POD)
        wire.route(("0.0.0.0/0", "10.77.1.10"))
        assert ask(wire.client, POD) == "first 10.77.0.10"
        wire.route()
        with pytest.raises(OSError, match="unreachable"):
            ask(wire.client, POD)


def test_a_routed_range_needs_the_right_to_speak_for_it(wired: NetworkSubject, host: RealHost) -> None:
    with Wire(wired, host) as wire:
        wire.route((POD_RANGE, "10.77.1.10"))
        port = dataclasses.replace(wire.node_ports[0], allowed_pairs=(), revision=1)
        wired.driver.ensure_port(port)
        with pytest.raises(TimeoutError):
            ask(wire.client, POD, timeout_s=0.5)
        wired.driver.ensure_port(dataclasses.replace(wire.node_ports[0], revision=2))
        assert ask(wire.client, POD) == "first 10.77.0.10"


def test_no_packet_is_lost_while_all_routes_are_exchanged(wired: NetworkSubject, host: RealHost) -> None:
    others = [f"10.{100 + number // 256}.{number % 256}.0/24" for number in range(300)]
    with Wire(wired, host) as wire:
        wire.route((POD_RANGE, "10.77.1.10"))
        done = threading.Event()

        def exchange() -> None:
            try:
                for next_hop in islice(cycle(("10.77.1.11", "10.77.1.10")), SWAPS):
                    wire.route((POD_RANGE, next_hop), *((other, next_hop) for other in others))
            finally:
                done.set()

        thread = threading.Thread(target=exchange)
        thread.start()
        answers = set()
        try:
            with asking(wire.client, POD) as asker:
                while not done.is_set():
                    asker.send(b"?")  # raises when an earlier one was refused
                    answers.add(asker.recv(100))  # raises when this one was lost
        finally:
            thread.join()
        assert answers == {b"first 10.77.0.10", b"second 10.77.0.10"}
        assert wire.vpc.revision == SWAPS + 1


def test_a_subnets_own_block_is_not_routed_away(wired: NetworkSubject, host: RealHost) -> None:
    with Wire(wired, host) as wire:
        wire.route(("10.77.0.0/24", "10.77.1.10"), ("10.77.1.0/24", BLACKHOLE), ("10.77.0.0/16", BLACKHOLE))
        with wire.client.listen("10.77.0.10", 80):
            wired.driver.dial(wire.vpc.vpc_id, "10.77.0.10", 80, timeout_s=5).close()


def test_what_no_subnet_has_can_be_routed_inside_the_block(wired: NetworkSubject, host: RealHost) -> None:
    with Wire(wired, host) as wire:
        wire.route(("10.77.200.0/24", "10.77.0.10"))
        wire.client.add_address("10.77.200.7", 32, interface="lo")
        with wire.client.listen("10.77.200.7", 80), pytest.raises(TransientError):
            # The way there is open, the way back is not: nobody allowed it.
            wired.driver.dial(wire.vpc.vpc_id, "10.77.200.7", 80, timeout_s=0.5)


def test_a_next_hop_without_a_subnet_refuses_until_it_has_one(wired: NetworkSubject, host: RealHost) -> None:
    vpc = wired.vpc(routes=(RouteSpec(destination=POD_RANGE, next_hop="10.77.1.10"),))
    near = wired.subnet(vpc)
    with plug(host, wired.port(near, "10.77.0.10"), subnet=near) as client:
        with pytest.raises(OSError, match="unreachable"):
            ask(client, POD)
        far = wired.subnet(vpc, cidr="10.77.1.0/24")
        port = wired.port(far, "10.77.1.10", allowed_pairs=(AllowedPair(cidr=POD_RANGE),))
        with plug(host, port, subnet=far) as node:
            node.add_address(POD, 32, interface="lo")
            with echoing(node, POD, "node"):
                assert ask(client, POD) == "node 10.77.0.10"
                wired.driver.remove_subnet(far.subnet_id)
                with pytest.raises(OSError, match="unreachable"):
                    ask(client, POD)


@pytest.mark.parametrize("next_hop", ["10.77.0.1", "10.77.0.0", "10.77.0.255", "192.0.2.1"])
def test_a_next_hop_that_no_guest_can_have_refuses(wired: NetworkSubject, host: RealHost, next_hop: str) -> None:
    vpc = wired.vpc(routes=(RouteSpec(destination=POD_RANGE, next_hop=next_hop),))
    subnet = wired.subnet(vpc)
    with (
        plug(host, wired.port(subnet, "10.77.0.10"), subnet=subnet) as client,
        pytest.raises(OSError, match="unreachable"),
    ):
        ask(client, POD)


def test_destinations_of_routes_can_be_dialled(wired: NetworkSubject, host: RealHost) -> None:
    with Wire(wired, host) as wire:
        with pytest.raises(PermanentError):
            wired.driver.dial(wire.vpc.vpc_id, POD, 80, timeout_s=1)
        wire.route((POD_RANGE, "10.77.1.10"))
        with pytest.raises(TransientError, match="refused"):  # by the node: nobody listens there
            wired.driver.dial(wire.vpc.vpc_id, POD, 80, timeout_s=5)


def test_routes_cut_short_by_a_kill_are_completed(wired: NetworkSubject, host: RealHost) -> None:
    with Wire(wired, host) as wire:
        wire.route((POD_RANGE, "10.77.1.10"))
        router = names.router_namespace(host.tag, wire.vpc.vpc_id)
        (line,) = [each for each in run_inside(router, ["ip", "rule"]).splitlines() if each.startswith("1000:")]
        table = line.split()[-1]
        other = {"101": "102", "102": "101"}[table]
        # Between the two steps of an exchange: the new table is half-filled, and the rule for it may be there already.
        for rules in ([], [f"preference 999 lookup {table}"], [f"preference 999 lookup {other}"]):
            run_inside(router, ["ip", "route", "replace", "unreachable", "10.9.9.0/24", "table", other])
            for rule in rules:
                run_inside(router, ["ip", "rule", "add", *rule.split()])
            wire.route((POD_RANGE, "10.77.1.11"))
            assert ask(wire.client, POD) == "second 10.77.0.10"
            wire.route((POD_RANGE, "10.77.1.10"))
            assert ask(wire.client, POD) == "first 10.77.0.10"
            left = [each for each in run_inside(router, ["ip", "rule"]).splitlines() if " 10" in each]
            assert len(left) == 1
            run_inside(router, ["ip", "rule", "del", "preference", "1000"])
            run_inside(router, ["ip", "rule", "add", "preference", "1000", "lookup", table])
            wired.driver.ensure_vpc(wire.vpc)
            assert ask(wire.client, POD) == "first 10.77.0.10"
