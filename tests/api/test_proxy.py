"""The way to guests: an HTTP proxy that knows CONNECT only, driven over real sockets."""

from __future__ import annotations

import base64
import json
import socket
import struct
from collections.abc import Iterator

import pytest

from iaas.api.proxy import GuestProxy
from iaas.cloud import Cloud
from iaas.resources.common import Role
from iaas.resources.networks import NewNIC
from tests.api.server_process import receive_all
from tests.factories import TOKEN, create, operator, principal_in, settle, world

ASK = b"GET / HTTP/1.0\r\n\r\n"


@pytest.fixture
def proxy(cloud: Cloud) -> Iterator[GuestProxy]:
    made = GuestProxy(cloud, "127.0.0.1")
    made.start()
    yield made
    made.stop()


def dial(proxy: GuestProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=20)


def ask(proxy: GuestProxy, target: str, token: str | None = TOKEN, then: bytes = ASK, method: str = "CONNECT") -> bytes:
    """Return all that comes after CONNECT to ``target`` and, once that is accepted, ``then``."""
    header = f"Proxy-Authorization: Bearer {token}\r\n" if token is not None else ""
    with dial(proxy) as connection:
        connection.sendall(f"{method} {target} HTTP/1.1\r\nHost: {target}\r\n{header}\r\n".encode("latin-1") + then)
        return receive_all(connection)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def code(answer: bytes) -> str:
    """Return the code of a refusal, which is a problem document."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    document = json.loads(body)
    assert document["status"] == status(answer)
    return str(document["code"])


@pytest.mark.parametrize("kind", ["vm", "container"])
def test_a_guest_answers_http(proxy: GuestProxy, cloud: Cloud, kind: str) -> None:
    instance = create(cloud, name="web", kind=kind)
    for name in ("web", instance.id):
        answer = ask(proxy, f"{name}:80")
        assert answer.startswith(b"HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.0 200 OK")
        assert f"id={instance.id}".encode() in answer


def test_the_token_may_come_as_a_password(proxy: GuestProxy, cloud: Cloud) -> None:
    create(cloud, name="web")
    for user, password, wanted in (("iaas", TOKEN, 200), ("", TOKEN, 200), (TOKEN, "", 407), ("iaas", "wrong", 407)):
        basic = base64.b64encode(f"{user}:{password}".encode()).decode()
        with dial(proxy) as connection:
            connection.sendall(f"CONNECT web:80 HTTP/1.1\r\nPROXY-authorization: bAsIc {basic}\r\n\r\n".encode() + ASK)
            assert status(receive_all(connection)) == wanted


@pytest.mark.parametrize("header", ["", "Basic", "Basic !!!", "Basic /w==", "Bearer", "Bearer x", "Digest x", TOKEN])
def test_without_a_good_token(proxy: GuestProxy, cloud: Cloud, header: str) -> None:
    create(cloud, name="web")
    for name in ("web", "nobody"):  # who has no token learns nothing of names
        with dial(proxy) as connection:
            connection.sendall(f"CONNECT {name}:80 HTTP/1.1\r\nProxy-Authorization: {header}\r\n\r\n".encode())
            answer = receive_all(connection)
        assert (status(answer), code(answer)) == (407, "unauthenticated")
        assert b"Proxy-Authenticate: Basic" in answer


def test_names_that_nobody_has(proxy: GuestProxy) -> None:
    for name in ("i-00000000", "nobody", "\xff", "a%00", "127.0.0.1", "[::1]"):
        answer = ask(proxy, f"{name}:80")
        assert (status(answer), code(answer)) == (404, "not_found")


def test_an_address_of_a_vpc(proxy: GuestProxy, cloud: Cloud) -> None:
    for vpc, name in (("shop", "web"), ("mall", "twin")):  # with the same address in each
        cloud.vpcs.create(operator(cloud), cidr="10.0.0.0/16", name=vpc)
        settle(cloud)
        cloud.subnets.create(operator(cloud), vpc=vpc, cidr="10.0.1.0/24", name=vpc)
        settle(cloud)
        create(cloud, name=name, nics=(NewNIC(subnet=vpc, address="10.0.1.10"),))
    for vpc, name in (("shop", "web"), ("mall", "twin")):
        guest = cloud.instances.get(operator(cloud), name)
        for wanted in (vpc, guest.nics[0].vpc_id):
            assert f"id={guest.id}".encode() in ask(proxy, f"10.0.1.10.{wanted}.vpc:80")
        assert f"id={guest.id}".encode() in ask(proxy, f"{name}:80")
    refusals = {
        "10.0.1.10.nothing.vpc:80": (404, "not_found"),
        "10.0.1.10.shop.vpc:22": (502, "guest_unavailable"),
        "10.0.1.11.shop.vpc:80": (502, "guest_unavailable"),
        "10.9.9.9.shop.vpc:80": (409, "invalid_state"),
        "10.0.1.999.shop.vpc:80": (409, "invalid_state"),
        "10.0.1.10.shop.vpc:0": (400, "malformed"),
        "10.0.1.10:80": (404, "not_found"),
    }
    for target, refusal in refusals.items():
        answer = ask(proxy, target)
        assert (status(answer), code(answer)) == refusal, target
    _, token = principal_in(cloud, "others")
    for vpc_id in {cloud.vpcs.get(operator(cloud), "shop").id, cloud.subnets.get(operator(cloud), "basic").vpc_id}:
        assert code(ask(proxy, f"10.0.1.10.{vpc_id}.vpc:80", token)) == "not_found"
        assert status(ask(proxy, f"10.64.0.10.{vpc_id}.vpc:80", token)) == 404


def test_an_instance_without_an_address(proxy: GuestProxy, cloud: Cloud) -> None:
    create(cloud, name="hermit", nics=())
    answer = ask(proxy, "hermit:80")
    assert (status(answer), code(answer)) == (409, "invalid_state")


def test_another_projects_guest_does_not_exist(proxy: GuestProxy, cloud: Cloud) -> None:
    instance = create(cloud, name="web")
    _, token = principal_in(cloud, "others")
    for name in ("web", instance.id):
        assert status(ask(proxy, f"{name}:80", token)) == 404


def test_a_reader_gets_no_way_in(proxy: GuestProxy, cloud: Cloud) -> None:
    create(cloud, name="web")
    _, token = principal_in(cloud, "default", Role.READER)
    answer = ask(proxy, "web:80", token)
    assert (status(answer), code(answer)) == (403, "permission_denied")


def test_a_stopped_instance(proxy: GuestProxy, cloud: Cloud) -> None:
    create(cloud, name="web")
    cloud.instances.stop(operator(cloud), "web")
    settle(cloud)
    answer = ask(proxy, "web:80")
    assert (status(answer), code(answer)) == (409, "invalid_state")


def test_ports_that_refuse_and_guests_that_still_boot(proxy: GuestProxy, cloud: Cloud) -> None:
    create(cloud, name="web")
    answer = ask(proxy, "web:22")
    assert (status(answer), code(answer)) == (502, "guest_unavailable")
    cloud.instances.restart(operator(cloud), "web")
    settle(cloud)
    from iaas.drivers.interface import BackendDownError

    world(cloud).faults.fail_next("dial", BackendDownError("away"))
    answer = ask(proxy, "web:80")
    assert (status(answer), code(answer)) == (503, "backend_unavailable")


@pytest.mark.parametrize(
    "nonsense",
    [
        b"GET http://x/ HTTP/1.1\r\n\r\n",
        b"CONNECT\r\n\r\n",
        b"CONNECT web HTTP/1.1\r\n\r\n",
        b"CONNECT web: HTTP/1.1\r\n\r\n",
        b"CONNECT :80 HTTP/1.1\r\n\r\n",
        b"CONNECT web:0 HTTP/1.1\r\n\r\n",
        b"CONNECT web:65536 HTTP/1.1\r\n\r\n",
        b"CONNECT web:0080000 HTTP/1.1\r\n\r\n",
        b"CONNECT web:-1 HTTP/1.1\r\n\r\n",
        b"CONNECT web:\xb2 HTTP/1.1\r\n\r\n",
        b"CONNECT web:http HTTP/1.1\r\n\r\n",
        b"connect web:80 HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"\r\n\r\n",
        b"CONNECT web:80 HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
    ],
)
def test_nonsense(proxy: GuestProxy, nonsense: bytes) -> None:
    with dial(proxy) as connection:
        connection.sendall(nonsense)
        try:
            answer = receive_all(connection)
        except ConnectionResetError:  # it hung up on what it never read
            assert len(nonsense) > 16_384
            return
    assert (status(answer), code(answer)) == (400, "malformed")


def test_who_hangs_up_early_gets_nothing(proxy: GuestProxy, cloud: Cloud) -> None:
    create(cloud, name="web")
    with dial(proxy) as connection:
        connection.sendall(b"CONNECT web:80 HT")
        connection.shutdown(socket.SHUT_WR)
        assert status(receive_all(connection)) == 400
    assert status(ask(proxy, "web:80")) == 200


def test_tunnels_that_are_reset_harm_no_later_one(proxy: GuestProxy, cloud: Cloud) -> None:
    create(cloud, name="web")
    head = f"CONNECT web:80 HTTP/1.1\r\nProxy-Authorization: Bearer {TOKEN}\r\n\r\n".encode()
    for _ in range(20):
        connection = dial(proxy)
        connection.sendall(head)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()  # a reset, not an end
        assert b"kernel=sim" in ask(proxy, "web:80")


def test_stop_ends_open_tunnels(cloud: Cloud) -> None:
    create(cloud, name="web")
    proxy = GuestProxy(cloud, "127.0.0.1")
    proxy.start()
    with dial(proxy) as connection:
        connection.sendall(f"CONNECT web:80 HTTP/1.1\r\nProxy-Authorization: Bearer {TOKEN}\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        proxy.stop()
        assert connection.recv(100) == b""
    with pytest.raises(ConnectionRefusedError):
        dial(proxy)
