"""Run the system's own programs (ip, mount, nsenter, ...) and take their failures as driver errors."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping, Sequence

from iaas.drivers.interface import PermanentError, TransientError

ADMIN_PATHS = ("/usr/local/sbin", "/usr/sbin", "/sbin")


class ProgramError(PermanentError):
    """A program ended with a status other than 0. ``stderr`` is what it said; it may name paths of the host."""

    def __init__(self, argv: Sequence[str], status: int, stderr: str) -> None:
        super().__init__(f"{argv[0]} failed with status {status}")
        self.argv = tuple(argv)
        self.status = status
        self.stderr = stderr

    def __str__(self) -> str:
        return f"{self.args[0]}: {self.stderr.strip()[-500:]}"


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a system program: messages in English, the administrator's tools on PATH."""
    env = dict(os.environ)
    folders = env.get("PATH", os.defpath).split(":")
    env["PATH"] = ":".join([*folders, *(folder for folder in ADMIN_PATHS if folder not in folders)])
    env["LC_ALL"] = "C"
    return env | dict(extra or {})


def run_program(
    argv: Sequence[str], *, timeout_s: float = 30, env: Mapping[str, str] | None = None, input_text: str | None = None
) -> str:
    """Run a program to its end, in the calling thread's network namespace, and return its standard output.

    Raises:
        ProgramError: it ended with another status than 0.
        TransientError: it did not end within ``timeout_s``; it was killed.
        PermanentError: it is not installed.
    """
    # Files in place of pipes: a daemon that keeps its standard error open would hold a pipe's reader for ever.
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL if input_text is None else None,
                input=None if input_text is None else input_text.encode(),
                stdout=stdout,
                stderr=stderr,
                timeout=timeout_s,
                env=environment(env),
                umask=0o022,  # daemons inherit it, and LXD under 077 makes containers that cannot start
                check=False,
            )
        except FileNotFoundError as exc:
            raise PermanentError(f"the program {argv[0]} is not installed on this host") from exc
        except subprocess.TimeoutExpired as exc:
            raise TransientError(f"{argv[0]} did not end within {timeout_s:g} s") from exc
        stdout.seek(0)
        stderr.seek(0)
        if done.returncode != 0:
            raise ProgramError(argv, done.returncode, stderr.read().decode(errors="replace") or shlex.join(argv))
        return stdout.read().decode(errors="replace")
