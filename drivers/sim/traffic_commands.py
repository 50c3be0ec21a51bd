"""Programs of simulated guests that talk to others: ping, nc, wget, curl, getent, nslookup."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from iaas.drivers.sim.command_table import CommandTable, encoded, wrong
from iaas.drivers.sim.guest_names import Found, NoAnswerError, addresses_of, ask
from iaas.drivers.sim.shell import Outcome
from iaas.drivers.sim.traffic import RefusedError, UnreachableError, exchange, ping

if TYPE_CHECKING:
    from iaas.drivers.sim.guest import Guest

COMMANDS = CommandTable()
RECORD_TYPES = {"-type=a": "A", "-type=cname": "CNAME", "-type=txt": "TXT"}
PING_WAIT_S = 10.0
CONNECT_WAIT_S = 127.0  # what Linux takes to give up a connection that nobody answers


class _UsageError(Exception):
    """The options make no sense; the message says which."""


class _Options(NamedTuple):
    values: dict[str, str]
    operands: list[str]

    def number(self, name: str, default: float) -> float:
        try:
            value = float(self.values.get(name, default))
        except ValueError as exc:
            raise _UsageError(f"invalid number {self.values[name]!r}") from exc
        if not 0 <= value < math.inf:
            raise _UsageError(f"invalid number {self.values[name]!r}")
        return value


def _parse(arguments: list[str], *, flags: str, valued: str, long: dict[str, str] | None = None) -> _Options:
    """Return options by their letters; ``long`` tells the letter of each long option, all of which take a value."""
    values: dict[str, str] = {}
    operands: list[str] = []
    words: Iterator[str] = iter(arguments)
    for word in words:
        if not word.startswith("-") or word == "-":
            operands.append(word)
        elif word.startswith("--"):
            name, equals, value = word.partition("=")
            letter = (long or {}).get(name)
            if letter is None:
                raise _UsageError(f"option {name} is not simulated")
            values[letter] = value if equals else next(words, "")
        else:
            for position, letter in enumerate(word[1:], start=2):
                if letter in valued:
                    values[letter] = word[position:] or next(words, "")
                    break
                if letter not in flags:
                    raise _UsageError(f"option -{letter} is not simulated")
                values[letter] = ""
    return _Options(values, operands)


@COMMANDS.add("ping")
def _ping(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    try:
        options = _parse(arguments, flags="q4n", valued="cWwis")
        wait_s, count = options.number("W", PING_WAIT_S), options.number("c", math.nan) if "c" in options.values else 0
    except _UsageError as exc:
        return wrong("ping", str(exc))
    if len(options.operands) != 1:
        return wrong("ping", "usage: ping [-c COUNT] [-W SECONDS] HOST")
    [host] = options.operands
    found = _resolve(guest, host)
    if found is None:
        return wrong("ping", f"bad address {host!r}", 1)
    packets, address = int(count) or 1, found
    head = f"PING {host} ({address}): 56 data bytes\n"
    try:
        echo = ping(guest, address, packets)
    except UnreachableError:
        return Outcome(1, encoded(head), b"ping: sendto: Network unreachable\n")
    guest.spend(packets - 1 if echo.received else packets - 1 + wait_s)
    if not count:
        guest.spend(math.inf)  # without a number it goes on until its time is over
    lines = (
        ""
        if "q" in options.values
        else "".join(
            f"64 bytes from {address}: seq={number} ttl={echo.hops_left} time=0.1 ms\n"
            for number in range(echo.received)
        )
    )
    lost = 100 * (packets - echo.received) // packets
    lines += f"\n--- {host} ping statistics ---\n"
    lines += f"{packets} packets transmitted, {echo.received} packets received, {lost}% packet loss\n"
    return Outcome(0 if echo.received else 1, encoded(head + lines))


@COMMANDS.add("nc")
def _nc(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    try:
        options = _parse(arguments, flags="zvn", valued="w")
        wait_s = options.number("w", CONNECT_WAIT_S)
    except _UsageError as exc:
        return wrong("nc", str(exc), 1)
    match options.operands:
        case [host, port] if port.isdecimal() and 0 < int(port) < 65536:
            pass
        case _:
            return wrong("nc", "usage: nc [-zv] [-w SECONDS] HOST PORT", 1)
    address = _resolve(guest, host)
    if address is None:
        return wrong("nc", f"bad address {host!r}", 1)
    try:
        reply = exchange(guest, address, int(port), b"" if "z" in options.values else stdin)
    except RefusedError:
        return wrong("nc", f"{host} ({address}:{port}): Connection refused", 1)
    except UnreachableError as exc:
        return wrong("nc", f"{host} ({address}:{port}): {_waited(guest, exc, wait_s)}", 1)
    opened = f"{host} ({address}:{port}) open\n" if "v" in options.values else ""
    return Outcome(0, reply, encoded(opened))


@COMMANDS.add("wget")
def _wget(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    try:
        options = _parse(arguments, flags="qS", valued="OT", long={"--timeout": "T"})
        got = _get(guest, options.operands, options.number("T", CONNECT_WAIT_S))
    except _UsageError as exc:
        return wrong("wget", str(exc), 1)
    if got.failure:
        return wrong("wget", got.failure, 1)
    if not got.status.startswith("200"):
        return wrong("wget", f"server returned error: HTTP/1.0 {got.status}", 1)
    target = options.values.get("O", got.file_name)
    if target == "-":
        return Outcome(0, got.body)
    guest.files.write(guest.files.absolute(target, guest.folder), got.body)
    return Outcome(0, b"", b"" if "q" in options.values else encoded(f"{target!r} saved\n"))


@COMMANDS.add("curl")
def _curl(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    try:
        options = _parse(arguments, flags="sSfL4", valued="om", long={"--max-time": "m", "--connect-timeout": "m"})
        got = _get(guest, options.operands, options.number("m", CONNECT_WAIT_S))
    except _UsageError as exc:
        return wrong("curl", str(exc))
    quiet = "s" in options.values and "S" not in options.values
    if got.failure:
        return Outcome(got.curl_code, b"", b"" if quiet else encoded(f"curl: ({got.curl_code}) {got.failure}\n"))
    if "f" in options.values and not got.status.startswith("200"):
        return Outcome(
            22, b"", b"" if quiet else encoded(f"curl: (22) The requested URL returned error: {got.status}\n")
        )
    if (target := options.values.get("o", "-")) == "-":
        return Outcome(0, got.body)
    guest.files.write(guest.files.absolute(target, guest.folder), got.body)
    return Outcome(0)


@COMMANDS.add("getent")
def _getent(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    if arguments[:1] not in (["hosts"], ["ahostsv4"]) or len(arguments) < 2:
        return wrong("getent", "only 'getent hosts NAME' is simulated", 1)
    out = ""
    for name in arguments[1:]:
        try:
            found = addresses_of(guest, name)
        except NoAnswerError:
            found = Found(name, ())
        if not found.values:
            return Outcome(2, encoded(out))
        out += "".join(f"{address:<15} {found.name}\n" for address in found.values)
    return Outcome(0, encoded(out))


@COMMANDS.add("nslookup")
def _nslookup(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    record_type = "A"
    if arguments and arguments[0].lower() in RECORD_TYPES:
        record_type, arguments = RECORD_TYPES[arguments[0].lower()], arguments[1:]
    if len(arguments) != 1:
        return wrong("nslookup", "usage: nslookup [-type=A|CNAME|TXT] NAME", 1)
    try:
        found = ask(guest, arguments[0], record_type)
    except NoAnswerError as exc:
        return Outcome(1, encoded(f";; connection timed out; {exc}\n"))
    server = guest.facts.dns_servers[0]
    head = f"Server:\t\t{server}\nAddress:\t{server}:53\n\n"
    if not found.values:
        return Outcome(1, encoded(head + f"** server can't find {found.name}: NXDOMAIN\n"))
    shown = {"A": "Name:\t{name}\nAddress: {value}\n", "CNAME": "{name}\tcanonical name = {value}\n"}.get(
        record_type, '{name}\ttext = "{value}"\n'
    )
    return Outcome(0, encoded(head + "".join(shown.format(name=found.name, value=value) for value in found.values)))


class _Got(NamedTuple):
    """What a GET came to: a status with a body, or the failure in words."""

    status: str = ""
    body: bytes = b""
    failure: str = ""
    curl_code: int = 0
    file_name: str = "index.html"


def _get(guest: Guest, urls: list[str], wait_s: float) -> _Got:
    if len(urls) != 1:
        raise _UsageError("one URL is expected")
    url = urls[0] if "://" in urls[0] else f"http://{urls[0]}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError as exc:
        raise _UsageError(f"bad URL: {exc}") from exc
    if parts.scheme != "http" or not host:
        raise _UsageError("only http:// is simulated")
    address = _resolve(guest, host)
    if address is None:
        return _Got(failure=f"bad address {host!r}", curl_code=6)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        reply = exchange(guest, address, port, encoded(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n"))
    except RefusedError:
        return _Got(failure=f"can't connect to remote host ({address}): Connection refused", curl_code=7)
    except UnreachableError as exc:
        reason = _waited(guest, exc, wait_s)
        return _Got(failure=f"can't connect to remote host ({address}): {reason}", curl_code=7 if exc.at_once else 28)
    head, _, body = reply.partition(b"\r\n\r\n")
    status = head.split(b"\r\n")[0].decode().partition(" ")[2]
    return _Got(status=status, body=body, file_name=parts.path.rpartition("/")[2] or "index.html")


def _resolve(guest: Guest, host: str) -> str | None:
    """Return the first address of a name; None for an unknown one."""
    try:
        return next(iter(addresses_of(guest, host).values), None)
    except NoAnswerError:
        return None


def _waited(guest: Guest, error: UnreachableError, wait_s: float) -> str:
    """Let the time pass that it takes to find out; return what a program says then."""
    if error.at_once:
        return "No route to host"
    guest.spend(wait_s)
    return "Connection timed out"
