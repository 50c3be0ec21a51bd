"""Clients that are slow, endless, cut off or mad: nobody else notices, and nothing of them stays in the server."""

from __future__ import annotations

import os
import random
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import httpx
import pytest

from iaas.api.server import MAX_BODIES
from tests.api.calling import NEW
from tests.api.server_process import Server, receive_all, running
from tests.factories import wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

PATIENCE_S = 40.0
_NUMBERS = count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("state"), program="tests.api.hasty_server") as started:
        works(started)
        yield started
        assert started.stop() == 0
        assert [line for line in started.errors.splitlines() if "too_many_bodies" not in line] == []


def connect(server: Server) -> socket.socket:
    host, _, port = server.url.removeprefix("http://").partition(":")
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # soon full when nothing is read
    found.settimeout(20)
    found.connect((host, int(port)))
    return found


def head(server: Server, line: str, *more: str) -> bytes:
    lines = [f"{line} HTTP/1.1", "Host: x", f"Authorization: Bearer {server.token}"]
    return "\r\n".join([*lines, "Content-Type: application/json", *more, "", ""]).encode()


def works(server: Server) -> None:
    """Have another client do its work, and hold the answers to what it sent."""
    name = f"other-{next(_NUMBERS)}"
    made = server.post("/v1/instances", {**NEW, "name": name})
    assert server.get(f"/v1/jobs/{made['job']['id']}", wait=30)["status"] == "succeeded"
    assert server.get(f"/v1/instances/{name}")["id"] == made["instance"]["id"]
    assert name in {each["name"] for each in server.get("/v1/instances")["items"]}
    gone = server.client.delete(f"/v1/instances/{name}").json()
    assert server.get(f"/v1/jobs/{gone['job']['id']}", wait=30)["status"] == "succeeded"
    assert server.client.get(f"/v1/instances/{name}").status_code == 404


def sockets(server: Server) -> int:
    found = 0
    for handle in Path(f"/proc/{server.process.pid}/fd").iterdir():
        try:
            found += os.readlink(handle).startswith("socket:")
        except FileNotFoundError:  # it was closed meanwhile
            continue
    return found


def threads(server: Server) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/task"))


@contextmanager
def unharmed(server: Server) -> Iterator[None]:
    """Hold the server to have as many sockets and threads afterwards as before."""
    works(server)
    wait_for(lambda: threads(server) <= QUIET_THREADS, timeout_s=PATIENCE_S, what="the end of idle threads")
    before = sockets(server)
    yield
    wait_for(lambda: sockets(server) <= before, timeout_s=PATIENCE_S, what="the end of the connections")
    wait_for(lambda: threads(server) <= QUIET_THREADS, timeout_s=PATIENCE_S, what="the end of their threads")
    works(server)


QUIET_THREADS = 16  # of a server with nothing to do: its own, and a few that were used just now

