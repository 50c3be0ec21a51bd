"""Commands in a guest, over LXD's exec websockets: one each for stdin, stdout, stderr and control.

LXD can record the output instead, but then on the host's disk and without end; and it has no way to end
such a command. Over websockets we keep what we want, and kill what runs out of time.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

import websocket

from iaas.drivers.interface import ExecResult, GuestUnavailableError, NotFoundError
from iaas.drivers.lxd.connection import LXDConnection, Operation, shut_down
from iaas.drivers.lxd.errors import driver_error
from iaas.kernel.units import KIB, MIB

OUTPUT_LIMIT_BYTES = MIB
STDIN_CHUNK_BYTES = 32 * KIB
EXIT_TIMED_OUT = 124  # as timeout(1)
KILL_GRACE_S = 5.0
DRAIN_GRACE_S = 5.0
SIGKILL = 9
ENDS = frozenset({websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_CLOSE})
DATA = frozenset({websocket.ABNF.OPCODE_BINARY, websocket.ABNF.OPCODE_CONT})

ACTION = "run a command in the guest"

log = logging.getLogger(__name__)


class _Output(threading.Thread):
    """Keeps the first MiB of one stream, and reads on so that the command does not block."""

    def __init__(self, stream: websocket.WebSocket) -> None:
        super().__init__(name="lxd-exec-output", daemon=True)
        self._stream = stream
        self._data = bytearray()
        self.is_cut = False

    def run(self) -> None:
        reading: Any = self._stream  # its methods carry no types
        # A text frame is LXD's mark for the end of the stream; the socket may also just be closed.
        with contextlib.suppress(websocket.WebSocketException, OSError):
            while True:
                # Frame by frame, since recv_data() answers a ping itself: LXD begins with one, and has perhaps
                # closed its side already when we read it. The answer fails then, and the output behind is lost.
                frame = reading.recv_frame()
                if frame is None or frame.opcode in ENDS:
                    return
                if frame.opcode == websocket.ABNF.OPCODE_PING:
                    with contextlib.suppress(OSError, websocket.WebSocketException):
                        self._stream.pong(frame.data)
                elif frame.opcode in DATA:
                    self._take(frame.data)

    def _take(self, chunk: bytes) -> None:
        room = OUTPUT_LIMIT_BYTES - len(self._data)
        self._data += chunk[:room]
        self.is_cut = self.is_cut or len(chunk) > room

    @property
    def data(self) -> bytes:
        return bytes(self._data)


class _Input(threading.Thread):
    """Feeds the command's standard input, and ends it; a command that does not read does not hold us up."""

    def __init__(self, stream: websocket.WebSocket, data: bytes) -> None:
        super().__init__(name="lxd-exec-input", daemon=True)
        self._stream = stream
        self._data = data

    def run(self) -> None:
        # The command may end, and its websocket with it, before all was read: no fault of anybody's.
        with contextlib.suppress(websocket.WebSocketException, OSError):
            for start in range(0, len(self._data), STDIN_CHUNK_BYTES):
                self._stream.send_binary(self._data[start : start + STDIN_CHUNK_BYTES])
            self._stream.send_text("")


def execute(
    connection: LXDConnection, instance_name: str, argv: Sequence[str], *, timeout_s: float, stdin: bytes
) -> ExecResult:
    """Run ``argv`` as root in the running instance; see ``ComputeDriver.execute``.

    A command that is killed at its time's end may leave children of its own behind in the guest.
    """
    deadline_s = time.monotonic() + timeout_s
    operation_id, begun = connection.begin(
        "post",
        f"instances/{instance_name}/exec",
        action=ACTION,
        json={
            "command": list(argv),
            "environment": {"HOME": "/root", "USER": "root", "TERM": "dumb"},
            "interactive": False,
            "wait-for-websocket": True,
        },
    )
    secrets = begun["metadata"]["fds"]
    with contextlib.ExitStack() as opened:
        streams: dict[str, websocket.WebSocket] = {}
        # LXD starts the command when all four are there.
        for name in ("control", "0", "1", "2"):
            path = f"operations/{operation_id}/websocket?secret={secrets[name]}"
            # Reads end with the stream or when we close it; a bound keeps a thread from living on regardless.
            streams[name] = connection.open_websocket(path, timeout_s=timeout_s + KILL_GRACE_S + DRAIN_GRACE_S)
            opened.callback(shut_down, streams[name])
        outputs = (_Output(streams["1"]), _Output(streams["2"]))
        for thread in (*outputs, _Input(streams["0"], stdin)):
            thread.start()
        operation = _wait(connection, operation_id, deadline_s - time.monotonic())
        has_timed_out = operation is None
        if has_timed_out:
            _kill(streams["control"])
            operation = _wait(connection, operation_id, KILL_GRACE_S)
        grace_ends_s = time.monotonic() + DRAIN_GRACE_S
        for output in outputs:
            output.join(max(0.0, grace_ends_s - time.monotonic()))
    return ExecResult(
        exit_code=EXIT_TIMED_OUT if operation is None or has_timed_out else _exit_code(operation),
        stdout=outputs[0].data,
        stderr=outputs[1].data,
        truncated=any(output.is_cut for output in outputs),
    )


def _wait(connection: LXDConnection, operation_id: str, timeout_s: float) -> Operation | None:
    try:
        return connection.wait(operation_id, action=ACTION, timeout_s=max(0.0, timeout_s))
    except NotFoundError as exc:
        raise GuestUnavailableError("the command's outcome was lost: LXD was restarted") from exc


def _exit_code(operation: Operation) -> int:
    """Return the command's exit code.

    "Command not found" and "not executable" are failed operations to LXD, with 127 and 126 beside.
    """
    code = operation.metadata.get("return")
    if code is not None and int(code) >= 0:
        return int(code)
    raise driver_error(ACTION, operation.status_code, operation.error or "no exit code")


def _kill(control: websocket.WebSocket) -> None:
    with contextlib.suppress(websocket.WebSocketException, OSError):
        control.send_text(json.dumps({"command": "signal", "signal": SIGKILL}))
