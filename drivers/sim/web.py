"""The web page of simulated guests: what our images answer on port 80."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iaas.drivers.sim.guest_facts import KERNEL

if TYPE_CHECKING:
    from iaas.drivers.sim.guest import Guest

HTTP_PORT = 80
WEB_FOLDER = "/var/www"


def answer(guest: Guest, request: bytes) -> bytes:
    """Return the response to one HTTP request, of which the first line counts."""
    words = request.split(b"\n", 1)[0].decode("latin-1").split()
    if len(words) < 2 or words[0] not in {"GET", "HEAD"}:
        return response("405 Method Not Allowed", b"only GET\n")
    body = _body(guest, words[1].partition("?")[0])
    full = response("404 Not Found", b"not found\n") if body is None else response("200 OK", body)
    return full if words[0] == "GET" else full.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


def response(status: str, body: bytes) -> bytes:
    """Return a whole HTTP response with a text."""
    head = f"HTTP/1.0 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


def _body(guest: Guest, path: str) -> bytes | None:
    """Return a file of the guest's web folder, the page that says who it is, or None."""
    wanted = guest.files.absolute(path.lstrip("/") or "index.html", WEB_FOLDER)
    if wanted.startswith(f"{WEB_FOLDER}/") and guest.files.is_file(wanted):
        return guest.files.read(wanted)
    if path != "/":
        return None
    facts = guest.facts
    return f"id={facts.machine_id} host={guest.hostname} kind={facts.kind.value} kernel={KERNEL}\n".encode()
