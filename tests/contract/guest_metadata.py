"""A metadata server just large enough for guests of the contract suite to finish their boot.

The product's own one needs the cloud's database; a driver's contract must not.
"""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestIdentity:
    """What one guest is told of itself."""

    instance_id: str
    hostname: str
    address: str
    mac: str


class MetadataServer:
    """Serves an EC2-style tree on a listening socket; the guest is known by its source address.

    Source: Amazon EC2 user guide, "Use instance metadata", the tree under ``/latest/meta-data/``.
    """

    def __init__(self, listener: socket.socket) -> None:
        self.identities: dict[str, GuestIdentity] = {}
        identities = self.identities

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                identity = identities.get(self.client_address[0])
                body = _tree(identity).get(self.path.rstrip("/")) if identity else None
                self.send_response(404 if body is None else 200)
                payload = (body or "").encode()
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, format: str, *args: object) -> None:
                """Keep the tests' output quiet."""

        self._server = ThreadingHTTPServer(("", 0), Handler, bind_and_activate=False)
        self._server.socket.close()  # the one made by the constructor is in the wrong network namespace
        self._server.socket = listener
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving and close the listening socket."""
        self._server.shutdown()
        self._thread.join(timeout=5)
        self._server.server_close()


def _tree(identity: GuestIdentity) -> dict[str, str]:
    leaves = {
        "instance-id": identity.instance_id,
        "hostname": identity.hostname,
        "local-hostname": identity.hostname,
        "local-ipv4": identity.address,
        "mac": identity.mac,
        "public-keys": "",
    }
    root = "/latest/meta-data"
    return {
        "/latest": "meta-data",
        root: "\n".join(leaves),
        **{f"{root}/{name}": value for name, value in leaves.items()},
    }
