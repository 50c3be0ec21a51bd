"""What listens inside VPCs: one loop for all, sockets that come and go, slow guests that hold nobody up."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from iaas.api.inside import loop
from iaas.api.inside.published import PublishedNetworks
from iaas.api.inside.servers import API_THREADS, METADATA_THREADS, GuestServers
from iaas.drivers.interface import METADATA_ADDRESS, SERVICE_ADDRESS, NetworkCapability, PermanentError, VPCSpec
from tests.factories import wait_for
from tests.unit.api.loopback_networks import LoopbackNetworks, ask

ONE, TWO = "127.0.0.7", "127.0.0.8"


def spec(vpc_id: str) -> VPCSpec:
    return VPCSpec(vpc_id=vpc_id, cidr="10.0.0.0/16")


def echo(vpc_id: str, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Say who asks, and for what."""
    body = json.dumps([vpc_id, environ["REMOTE_ADDR"], environ["PATH_INFO"], environ["wsgi.input"].read().decode()])
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body.encode()]


class Held:
    """An application that answers when it is let."""

    def __init__(self) -> None:
        self.let = threading.Event()
        self.entered = threading.Semaphore(0)

    def __call__(self, vpc_id: str, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.entered.release()
        assert self.let.wait(20)
        return echo(vpc_id, environ, start_response)


@pytest.fixture
def driver() -> LoopbackNetworks:
    return LoopbackNetworks()


@pytest.fixture
def servers() -> Iterator[GuestServers]:
    before = set(threading.enumerate())
    made = GuestServers()
    made.connect(echo)  # type: ignore[arg-type]  # another application of the same form
    made.connect_api(echo)
    yield made
    made.close()
    wait_for(lambda: set(threading.enumerate()) <= before, what="the end of all threads")


@pytest.fixture
def published(driver: LoopbackNetworks, servers: GuestServers) -> PublishedNetworks:
    return PublishedNetworks(driver, servers)


def threads_of(name: str) -> int:
    return sum(thread.name.startswith(name) for thread in threading.enumerate())


def test_each_vpc_has_both_services(driver: LoopbackNetworks, published: PublishedNetworks) -> None:
    published.ensure_vpc(spec("vpc-one"))
    published.ensure_vpc(spec("vpc-two"))
    assert sorted(driver.asked) == [
        (vpc, address, 80) for vpc in ("vpc-one", "vpc-two") for address in (SERVICE_ADDRESS, METADATA_ADDRESS)
    ]
    for vpc_id in ("vpc-one", "vpc-two"):
        for address in (SERVICE_ADDRESS, METADATA_ADDRESS):
            status, body, _ = ask(driver.port_of(vpc_id, address), "/x", ONE)
            assert (status, json.loads(body)) == (200, [vpc_id, ONE, "/x", ""])


def test_a_hundred_vpcs_cost_no_more_threads_than_one(driver: LoopbackNetworks, published: PublishedNetworks) -> None:
    vpcs = [f"vpc-{number:03}" for number in range(100)]
    for vpc_id in vpcs:
        published.ensure_vpc(spec(vpc_id))
    for vpc_id in vpcs:
        assert ask(driver.port_of(vpc_id), "/", ONE)[0] == 200
        assert ask(driver.port_of(vpc_id, SERVICE_ADDRESS), "/", ONE)[0] == 200
    assert threads_of("inside-vpcs") == 1
    assert 1 <= threads_of("metadata-") <= METADATA_THREADS
    assert 1 <= threads_of("guest-api-") <= API_THREADS
    for vpc_id in vpcs[1:]:
        published.remove_vpc(vpc_id)
        with pytest.raises(OSError, match=r"refused|reset|closed"):
            ask(driver.port_of(vpc_id), "/", ONE)
    assert ask(driver.port_of(vpcs[0]), "/", ONE)[0] == 200


def test_ensuring_again_changes_nothing(driver: LoopbackNetworks, published: PublishedNetworks) -> None:
    published.ensure_vpc(spec("vpc-one"))
    port = driver.port_of("vpc-one")
    with socket.create_connection(("127.0.0.1", port), timeout=20) as open_one:
        published.ensure_vpc(spec("vpc-one"))
        open_one.sendall(b"GET /still HTTP/1.0\r\n\r\n")
        assert b"/still" in open_one.makefile("rb").read()
    assert ask(port, "/", ONE)[0] == 200


def test_a_router_that_was_made_anew_is_served(driver: LoopbackNetworks, published: PublishedNetworks) -> None:
    published.ensure_vpc(spec("vpc-one"))
    before = driver.port_of("vpc-one")
    driver.make_router_anew("vpc-one")
    published.ensure_vpc(spec("vpc-one"))
    assert ask(driver.port_of("vpc-one"), "/", ONE)[0] == 200
    with pytest.raises(OSError, match=r"refused|reset|closed"):
        ask(before, "/", ONE)


def test_an_address_that_another_process_has_is_an_error(
    driver: LoopbackNetworks, published: PublishedNetworks
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        driver.at["vpc-one", METADATA_ADDRESS] = other.getsockname()[1]
        with pytest.raises(PermanentError, match="cannot listen"):
            published.ensure_vpc(spec("vpc-one"))
    published.ensure_vpc(spec("vpc-one"))
    assert ask(driver.port_of("vpc-one"), "/", ONE)[0] == 200


def test_the_next_server_listens_where_a_killed_one_did(driver: LoopbackNetworks, servers: GuestServers) -> None:
    first = GuestServers()
    first.connect(echo)  # type: ignore[arg-type]  # as above
    first.serve("vpc-one", driver)
    port = driver.port_of("vpc-one")
    with socket.create_connection(("127.0.0.1", port), timeout=20) as lingering:
        assert ask(port, "/", ONE)[0] == 200
        first.close()
        servers.serve("vpc-one", driver)
        assert driver.port_of("vpc-one") == port
        assert ask(port, "/", ONE)[0] == 200
        assert lingering.recv(1) == b""


def test_a_vpc_that_could_not_be_removed_is_served_on(driver: LoopbackNetworks, published: PublishedNetworks) -> None:
    published.ensure_vpc(spec("vpc-one"))
    driver.keeps_vpcs = True
    with pytest.raises(PermanentError, match="still there"):
        published.remove_vpc("vpc-one")
    assert ask(driver.port_of("vpc-one"), "/", ONE)[0] == 200


def test_a_removed_vpc_leaves_its_address_at_once(driver: LoopbackNetworks, published: PublishedNetworks) -> None:
    published.ensure_vpc(spec("vpc-one"))
    port = driver.port_of("vpc-one")
    with socket.create_connection(("127.0.0.1", port), timeout=20) as idle:
        assert ask(port, "/", ONE)[0] == 200
        published.remove_vpc("vpc-one")
        published.remove_vpc("vpc-one")
        assert idle.recv(1) == b"", "the server's end is closed too"
    with socket.socket() as next_one:
        next_one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        next_one.bind(("127.0.0.1", port))
        next_one.listen()


def test_nothing_is_served_without_the_capability(servers: GuestServers) -> None:
    class Simulated(LoopbackNetworks):
        capabilities: frozenset[NetworkCapability] = frozenset()

    driver = Simulated()
    PublishedNetworks(driver, servers).ensure_vpc(spec("vpc-one"))
    assert driver.asked == []


def test_before_the_cloud_is_there_guests_are_told_to_come_again(driver: LoopbackNetworks) -> None:
    early = GuestServers()
    try:
        early.serve("vpc-one", driver)
        for address in (METADATA_ADDRESS, SERVICE_ADDRESS):
            status, _, headers = ask(driver.port_of("vpc-one", address), "/", ONE)
            assert (status, headers["Retry-After"]) == (503, "1")
    finally:
        early.close()


def test_slow_senders_hold_nobody_up(driver: LoopbackNetworks, published: PublishedNetworks) -> None:
    published.ensure_vpc(spec("vpc-one"))
    port = driver.port_of("vpc-one")
    with ExitStack() as stack:
        for _ in range(loop.MAX_PER_GUEST):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", port), 20, (ONE, 0)))
            slow.sendall(b"GET /half")
        for _ in range(METADATA_THREADS + 1):
            assert ask(port, "/", TWO)[0] == 200
        with pytest.raises(OSError, match=r"reset|closed"):  # one more of the same guest
            ask(port, "/", ONE)
        slow.sendall(b" HTTP/1.0\r\n\r\n")
        assert b"/half" in slow.makefile("rb").read()


def test_few_vpcs_cannot_keep_all_others_out(
    driver: LoopbackNetworks, published: PublishedNetworks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "MAX_CONNECTIONS", 4)
    monkeypatch.setattr(loop, "FAIR_SHARE", 2)
    for vpc_id in ("vpc-one", "vpc-two"):
        published.ensure_vpc(spec(vpc_id))
    greedy = driver.port_of("vpc-one")
    with ExitStack() as stack:
        for number in range(4):
            held = stack.enter_context(
                socket.create_connection(("127.0.0.1", greedy), 20, (f"127.0.1.{number + 1}", 0))
            )
            held.sendall(b"GET /half")
        with pytest.raises(OSError, match=r"reset|closed"):
            ask(greedy, "/", ONE)
        stack.enter_context(socket.create_connection(("127.0.0.1", driver.port_of("vpc-two")), 20, (TWO, 0)))
        assert ask(driver.port_of("vpc-two"), "/", ONE)[0] == 200
    wait_for(lambda: takes_connections(greedy), what="room for the first VPC")


def takes_connections(port: int) -> bool:
    """Return whether a listener takes connections again."""
    try:
        return ask(port, "/", ONE)[0] == 200
    except OSError:
        return False


def test_who_says_nothing_is_hung_up(
    driver: LoopbackNetworks, published: PublishedNetworks, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("IDLE_CONNECTION_S", "LOOK_FOR_IDLE_EVERY_S"):
        monkeypatch.setattr(loop, name, 0)
    published.ensure_vpc(spec("vpc-one"))
    with socket.create_connection(("127.0.0.1", driver.port_of("vpc-one")), timeout=20) as silent:
        assert silent.recv(1) == b""


def test_busy_tenant_apis_leave_metadata_alone(
    driver: LoopbackNetworks, servers: GuestServers, published: PublishedNetworks
) -> None:
    held = Held()
    servers.connect_api(held)
    published.ensure_vpc(spec("vpc-one"))
    port = driver.port_of("vpc-one", SERVICE_ADDRESS)
    with ExitStack() as stack:
        for number in range(API_THREADS + 3):
            busy = stack.enter_context(
                socket.create_connection(("127.0.0.1", port), 20, (f"127.0.1.{number % 4 + 1}", 0))
            )
            busy.sendall(b"GET / HTTP/1.0\r\n\r\n")
        for _ in range(API_THREADS):
            assert held.entered.acquire(timeout=20)
        assert not held.entered.acquire(blocking=False), "no more threads than that"
        assert ask(driver.port_of("vpc-one"), "/", ONE)[0] == 200
        held.let.set()
        assert busy.makefile("rb").read().startswith(b"HTTP/1.0 200")


def test_a_vpc_may_go_while_it_is_answered(
    driver: LoopbackNetworks, servers: GuestServers, published: PublishedNetworks
) -> None:
    held = Held()
    servers.connect_api(held)
    published.ensure_vpc(spec("vpc-one"))
    published.ensure_vpc(spec("vpc-two"))
    with socket.create_connection(("127.0.0.1", driver.port_of("vpc-one", SERVICE_ADDRESS)), timeout=20) as asker:
        asker.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert held.entered.acquire(timeout=20)
        published.remove_vpc("vpc-one")
        assert asker.recv(1) == b""
    held.let.set()
    assert ask(driver.port_of("vpc-two", SERVICE_ADDRESS), "/", ONE)[0] == 200


def test_bodies(driver: LoopbackNetworks, published: PublishedNetworks) -> None:
    published.ensure_vpc(spec("vpc-one"))
    port = driver.port_of("vpc-one", SERVICE_ADDRESS)
    assert json.loads(ask(port, "/", ONE, "POST", body=b"x" * 100_000)[1])[3] == "x" * 100_000
    with socket.create_connection(("127.0.0.1", port), timeout=20) as asker:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        asker.sendall(head + b"3\r\nabc\r\n0\r\n\r\n")
        assert b'"abc"' in asker.makefile("rb").read()


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n", 413, "payload_too_large"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: no\r\n\r\n", 400, "malformed"),
        (b"GET / HTTP/1.1\r\nX: ".ljust(loop.MAX_HEADER_BYTES - 4, b"x") + b"\r\n\r\n", 431, "malformed"),
        (b"\x00\x01\r\n\r\n", 400, "malformed"),
    ],
)
def test_what_is_no_request_is_told_so_in_the_form_of_the_api(
    driver: LoopbackNetworks, published: PublishedNetworks, head: bytes, status: int, code: str
) -> None:
    published.ensure_vpc(spec("vpc-one"))
    with socket.create_connection(("127.0.0.1", driver.port_of("vpc-one", SERVICE_ADDRESS)), timeout=20) as asker:
        asker.sendall(head)
        answer = asker.makefile("rb").read()
    header, _, body = answer.partition(b"\r\n\r\n")
    assert f" {status} ".encode() in header.split(b"\r\n")[0]
    assert b"application/problem+json" in header
    assert json.loads(body)["code"] == code
