"""Sockets to the daemon: a unix path or pinned TLS, for requests and for websockets alike."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import requests.adapters
import urllib3
import urllib3.connection

CONNECT_TIMEOUT_S = 5.0
UNIX_SCHEME = "http+unix"


class UnixAdapter(requests.adapters.HTTPAdapter):
    """HTTP over one unix socket, in place of pylxd's, which leaves sockets open that could not connect."""

    def __init__(self, path: str) -> None:
        self._pool = _UnixPool(path)
        super().__init__()

    def get_connection_with_tls_context(
        self,
        request: requests.PreparedRequest,
        verify: bool | str | None,
        proxies: Mapping[str, str] | None = None,
        cert: tuple[str, str] | str | None = None,
    ) -> urllib3.HTTPConnectionPool:
        return self._pool

    def request_url(self, request: requests.PreparedRequest, proxies: Mapping[str, str] | None) -> str:
        return str(request.path_url)

    def close(self) -> None:
        self._pool.close()
        super().close()


class _UnixPool(urllib3.HTTPConnectionPool):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def _new_conn(self) -> urllib3.connection.HTTPConnection:
        return _UnixConnection(self._path)


class _UnixConnection(urllib3.connection.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        timeout = self.timeout if isinstance(self.timeout, int | float) else CONNECT_TIMEOUT_S
        self.sock = open_unix_socket(self._path, timeout_s=timeout)


def open_socket(endpoint: str, *, cert: tuple[str, str] | None, verify: bool | str) -> socket.socket:
    """Return a connected socket, TLS done; see ``LXDConnection`` for the arguments.

    Raises:
        OSError: nobody answers there, or the certificate is another.
    """
    parts = urlsplit(endpoint)
    if parts.scheme == UNIX_SCHEME:
        return open_unix_socket(unquote(parts.netloc), timeout_s=CONNECT_TIMEOUT_S)
    context = ssl.create_default_context()
    if not verify or isinstance(verify, str):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if cert is not None:
        context.load_cert_chain(*cert)
    plain = socket.create_connection((parts.hostname or "localhost", parts.port or 443), timeout=CONNECT_TIMEOUT_S)
    try:
        secure = context.wrap_socket(plain, server_hostname=parts.hostname)
    except OSError:
        plain.close()
        raise
    if isinstance(verify, str) and secure.getpeercert(binary_form=True) != _certificate(verify):
        secure.close()
        raise ssl.SSLCertVerificationError("the daemon shows another certificate than expected")
    return secure


def _certificate(path: str) -> bytes:
    """Return the one certificate to trust; authorities and host names say nothing then, as with pylxd."""
    return ssl.PEM_cert_to_DER_cert(Path(path).read_text())


def open_unix_socket(path: str, *, timeout_s: float) -> socket.socket:
    """Return a socket connected to ``path``; raises OSError when nobody listens there."""
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connected.settimeout(timeout_s)
    try:
        connected.connect(path)
    except OSError:
        connected.close()
        raise
    return connected


def new_session(endpoint: str, *, session: Any) -> Any:
    """Return ``session`` (of pylxd) with our own transport for unix sockets, and nothing of the environment."""
    parts = urlsplit(endpoint)
    if parts.scheme == UNIX_SCHEME:
        session.mount(f"{UNIX_SCHEME}://", UnixAdapter(unquote(parts.netloc)))
    session.trust_env = False  # no proxy and no .netrc belongs between us and LXD
    return session
