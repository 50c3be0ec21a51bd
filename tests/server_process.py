"""``iaas serve`` as a process of its own, for tests that want the program and not its parts."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0


class ServerProcess:
    """A simulated cloud on a free port of loopback; running inside the ``with`` block.

    Args:
        program: the ``iaas`` command of the environment that is tested.
        state: its folder.
        extra: further options of ``iaas serve``.
        log: file for its log; our own standard error when None.
    """

    def __init__(self, program: Path, state: Path, *, extra: Sequence[str] = (), log: Path | None = None) -> None:
        self.program = program
        self.state = state
        self.extra = extra
        self.log = log
        self.url = ""

    def __enter__(self) -> Self:
        command = [str(self.program), "serve", "--listen", "127.0.0.1:0", "--state", str(self.state)]
        command += self.extra
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("IAAS_", "PYTHONP"))}
        with ExitStack() as stack:
            errors = stack.enter_context(self.log.open("w")) if self.log else None
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
                cwd=self.state.parent,
            )
        assert self._process.stdout is not None
        timer = threading.Timer(START_TIMEOUT_S, self._process.kill)
        timer.start()
        try:
            word, _, self.url = self._process.stdout.readline().strip().partition(" ")
        finally:
            timer.cancel()
        assert word == "ready", f"the server did not start: {word}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            assert self._process.wait(STOP_TIMEOUT_S) == 0
        finally:
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
