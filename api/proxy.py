"""The way to guests: an HTTP proxy that knows CONNECT only; ``proxy_targets`` says where it leads.

The host has no leg in a guest's network, so whoever wants to talk to a guest asks here. CONNECT is understood
by curl, ssh (through a ProxyCommand) and every HTTP library. Source: RFC 9110, section 9.3.6.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import socket
import threading
from http import HTTPStatus

import structlog

from iaas.api.proxy_targets import find_target, split_authority
from iaas.api.v1.errors import STATUS, problem_document
from iaas.cloud import Cloud
from iaas.drivers.interface import BackendDownError, GuestUnavailableError, NetworkCapability, TransientError
from iaas.kernel.errors import (
    CloudError,
    GuestUnavailable,
    MalformedRequest,
    NotSupported,
    RateLimited,
    Unauthenticated,
)
from iaas.resources.common import Role
from iaas.services.access import require
from iaas.services.driver_errors import translated

MAX_CONNECTIONS = 256
HEADER_LIMIT_BYTES = 16_384
HEADER_TIMEOUT_S = 10.0
DIAL_TIMEOUT_S = 10.0
_CHUNK_BYTES = 65_536

log = structlog.get_logger(__name__)


class GuestProxy:
    """The proxy of one server; lives in a thread of its own.

    Args:
        cloud: whose instances it leads to.
        host: the address to listen at.
        port: 0 takes a free one.
    """

    def __init__(self, cloud: Cloud, host: str, port: int = 0) -> None:
        self._cloud = cloud
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family)
        bound_host, self.port = self._listener.getsockname()[:2]
        shown = f"[{bound_host}]" if family == socket.AF_INET6 else bound_host
        self.url = f"http://{shown}:{self.port}"
        self._open = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="guest-proxy", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Close the listener and all tunnels."""
        if self._loop is not None and self._stopping is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(timeout=5)
        self._listener.close()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        server = await asyncio.start_server(self._handle, sock=self._listener, limit=HEADER_LIMIT_BYTES)
        await self._stopping.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        guest: socket.socket | None = None
        guest_writer: asyncio.StreamWriter | None = None
        self._open += 1
        try:
            if self._open > MAX_CONNECTIONS:
                await _refuse(writer, RateLimited("too many tunnels are open"))
                return
            try:
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEADER_TIMEOUT_S)
                guest = await asyncio.get_running_loop().run_in_executor(None, self._dial, head)
            except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
                await _refuse(writer, MalformedRequest("send a CONNECT request"))
                return
            except CloudError as error:
                await _refuse(writer, error)
                return
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await writer.drain()
            guest_reader, guest_writer = await asyncio.open_connection(sock=guest)
            await asyncio.gather(_pump(reader, guest_writer), _pump(guest_reader, writer))
        except (ConnectionError, asyncio.CancelledError, TimeoutError):
            return  # one end hung up, or the server stops: nothing is left to say
        finally:
            self._open -= 1
            writer.close()
            if guest_writer is not None:  # closes the socket as well, once the loop has let go of it
                guest_writer.close()
            elif guest is not None:
                guest.close()

    def _dial(self, head: bytes) -> socket.socket:
        """Return a connection to the guest that the request names.

        Raises:
            CloudError: it is no CONNECT request, not allowed, no such instance or VPC, nobody answers there.
        """
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        if len(words) != 3 or words[0] != "CONNECT":
            raise MalformedRequest("this proxy knows CONNECT only (curl needs -p)")
        host, port = split_authority(words[1])
        headers = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines[1:])}
        principal = self._cloud.identity.authenticate(_token(headers.get("proxy-authorization", "")))
        require(principal, Role.MEMBER)
        target = find_target(self._cloud, principal, host, port)
        networks = self._cloud.backend.networks
        if NetworkCapability.DIAL not in networks.capabilities:
            raise NotSupported("this backend has no way to guests")
        with translated():
            try:
                return networks.dial(target.vpc_id, target.address, target.port, timeout_s=DIAL_TIMEOUT_S)
            except BackendDownError:
                raise
            except TransientError as error:  # refused or timed out: the network is there, the guest is not
                raise GuestUnavailableError(str(error)) from error


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def _refuse(writer: asyncio.StreamWriter, error: CloudError) -> None:
    """Answer with a problem document, as the API does; what is 401 there is 407 at a proxy, a silent guest 502."""
    status = STATUS[type(error)]
    status = 502 if isinstance(error, GuestUnavailable) else 407 if status == 401 else status
    body = json.dumps(problem_document(error, status, None)).encode()
    extra = 'Proxy-Authenticate: Basic realm="iaas"\r\n' if status == 407 else ""
    writer.write(
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{extra}Content-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
        + body
    )
    await writer.drain()


def _token(header: str) -> str:
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        with contextlib.suppress(binascii.Error, UnicodeDecodeError, ValueError):
            return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
    raise Unauthenticated("send the API token in Proxy-Authorization (Bearer, or Basic with the token as password)")
