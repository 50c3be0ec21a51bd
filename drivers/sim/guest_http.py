"""A socket to the web page of a simulated guest, for who dials it from outside."""

from __future__ import annotations

import contextlib
import socket
import threading

from iaas.drivers.interface import BackendDownError
from iaas.drivers.sim.guest import Guest
from iaas.drivers.sim.guest_facts import read_facts
from iaas.drivers.sim.web import answer, response
from iaas.drivers.sim.world import SimWorld

IDLE_TIMEOUT_S = 30.0
REQUEST_LIMIT_BYTES = 16 * 1024


def serve(world: SimWorld, machine_id: str, connection: socket.socket) -> None:
    """Answer one HTTP request on ``connection`` in a thread of its own, then close it."""
    threading.Thread(
        target=_serve, args=(world, machine_id, connection), name=f"sim-http-{machine_id}", daemon=True
    ).start()


def _serve(world: SimWorld, machine_id: str, connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError, BackendDownError):  # who dialled, or the world, has gone
        connection.settimeout(IDLE_TIMEOUT_S)
        request = b""
        while b"\r\n\r\n" not in request and b"\n\n" not in request:
            received = connection.recv(4096)
            if not received:
                return
            request += received
            if len(request) > REQUEST_LIMIT_BYTES:
                connection.sendall(response("413 Content Too Large", b"too large\n"))
                return
        connection.sendall(_answer(world, machine_id, request))


def _answer(world: SimWorld, machine_id: str, request: bytes) -> bytes:
    with world.lock:
        database = world.connection()
        if database.execute("SELECT 1 FROM machines WHERE machine_id = ?", (machine_id,)).fetchone() is None:
            return response("404 Not Found", b"not found\n")
        return answer(Guest(database, read_facts(database, machine_id, world.now_us())), request)
