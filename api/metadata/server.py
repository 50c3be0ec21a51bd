"""Serves the metadata tree inside networks: the listener tells the network, the peer's address the guest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable
from typing import Any

import structlog

from iaas.api.metadata.tree import lookup
from iaas.drivers.interface import NetworkCapability, NetworkDriver, NetworkSpec, NetworkState, PortSpec, PortState
from iaas.services.metadata import MetadataService

ADDRESS = "169.254.169.254"
PORT = 80
THREADS_PER_NETWORK = 4
STOP_TIMEOUT_S = 5.0

log = structlog.get_logger(__name__)

WSGIApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _Server:
    """A server of waitress with the thread of its loop."""

    def __init__(self, server: Any, sockets: dict[int, Any], network_id: str) -> None:
        self._server = server
        self._sockets = sockets
        self._thread = threading.Thread(target=server.run, name=f"metadata-{network_id}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close every socket and end the loop.

        In the loop's own thread: one that another thread closes stays bound for as long as the loop waits for it.
        """
        self._server.trigger.pull_trigger(self._close_all)
        self._thread.join(STOP_TIMEOUT_S)
        self._server.task_dispatcher.shutdown(timeout=STOP_TIMEOUT_S)

    def _close_all(self) -> None:
        for each in list(self._sockets.values()):
            each.close()
        self._server.close()


class MetadataServers:
    """One small server per network, all in this process, whatever address spaces the networks have."""

    def __init__(self) -> None:
        self._service: MetadataService | None = None
        self._servers: dict[str, _Server] = {}
        self._lock = threading.Lock()

    def connect(self, service: MetadataService) -> None:
        """Give the service that knows the guests (the cloud is made after its backend)."""
        self._service = service

    def serve(self, network_id: str, driver: NetworkDriver) -> None:
        """Make sure that the network has its server."""
        with self._lock:
            if network_id in self._servers:
                return
            from waitress.server import create_server

            listener = driver.listen(network_id, ADDRESS, PORT)
            sockets: dict[int, Any] = {}  # a loop of its own: the default map is shared by all servers of a process
            server = create_server(
                self._app(network_id),
                sockets=[listener],
                threads=THREADS_PER_NETWORK,
                channel_timeout=15,
                ident="iaas",
                clear_untrusted_proxy_headers=True,
                map=sockets,
            )
            self._servers[network_id] = _Server(server, sockets, network_id)

    def stop(self, network_id: str) -> None:
        """Stop the network's server, if it has one; its address is free then."""
        with self._lock:
            server = self._servers.pop(network_id, None)
        if server is not None:
            server.stop()

    def close(self) -> None:
        for network_id in list(self._servers):
            self.stop(network_id)

    def _app(self, network_id: str) -> WSGIApp:
        def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            status, body = self._answer(network_id, environ)
            headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
            start_response(status, headers)
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

        return app

    def _answer(self, network_id: str, environ: dict[str, Any]) -> tuple[str, bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return "405 Method Not Allowed", b"only GET and HEAD\n"
        guest = self._service.of_guest(network_id, environ["REMOTE_ADDR"]) if self._service else None
        if guest is None:
            return "404 Not Found", b"nobody has this address\n"
        body = lookup(environ["PATH_INFO"], guest)
        return ("404 Not Found", b"not found\n") if body is None else ("200 OK", body)


class PublishedNetworks:
    """A network driver whose networks have their metadata server as soon as they are ensured."""

    def __init__(self, driver: NetworkDriver, servers: MetadataServers) -> None:
        self._driver = driver
        self._servers = servers
        self.capabilities = driver.capabilities

    def check_available(self) -> None:
        self._driver.check_available()

    def ensure_network(self, spec: NetworkSpec) -> NetworkState:
        state = self._driver.ensure_network(spec)
        if NetworkCapability.METADATA in self.capabilities:
            self._servers.serve(spec.network_id, self._driver)
        return state

    def remove_network(self, network_id: str) -> None:
        self._servers.stop(network_id)
        self._driver.remove_network(network_id)

    def ensure_port(self, spec: PortSpec) -> PortState:
        return self._driver.ensure_port(spec)

    def remove_port(self, network_id: str, nic_id: str) -> None:
        self._driver.remove_port(network_id, nic_id)

    def networks(self) -> list[NetworkState]:
        return self._driver.networks()

    def ports(
        self, network_id: str, *, only: Collection[str] | None = None, after: str = "", limit: int | None = None
    ) -> list[PortState]:
        return self._driver.ports(network_id, only=only, after=after, limit=limit)

    def dial(self, network_id: str, address: str, port: int, *, timeout_s: float) -> Any:
        return self._driver.dial(network_id, address, port, timeout_s=timeout_s)

    def listen(self, network_id: str, address: str, port: int) -> Any:
        return self._driver.listen(network_id, address, port)

    def close(self) -> None:
        self._servers.close()
        self._driver.close()