SLOW_HEAD = b"GET /v1/zones HTTP/1.1\r\nHost: x\r\nX-A"
ABUSES: dict[str, tuple[int, Callable[[Server], bytes]]] = {
    "silent": (300, lambda _: b""),
    "headers that never end": (200, lambda _: SLOW_HEAD),
    "bodies that never end": (
        160,  # more than can wait for anything else
        lambda server: head(server, "POST /v1/instances", "Content-Length: 5000") + b'{"ki',
    ),
    "chunks that never end": (
        160,
        lambda server: head(server, "POST /v1/instances", "Transfer-Encoding: chunked") + b'5\r\n{"ki',
    ),
    "streams that nobody reads": (90, lambda server: head(server, "GET /v1/events", "Accept: text/event-stream")),
    "answers that nobody reads": (30, lambda _: b"GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 100),
}


@pytest.mark.parametrize("abuse", ABUSES)
def test_many_connections_that_only_hold(server: Server, abuse: str) -> None:
    number, sent = ABUSES[abuse]
    with unharmed(server), ExitStack() as stack:
        for _ in range(number):
            connection = stack.enter_context(connect(server))
            connection.sendall(sent(server))
        for _ in range(3):
            works(server)


def test_answers_that_nobody_takes_are_dropped(server: Server) -> None:
    with unharmed(server), ExitStack() as stack:
        before = sockets(server)
        for _ in range(20):
            connection = stack.enter_context(connect(server))
            connection.sendall(b"GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        wait_for(lambda: sockets(server) >= before + 20, what="the connections")
        wait_for(lambda: sockets(server) <= before, timeout_s=PATIENCE_S, what="their end, though we hold them")


def test_bodies_beyond_the_bound_are_refused_and_nothing_else_is(server: Server) -> None:
    with unharmed(server):
        with ExitStack() as stack:
            for _ in range(MAX_BODIES):
                connection = stack.enter_context(connect(server))
                connection.sendall(head(server, "POST /v1/key_pairs", "Content-Length: 50") + b"{")
            wait_for(lambda: refusal(server) == "too_many_bodies", what="the refusal")
            assert server.get("/v1/zones")["items"]
            assert server.client.delete("/v1/instances/none").status_code == 404
        wait_for(lambda: refusal(server) == "", timeout_s=PATIENCE_S, what="the end of the refusals")


def refusal(server: Server) -> str:
    answer = server.client.post("/v1/doctor/actions/check", json={})
    if answer.status_code == 200:
        return ""
    assert (answer.status_code, answer.json()["retryable"]) == (503, True)
    assert int(answer.headers["Retry-After"]) > 0
    return str(answer.json()["code"])


def ask(server: Server, sent: bytes, *, half_close: bool = True) -> bytes:
    """Return all that comes back before the connection ends, which a reset may cut short."""
    with connect(server) as connection:
        try:
            connection.sendall(sent)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            return receive_all(connection)
        except OSError:  # the server has hung up before all was sent
            return b""


def noise(size: int) -> bytes:
    return random.Random(7).randbytes(size)  # noqa: S311 - noise, not a secret


NONSENSE = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + noise(500),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + noise(100),
    "noise": noise(5000),
    "NULs": bytes(5000),
    "line ends": b"\r\n" * 5000,
    "no version": b"GET /v1/zones\r\n\r\n",
    "another version": b"GET /v1/zones HTTP/9.9\r\nHost: x\r\n\r\n",
    "an endless URL": b"GET /" + b"a" * 2_000_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "an endless header": b"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 2_000_000 + b"\r\n\r\n",
    "endless headers": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-A: a\r\n" * 100_000 + b"\r\n",
    "a header that is none": b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
    "two lengths": b"POST /v1/zones HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a length beyond all": b"POST /v1/key_pairs HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n",
}


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_is_refused_or_cut_off(server: Server, what: str) -> None:
    answer = ask(server, NONSENSE[what])
    assert not answer or answer.startswith(b"HTTP/1.1 4"), answer[:200]
    works(server)


@pytest.mark.parametrize(
    "chunks",
    [b"zz\r\n{}\r\n", b"-1\r\n", b"ffffffffffffffffff\r\n{}", b"2{}\r\n", b"2\r\n{}junk\r\n", b"\r\n\r\n", b"0", b""],
)
def test_chunks_that_are_none(server: Server, chunks: bytes) -> None:
    sent = head(server, "POST /v1/doctor/actions/check", "Transfer-Encoding: chunked", "Connection: close") + chunks
    answer = ask(server, sent)
    # One whose JSON is whole may be done: all that was meant has come.
    assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 200") if b"{}" in chunks else b"HTTP/1.1 4")
    works(server)


def test_a_body_that_is_cut_off_has_no_effect(server: Server) -> None:
    made = server.post("/v1/instances", {**NEW, "name": "stays"})
    assert server.get(f"/v1/jobs/{made['job']['id']}", wait=30)["status"] == "succeeded"
    body = b'{"name": "cut"}'
    length = f"Content-Length: {len(body) + 10}"
    for sent in (
        head(server, "POST /v1/key_pairs", length) + body,
        head(server, "POST /v1/key_pairs", length, "Idempotency-Key: cut") + body,
        head(server, "POST /v1/key_pairs", "Transfer-Encoding: chunked") + b'f\r\n{"name": "cu',
        # An empty body would have meant: with the defaults.
        head(server, "POST /v1/instances/stays/actions/stop", "Content-Length: 2"),
        head(server, "POST /v1/instances/stays/actions/stop", "Transfer-Encoding: chunked"),
    ):
        for half_close in (True, False):
            with connect(server) as connection:
                connection.sendall(sent)
                if half_close:
                    connection.shutdown(socket.SHUT_WR)
                    answer = receive_all(connection)
                    assert not answer or answer.startswith(b"HTTP/1.1 400"), answer
        works(server)
    assert "cut" not in {each["name"] for each in server.get("/v1/key_pairs")["items"]}
    found = server.get("/v1/instances/stays")
    assert (found["status"], found["transition"]) == ("running", None)


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    ids = [f"pipe-{number}" for number in range(40)]
    with connect(server) as connection:
        for each in ids:
            last = ["Connection: close"] if each == ids[-1] else []
            connection.sendall(head(server, "GET /v1/zones", f"X-Request-Id: {each}", *last))
        answers = receive_all(connection).decode().lower()
    found = [line.removeprefix("x-request-id: ") for line in answers.splitlines() if line.startswith("x-request-id")]
    assert found == ids
    assert answers.count("http/1.1 200") == len(ids)


def test_a_server_stops_in_time_while_bodies_are_on_their_way(tmp_path: Path) -> None:
    with running(tmp_path) as server, ExitStack() as stack:
        for _ in range(10):
            connection = stack.enter_context(connect(server))
            connection.sendall(head(server, "POST /v1/key_pairs", "Content-Length: 50") + b"{")
        assert server.get("/v1/zones")["items"]
        assert server.stop() == 0
        assert server.errors == ""
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url, trust_env=False)
