"""The text on a simulated machine's console: events with a time, turned into lines when somebody reads."""

from __future__ import annotations

import sqlite3
from enum import StrEnum

from iaas.drivers.interface import MachineKind

MICROSECONDS_PER_S = 1_000_000


class ConsoleEvent(StrEnum):
    BOOT = "boot"  # text is the host name; lines appear one by one until the guest is ready
    SHUTDOWN = "shutdown"
    TEXT = "text"  # exactly ``text``: what the guest wrote, or what is left of an event that was cut short


_BOOT_LINES = {
    MachineKind.VM: (
        "[    0.000000] Linux version sim (simulated machine, no kernel runs here)",
        "[    0.000000] Command line: console=ttyS0 quiet",
        "virtio_blk virtio0: [vda] root disk found",
        "init: network interfaces are up",
        "init: host name is {hostname}",
        "READY {machine_id}",
    ),
    MachineKind.CONTAINER: (
        "init: started (simulated container machine)",
        "init: network interfaces are up",
        "init: host name is {hostname}",
        "READY {machine_id}",
    ),
}
_SHUTDOWN_LINES = ("The system is going down NOW!", "Sent SIGTERM to all processes", "Requesting system poweroff")


def record(
    connection: sqlite3.Connection,
    machine_id: str,
    event: ConsoleEvent,
    *,
    at_us: int,
    until_us: int | None = None,
    text: str = "",
) -> None:
    """Add an event that begins at ``at_us`` and whose last line appears at ``until_us``."""
    connection.execute(
        "INSERT INTO console (machine_id, seq, event, at_us, until_us, text) VALUES (?,"
        " (SELECT coalesce(max(seq), 0) + 1 FROM console WHERE machine_id = ?), ?, ?, ?, ?)",
        (machine_id, machine_id, event.value, at_us, at_us if until_us is None else until_us, text),
    )


def cut(connection: sqlite3.Connection, machine_id: str, kind: MachineKind, *, now_us: int) -> None:
    """Keep what was shown until now and drop what was still to come: the power is gone."""
    for seq, event, at_us, until_us, text in connection.execute(
        "SELECT seq, event, at_us, until_us, text FROM console WHERE machine_id = ? AND until_us > ?",
        (machine_id, now_us),
    ).fetchall():
        shown = _render(ConsoleEvent(event), machine_id, kind, at_us=at_us, until_us=until_us, text=text, now_us=now_us)
        connection.execute(
            "UPDATE console SET event = ?, at_us = ?, until_us = ?, text = ? WHERE machine_id = ? AND seq = ?",
            (ConsoleEvent.TEXT.value, min(at_us, now_us), min(at_us, now_us), shown, machine_id, seq),
        )


def tail(connection: sqlite3.Connection, machine_id: str, kind: MachineKind, *, now_us: int, tail_bytes: int) -> bytes:
    """Return the last ``tail_bytes`` of what the console has shown by now."""
    if tail_bytes <= 0:
        return b""
    parts: list[bytes] = []
    length = 0
    for event, at_us, until_us, text in connection.execute(
        "SELECT event, at_us, until_us, text FROM console WHERE machine_id = ? AND at_us <= ? ORDER BY seq DESC",
        (machine_id, now_us),
    ):
        part = _render(
            ConsoleEvent(event), machine_id, kind, at_us=at_us, until_us=until_us, text=text, now_us=now_us
        ).encode()
        parts.append(part)
        length += len(part)
        if length >= tail_bytes:
            break
    return b"".join(reversed(parts))[-tail_bytes:]


def _render(
    event: ConsoleEvent, machine_id: str, kind: MachineKind, *, at_us: int, until_us: int, text: str, now_us: int
) -> str:
    if event is ConsoleEvent.TEXT:
        return text if at_us <= now_us else ""
    lines = _BOOT_LINES[kind] if event is ConsoleEvent.BOOT else _SHUTDOWN_LINES
    step_us = (until_us - at_us) / max(len(lines) - 1, 1)
    return "".join(
        line.format(hostname=text, machine_id=machine_id) + "\n"
        for position, line in enumerate(lines)
        # The last line is compared with the moment itself, which the steps may miss by rounding.
        if (until_us if position == len(lines) - 1 else at_us + position * step_us) <= now_us
    )
