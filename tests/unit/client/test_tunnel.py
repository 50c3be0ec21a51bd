from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from iaas.client import (
    AddressIn,
    Client,
    ConnectionFailed,
    GuestUnavailable,
    IaasError,
    NotFound,
    NotSupported,
    UnexpectedAnswer,
)
from iaas.client.tunnel import Forwarder, open_tunnel
from tests.unit.client.fake_cloud import FakeCloud
from tests.unit.client.fake_proxy import OK, FakeProxy


@pytest.fixture
def proxy(cloud: FakeCloud) -> Iterator[FakeProxy]:
    made = FakeProxy()
    cloud.proxy_url = made.url
    yield made
    made.close()


def read_all(connection: socket.socket) -> bytes:
    data = b""
    while chunk := connection.recv(65536):
        data += chunk
    return data


def test_tunnel_carries_bytes_both_ways(client: Client, proxy: FakeProxy) -> None:
    with open_tunnel(client, "i-00000001", 22) as tunnel:
        tunnel.sendall(b"hello")
        tunnel.shutdown(socket.SHUT_WR)
        assert read_all(tunnel) == b"HELLO"
    head = proxy.heads[0].decode()
    assert head.startswith("CONNECT i-00000001:22 HTTP/1.1\r\nHost: i-00000001:22\r\n")
    assert "Proxy-Authorization: Bearer tok-secret\r\n" in head


def test_tunnel_to_an_address_of_a_vpc(client: Client, proxy: FakeProxy) -> None:
    with open_tunnel(client, AddressIn(vpc="vpc-00000001", address="10.0.1.10"), 80) as tunnel:
        tunnel.sendall(b"hello")
        tunnel.shutdown(socket.SHUT_WR)
        assert read_all(tunnel) == b"HELLO"
    assert proxy.heads[0].startswith(b"CONNECT 10.0.1.10.vpc-00000001.vpc:80 HTTP/1.1\r\n")
    for address in ("10.0.1.10 x", "10.0.1.10\r\nX: y", "é"):
        with pytest.raises(NotFound):
            open_tunnel(client, AddressIn(vpc="shop", address=address), 80)
    assert len(proxy.heads) == 1


def test_first_bytes_of_the_guest_are_not_swallowed(client: Client, proxy: FakeProxy) -> None:
    proxy.answer = OK + b"SSH-2.0-x\r\n"
    with open_tunnel(client, "web", 22) as tunnel:
        tunnel.shutdown(socket.SHUT_WR)
        assert read_all(tunnel) == b"SSH-2.0-x\r\n"


@pytest.mark.parametrize(
    ("head", "code", "expected"),
    [
        ("404 Not Found", "not_found", NotFound),
        ("502 Bad Gateway", "guest_unavailable", GuestUnavailable),
    ],
)
def test_refusal_is_an_error_of_the_usual_tree(
    client: Client, proxy: FakeProxy, head: str, code: str, expected: type[IaasError]
) -> None:
    body = f'{{"code": "{code}", "detail": "a sentence"}}'
    proxy.answer = f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    with pytest.raises(expected, match="a sentence"):
        open_tunnel(client, "web", 22)


def test_plain_bad_gateway_means_that_nobody_answers_there(client: Client, proxy: FakeProxy) -> None:
    proxy.answer = b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain\r\nContent-Length: 8\r\n\r\nrefused\n"
    with pytest.raises(GuestUnavailable, match=r"^refused$"):
        open_tunnel(client, "web", 22)


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"x" * 20000])
def test_something_else_than_a_proxy_is_unexpected(client: Client, proxy: FakeProxy, answer: bytes) -> None:
    proxy.answer = answer
    with pytest.raises((UnexpectedAnswer, ConnectionFailed)):
        open_tunnel(client, "web", 22)


def test_proxy_that_is_gone_is_a_failed_connection(client: Client, proxy: FakeProxy) -> None:
    proxy.close()
    with pytest.raises(ConnectionFailed, match="cannot reach web:22"):
        open_tunnel(client, "web", 22)


def test_cloud_without_a_proxy_says_so(client: Client) -> None:
    with pytest.raises(NotSupported, match="no way into its guests"):
        open_tunnel(client, "web", 22)


@pytest.mark.parametrize("name", ["a\r\nX: y", "a b", "ä"])
def test_name_that_would_break_the_header_is_not_sent(client: Client, proxy: FakeProxy, name: str) -> None:
    with pytest.raises(NotFound):
        open_tunnel(client, name, 22)
    assert proxy.heads == []


def test_forwarder_serves_several_connections(client: Client, proxy: FakeProxy) -> None:
    with Forwarder(("127.0.0.1", 0), client, "web", 80) as forwarder:
        connections = [socket.create_connection(forwarder.address, timeout=10) for _ in range(3)]
        for number, connection in enumerate(connections):
            connection.sendall(b"abc%d" % number)
            connection.shutdown(socket.SHUT_WR)
        assert [read_all(each) for each in connections] == [b"ABC0", b"ABC1", b"ABC2"]
        for each in connections:
            each.close()


def test_close_cuts_open_connections_and_waiters(client: Client, proxy: FakeProxy) -> None:
    forwarder = Forwarder(("127.0.0.1", 0), client, "web", 80, max_connections=1)
    with socket.create_connection(forwarder.address, timeout=10) as connection:
        connection.sendall(b"abc")
        while not proxy.heads:  # until the one connection is in the guest
            threading.Event().wait(0.01)
        forwarder.close()
        assert connection.recv(10) == b""
    forwarder.wait()


def test_forwarder_tells_why_a_connection_came_to_nothing(client: Client, proxy: FakeProxy) -> None:
    proxy.answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    errors: list[IaasError] = []
    with (
        Forwarder(("127.0.0.1", 0), client, "web", 80, on_error=errors.append) as forwarder,
        socket.create_connection(forwarder.address, timeout=10) as connection,
    ):
        assert connection.recv(10) == b""
    assert isinstance(errors[0], NotFound)
