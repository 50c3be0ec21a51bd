"""A TCP connection to a port of a guest, through the server's proxy (CONNECT, RFC 9110 section 9.3.6)."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self
from urllib.parse import SplitResult, urlsplit

from iaas.client.client import Client
from iaas.client.errors import (
    ConnectionFailed,
    GuestUnavailable,
    IaasError,
    NotFound,
    NotSupported,
    UnexpectedAnswer,
    api_error,
)
from iaas.client.instances import Instance
from iaas.client.reachability import AddressIn
from iaas.client.transport import user_agent

_MAX_HEAD_BYTES = 16 * 1024
_MAX_PROBLEM_BYTES = 64 * 1024
_CHUNK_BYTES = 64 * 1024
_NOBODY_THERE = frozenset({502, 504})
_DEFAULT_PORTS = {"http": 80, "https": 443}


Target = Instance | AddressIn | str
"""An instance (a value, id or name), or an address in a VPC."""


def open_tunnel(client: Client, target: Target, port: int, *, timeout_s: float | None = None) -> socket.socket:
    """Return a blocking socket whose other end is ``port`` of ``target``.

    Args:
        timeout_s: how long the proxy may take to get through; the client's own limit when absent.

    Raises:
        NotFound: there is no such instance or VPC.
        GuestUnavailable: nothing accepts connections there (yet).
        NotSupported: this cloud has no way into its guests.
        ConnectionFailed: the proxy cannot be reached.
    """
    proxy = _proxy_address(client)
    timeout_s = client.transport.timeout_s if timeout_s is None else timeout_s
    name = _host_name(target)
    authority = f"{name}:{port}"
    if not name.isascii() or not name.isprintable() or " " in name:  # it becomes part of a header
        raise NotFound(f"there is no {name!r} to lead to", status=404, code="not_found")
    with contextlib.ExitStack() as undo:
        try:
            connection = _connect(proxy, timeout_s)
            undo.callback(connection.close)
            connection.sendall(_connect_request(client, authority))
            _read_answer(connection)
        except (OSError, UnicodeError) as error:  # UnicodeError: a host name that cannot be looked up
            raise ConnectionFailed(f"cannot reach {authority} through {proxy.geturl()}: {error}") from error
        connection.settimeout(None)
        undo.pop_all()
    return connection


def join(first: socket.socket, second: socket.socket) -> None:
    """Copy bytes both ways between two connected sockets until both directions have ended, then close both.

    The end of one direction is passed on by itself: many protocols go on answering after it.
    """
    back = threading.Thread(target=_copy, args=(second, first), name="iaas-tunnel-back", daemon=True)
    back.start()
    try:
        _copy(first, second)
        back.join()
    finally:
        first.close()
        second.close()


class Forwarder:
    """Listens on an address of this machine and leads each connection to a port of a target.

    Args:
        local_addr: (address, port) to listen on; port 0 takes a free one, see ``address``.
        max_connections: more at once wait in the listen queue.
        on_error: told, from any thread, why a connection came to nothing.

    Raises:
        OSError: the address cannot be listened on.
    """

    def __init__(
        self,
        local_addr: tuple[str, int],
        client: Client,
        target: Target,
        port: int,
        *,
        max_connections: int = 64,
        on_error: Callable[[IaasError], None] | None = None,
    ) -> None:
        self._client = client
        self._target = target
        self._port = port
        self._on_error = on_error
        self._slots = threading.BoundedSemaphore(max_connections)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False
        family = socket.AF_INET6 if ":" in local_addr[0] else socket.AF_INET
        self._listener = socket.create_server(local_addr, family=family)
        self._listener.setblocking(False)
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._accept_all, name="iaas-forwarder", daemon=True)
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        """The (address, port) it listens on."""
        name = self._listener.getsockname()
        return str(name[0]), int(name[1])

    def wait(self) -> None:
        """Return when it was closed (by another thread), or with the exception of Ctrl-C."""
        self._thread.join()

    def close(self) -> None:
        """Stop listening and cut the connections there are."""
        with self._lock:
            self._closed = True
            connections = list(self._open)
        self._wake.close()
        # A plain close() does not wake a thread that is blocked on the socket; shutdown() does.
        for each in connections:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self._woken.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept_all(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                self._slots.acquire()
                ready = [key.fileobj for key, _ in selector.select()]
                if self._woken in ready:
                    self._slots.release()
                    return
                try:
                    connection, _ = self._listener.accept()
                except (BlockingIOError, ConnectionError):  # who called has hung up again already
                    self._slots.release()
                    continue
                threading.Thread(target=self._serve, args=(connection,), name="iaas-forward", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, self._tracked(connection):
                self._lead(connection)
        finally:
            self._slots.release()

    def _lead(self, connection: socket.socket) -> None:
        try:
            tunnel = open_tunnel(self._client, self._target, self._port)
        except IaasError as error:
            if self._on_error and not self._closed:
                self._on_error(error)
            return
        with tunnel, self._tracked(tunnel):
            join(connection, tunnel)

    @contextlib.contextmanager
    def _tracked(self, connection: socket.socket) -> Iterator[None]:
        """Let ``close`` cut the connection while the block runs."""
        with self._lock:
            self._open.add(connection)
            is_late = self._closed
        try:
            if is_late:  # close() has gone by already: every call on the socket shall fail at once
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            yield
        finally:
            with self._lock:
                self._open.discard(connection)


def _host_name(target: Target) -> str:
    """Return the host of the CONNECT request: ``web``, or ``10.0.1.10.vpc-4kq0ygtz.vpc``."""
    if isinstance(target, AddressIn):
        return f"{target.address}.{target.vpc}.vpc"
    return target if isinstance(target, str) else target.id


def _proxy_address(client: Client) -> SplitResult:
    url = client.capabilities().proxy_url
    if not url:
        raise NotSupported("this cloud has no way into its guests", status=409, code="not_supported")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in _DEFAULT_PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UnexpectedAnswer(f"the server names {url!r} as its proxy, which is no URL of one")
    return parts


def _connect(proxy: SplitResult, timeout_s: float) -> socket.socket:
    host = proxy.hostname or ""
    connection = socket.create_connection((host, proxy.port or _DEFAULT_PORTS[proxy.scheme]), timeout=timeout_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if proxy.scheme == "http":
        return connection
    try:
        return ssl.create_default_context().wrap_socket(connection, server_hostname=host)
    except OSError:
        connection.close()
        raise


def _connect_request(client: Client, target: str) -> bytes:
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", f"User-Agent: {user_agent()}"]
    if client.credentials.api_token:
        lines.append(f"Proxy-Authorization: Bearer {client.credentials.api_token}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _read_answer(connection: socket.socket) -> None:
    head = bytearray()
    # Byte by byte: what follows the head is the guest's already, and there is nowhere to put it back.
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte or len(head) >= _MAX_HEAD_BYTES:
            raise UnexpectedAnswer("the proxy answered with something that is not HTTP")
        head += byte
    status_line, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = status_line.partition(" ")
    code = rest[:3]
    if not version.startswith("HTTP/1.") or not code.isdecimal():
        raise UnexpectedAnswer("the proxy answered with something that is not HTTP")
    if code.startswith("2"):
        return
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    error = api_error(int(code), _read_body(connection, headers), headers)
    if error.status in _NOBODY_THERE and error.code.startswith("http_"):
        # What a gateway's statuses mean here: the machine was found, and nothing in it accepted the connection.
        raise GuestUnavailable(error.message, status=error.status, code="guest_unavailable", retryable=True)
    raise error


def _read_body(connection: socket.socket, headers: dict[str, str]) -> bytes:
    length = headers.get("content-length", "")
    wanted = min(int(length) if length.isdecimal() else _MAX_PROBLEM_BYTES, _MAX_PROBLEM_BYTES)
    body = b""
    while len(body) < wanted and (chunk := connection.recv(wanted - len(body))):
        body += chunk
    return body


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while chunk := source.recv(_CHUNK_BYTES):
            target.sendall(chunk)
    except OSError:
        # One side is gone for good: nothing that the other still sends could arrive, so end its reading too.
        with contextlib.suppress(OSError):
            source.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
