"""The web page of simulated guests: what our images answer on port 80."""

from __future__ import annotations

import contextlib
import socket
import threading

from iaas.drivers.interface import BackendDownError, MachineKind
from iaas.drivers.sim.guest import Guest, page
from iaas.drivers.sim.guest_facts import read_facts
from iaas.drivers.sim.world import SimWorld

HTTP_PORT = 80
WEB_FOLDER = "/var/www"
IDLE_TIMEOUT_S = 30.0
REQUEST_LIMIT_BYTES = 16 * 1024


def serve(world: SimWorld, machine_id: str, kind: MachineKind, connection: socket.socket) -> None:
    """Answer one HTTP request on ``connection`` in a thread of its own, then close it."""
    threading.Thread(
        target=_answer, args=(world, machine_id, kind, connection), name=f"sim-http-{machine_id}", daemon=True
    ).start()


def _answer(world: SimWorld, machine_id: str, kind: MachineKind, connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError, BackendDownError):  # who dialled, or the world, has gone
        connection.settimeout(IDLE_TIMEOUT_S)
        request = b""
        while b"\r\n\r\n" not in request and b"\n\n" not in request:
            received = connection.recv(4096)
            if not received:
                return
            request += received
            if len(request) > REQUEST_LIMIT_BYTES:
                connection.sendall(_response("413 Content Too Large", b"too large\n"))
                return
        words = request.split(b"\n", 1)[0].decode("latin-1").split()
        if len(words) < 2 or words[0] not in {"GET", "HEAD"}:
            connection.sendall(_response("405 Method Not Allowed", b"only GET\n"))
            return
        body = _body(world, machine_id, words[1].partition("?")[0])
        response = _response("404 Not Found", b"not found\n") if body is None else _response("200 OK", body)
        connection.sendall(response if words[0] == "GET" else response.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")


def _body(world: SimWorld, machine_id: str, path: str) -> bytes | None:
    """Return a file of the guest's web folder, the page that says who it is, or None."""
    with world.lock:
        database = world.connection()
        if database.execute("SELECT 1 FROM machines WHERE machine_id = ?", (machine_id,)).fetchone() is None:
            return None
        guest = Guest(database, read_facts(database, machine_id, world.now_us()))
        wanted = guest.files.absolute(path.lstrip("/") or "index.html", WEB_FOLDER)
        if wanted.startswith(f"{WEB_FOLDER}/") and guest.files.is_file(wanted):
            return guest.files.read(wanted)
        return page(guest.facts, guest.hostname).encode() if path == "/" else None


def _response(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.0 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body
