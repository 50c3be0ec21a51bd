"""Servers as processes: started, spoken to over real sockets, stopped or killed."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

START_TIMEOUT_S = 30.0


class Server:
    """One ``iaas serve`` on the simulated backend; ready when this returns."""

    def __init__(
        self,
        state: Path,
        *options: str,
        environment: Mapping[str, str] | None = None,
        program: str = "iaas.cli",
    ) -> None:
        self.state = state
        self.errors = ""
        self.process = spawn(state, *options, environment=environment, program=program)
        self.ready_line = first_line(self.process)
        if not self.ready_line.startswith("ready "):
            self.process.kill()
            self.reap()
            raise AssertionError(f"the server is not ready: {self.ready_line!r} {self.errors}")
        self.url = self.ready_line.removeprefix("ready ").strip()
        document = json.loads((state / "credentials.json").read_text())
        self.token: str = document["api_token"]
        self.client = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=30, trust_env=False
        )

    def get(self, path: str, **query: Any) -> Any:
        answer = self.client.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Any = None, *, status: int = 202) -> Any:
        answer = self.client.post(path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def stop(self) -> int:
        """Ask the server to end and return its exit status."""
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        return self.reap()

    def kill(self) -> None:
        self.client.close()
        self.process.kill()
        self.reap()

    def reap(self) -> int:
        """Return the exit status of the process once it has ended; its pipes are closed."""
        _, self.errors = self.process.communicate(timeout=30)
        return self.process.returncode


def spawn(
    state: Path, *options: str, environment: Mapping[str, str] | None = None, program: str = "iaas.cli"
) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", program, "serve", "--state", str(state)]
    if "--listen" not in options:
        words += ["--listen", "127.0.0.1:0"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("IAAS_")}
    return subprocess.Popen(
        [*words, *options],
        env={**clean, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def first_line(process: subprocess.Popen[str]) -> str:
    """Return the first line that the process prints, empty when it ends without one."""
    assert process.stdout is not None
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=lambda: lines.put(process.stdout.readline()), daemon=True).start()  # type: ignore[union-attr]  # looked at above
    try:
        return lines.get(timeout=START_TIMEOUT_S)
    except queue.Empty:
        process.kill()
        raise


@contextmanager
def running(
    state: Path, *options: str, environment: Mapping[str, str] | None = None, program: str = "iaas.cli"
) -> Iterator[Server]:
    """Give a server, and end it by force if the test has not."""
    server = Server(state, *options, environment=environment, program=program)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.client.close()
        server.reap()


def refused(state: Path, *options: str, environment: Mapping[str, str] | None = None) -> str:
    """Return the one line that a server that cannot start says; its exit status is no success."""
    process = spawn(state, *options, environment=environment)
    out, err = process.communicate(timeout=START_TIMEOUT_S)
    assert process.returncode not in (0, None)
    assert process.returncode > 0
    assert out == ""
    assert "Traceback" not in err
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    return lines[0]


def receive_all(connection: socket.socket) -> bytes:
    """Return all that comes until the other end closes."""
    received = b""
    while chunk := connection.recv(65_536):
        received += chunk
    return received
