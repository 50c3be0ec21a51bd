"""The way into a running guest: QEMU's guest agent, spoken to through libvirt.

Source: QEMU, "QEMU Guest Agent Protocol Reference" (guest-ping, guest-exec, guest-file-*).
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import libvirt
import libvirt_qemu

from iaas.drivers.interface import DriverError, ExecResult, GuestFile, GuestUnavailableError, PermanentError
from iaas.drivers.libvirt.errors import translated
from iaas.kernel.units import KIB, MIB

ANSWER_TIMEOUT_S = 10
READY_TIMEOUT_S = 2
OUTPUT_LIMIT_BYTES = 1 * MIB
STDIN_LIMIT_BYTES = 8 * MIB
# The most put into one message to the agent: an emulated guest chokes on half a mebibyte, and is then
# taken for dead.
CHUNK_BYTES = 64 * KIB
POLL_FIRST_S, POLL_MOST_S = 0.02, 0.25
KILL_GRACE_S = 3.0

TIMED_OUT = 124
KILLED = 137

READY_MARK = "/run/iaas-ready"  # made when the boot is through, in guests of our own images
OWN_IMAGE_MARK = "/etc/iaas/announce"  # there in guests of our own images only

# Runs "$@" with outputs of at most $1 bytes each and, unless $2 is empty, the file $2 as its input, which
# is removed. The agent keeps all output in memory and libvirt gives up a
# channel that answers with more than some MiB, so the cut is made inside. Arguments are passed on as they
# are; ``exec`` looks the command up as the kernel would (126, 127), never as a shell's own word.
# Descriptors: 3 and 4 the agent's pipes, 5 the exit code, 6 the standard error on its way to the cut.
RELAY = """
limit=$1 input=$2; shift 2
[ -z "$input" ] || { exec < "$input"; rm -f "$input"; }
exec 3>&1 4>&2
code=$({ { { (exec "$@" 2>&6 3>&- 4>&- 5>&- 6>&-); echo $? >&5; } \
| { head -c "$limit" >&3; cat >/dev/null; }; } 6>&1 | { head -c "$limit" >&4; cat >/dev/null; }; } 5>&1)
exit "${code:-137}"
"""


class GuestAgent:
    """The agent in one running machine.

    Every call raises GuestUnavailableError when the agent does not answer, or the machine does not run.
    """

    def __init__(self, domain: libvirt.virDomain) -> None:
        self._domain = domain

    def _call(self, command: str, *, timeout_s: int = ANSWER_TIMEOUT_S, **arguments: Any) -> Any:
        request: dict[str, Any] = {"execute": command}
        if arguments:
            request["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
        try:
            with translated(f"reach the guest ({command})"):
                answer = libvirt_qemu.qemuAgentCommand(self._domain, json.dumps(request), timeout_s, 0)
        except DriverError as exc:
            cause = exc.__cause__
            if isinstance(cause, libvirt.libvirtError) and cause.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID:
                raise GuestUnavailableError("the machine does not run") from cause
            raise
        return json.loads(answer)["return"]

    def _can_open(self, path: str) -> bool:
        """Return whether the guest has the file ``path``."""
        try:
            handle = self._call("guest-file-open", timeout_s=READY_TIMEOUT_S, path=path, mode="r")
        except (GuestUnavailableError, PermanentError):
            raise
        except DriverError:
            return False
        self._call("guest-file-close", timeout_s=READY_TIMEOUT_S, handle=handle)
        return True

    def is_ready(self) -> bool:
        """Return whether the guest's boot is through; for images not ours, whether the agent answers."""
        try:
            return self._can_open(READY_MARK) or not self._can_open(OWN_IMAGE_MARK)
        except GuestUnavailableError:
            return False

    def execute(self, argv: Sequence[str], *, timeout_s: float, stdin: bytes) -> ExecResult:
        """Run a command; see ``ComputeDriver.execute``.

        It is over when its output is closed: a command that leaves a child in the background has to
        redirect the child's output.
        """
        if not argv:
            raise PermanentError("no command was given")
        if len(stdin) > STDIN_LIMIT_BYTES:
            raise PermanentError(f"the standard input is larger than {STDIN_LIMIT_BYTES // MIB} MiB")
        deadline = time.monotonic() + timeout_s
        input_path = ""
        if len(stdin) > CHUNK_BYTES:
            input_path = f"/tmp/iaas-input-{secrets.token_hex(8)}"  # noqa: S108 - in the guest, a name nobody guesses
            self._write(input_path, stdin)
            stdin = b""
        # By its path: busybox's setsid would take its own shell, and that its own commands, before those on the PATH.
        relay = ["/bin/sh", "-c", RELAY, "exec", str(OUTPUT_LIMIT_BYTES + 1), input_path]
        pid = self._spawn([*relay, *argv], stdin=stdin)
        status = self._wait(pid, deadline)
        if status is not None:
            return _result(status)
        with suppress(GuestUnavailableError):
            # A guest too busy to obey is left to itself: the time is over all the same.
            self._spawn(["kill", "-9", "--", f"-{pid}"], stdin=b"")
            status = self._wait(pid, time.monotonic() + KILL_GRACE_S)
        late = _result(status or {})
        return ExecResult(exit_code=TIMED_OUT, stdout=late.stdout, stderr=late.stderr, truncated=late.truncated)

    def _spawn(self, argv: Sequence[str], *, stdin: bytes) -> int:
        """Start a command in a session of its own, so that all of it can be ended; return its pid."""
        answer = self._call(
            "guest-exec",
            path="setsid",
            arg=list(argv),
            input_data=base64.b64encode(stdin).decode(),
            capture_output=True,
        )
        return int(answer["pid"])

    def _wait(self, pid: int, deadline: float) -> dict[str, Any] | None:
        """Return the final status of a process; None when ``deadline`` passes first."""
        pause_s = POLL_FIRST_S
        while True:
            status: dict[str, Any] = self._call("guest-exec-status", pid=pid)
            if status["exited"]:
                return status
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return None
            time.sleep(min(pause_s, left_s))  # the agent tells of no end by itself: it has to be asked
            pause_s = min(pause_s * 1.5, POLL_MOST_S)

    def write_file(self, file: GuestFile) -> None:
        """Write a file, whole or not at all as far as readers in the guest can see, folders above it included."""
        new = f"{file.path}.{secrets.token_hex(4)}.new"
        folder = file.path.rpartition("/")[0] or "/"
        # Made before it is written, since the agent would make it readable for all.
        self._run_or_raise('mkdir -p -- "$1" && umask 077 && : > "$2"', folder, new)
        self._write(new, file.content)
        self._run_or_raise('chmod -- "$1" "$2" && mv -fT -- "$2" "$3"', f"{file.mode:o}", new, file.path)

    def _write(self, path: str, content: bytes) -> None:
        handle = self._call("guest-file-open", path=path, mode="w")
        try:
            for start in range(0, len(content), CHUNK_BYTES):
                chunk = base64.b64encode(content[start : start + CHUNK_BYTES]).decode()
                self._call("guest-file-write", handle=handle, buf_b64=chunk)
        finally:
            self._call("guest-file-close", handle=handle)

    def _run_or_raise(self, script: str, *arguments: str) -> None:
        """Run a script of ours in the guest; what came from outside is in its arguments only."""
        result = self.execute(["sh", "-c", script, "push", *arguments], timeout_s=ANSWER_TIMEOUT_S, stdin=b"")
        if result.exit_code != 0:
            raise PermanentError(f"the guest refused the file: {result.stderr.decode(errors='replace').strip()}")


def _result(status: dict[str, Any]) -> ExecResult:
    out, err = (base64.b64decode(status.get(name, "")) for name in ("out-data", "err-data"))
    return ExecResult(
        exit_code=int(status.get("exitcode", KILLED)),
        stdout=out[:OUTPUT_LIMIT_BYTES],
        stderr=err[:OUTPUT_LIMIT_BYTES],
        truncated=len(out) > OUTPUT_LIMIT_BYTES or len(err) > OUTPUT_LIMIT_BYTES,
    )
