"""A server as users start it: a process of its own, on either backend, cleaned up without a trace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iaas.client import Client

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 60


@dataclass
class CloudServer:
    """``iaas serve`` with a state folder that outlives restarts."""

    backend: str
    state_dir: Path
    tag: str
    image_cache: Path | None = None
    extra: list[str] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    def start(self) -> str:
        """Start and return the URL once the server says that it is ready."""
        log = self.state_dir.parent / f"{self.state_dir.name}.log"
        argv = [sys.executable, "-m", "iaas.cli", "serve", "--backend", self.backend, "--listen", "127.0.0.1:0"]
        argv += ["--state", str(self.state_dir), "--log-level", "info", *self.extra]
        if self.backend == "real":
            argv += ["--tag", self.tag, "--virt-type", "qemu"]
        with log.open("a") as errors:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("ready http://"), f"the server said {line!r}; its log: {log.read_text()[-4000:]}"
        return line.split()[1]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        status = self.process.wait(STOP_TIMEOUT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return status

    def close(self) -> None:
        if self.process is not None:
            self.stop()
        (self.state_dir.parent / f"{self.state_dir.name}.log").unlink(missing_ok=True)

    @property
    def credentials_file(self) -> Path:
        return self.state_dir / "credentials.json"

    @property
    def credentials(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.credentials_file.read_text())
        return found

    def client(self) -> Client:
        return Client(credentials_file=self.credentials_file)

    def cli(self, *arguments: str, timeout_s: float = 120, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the command line as a user would, with this server's credentials file in the environment."""
        done = subprocess.run(
            [sys.executable, "-m", "iaas.cli", *arguments],
            env=self._user_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"iaas {' '.join(arguments)}: {done.stderr}"
        return done

    def start_cli(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command that goes on until it is ended; the caller does so. Both its streams are in ``stdout``."""
        return subprocess.Popen(
            [sys.executable, "-m", "iaas.cli", *arguments],
            env=self._user_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _user_environment(self) -> dict[str, str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("IAAS_")}
        return {**environment, "IAAS_CREDENTIALS": str(self.credentials_file)}

    def curl(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Ask the API by curl and return its JSON."""
        credentials = self.credentials
        argv = ["curl", "-sS", "-m", "60", "-X", method, "-H", f"Authorization: Bearer {credentials['api_token']}"]
        if body is not None:
            argv += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        done = subprocess.run(
            [*argv, credentials["endpoint"] + path], capture_output=True, text=True, timeout=90, check=True
        )
        return json.loads(done.stdout) if done.stdout else None

    def page_of(self, instance: str, port: int = 80) -> str:
        """Return the instance's HTTP page, fetched by curl through the server's proxy; "" when nothing answers."""
        proxy = self.curl("GET", "/v1/capabilities")["proxy_url"].removeprefix("http://")
        argv = ["curl", "-sS", "-m", "10", "-p", "-x", f"http://iaas:{self.credentials['api_token']}@{proxy}"]
        done = subprocess.run(
            [*argv, f"http://{instance}:{port}/"], capture_output=True, text=True, timeout=30, check=False
        )
        return done.stdout if done.returncode == 0 else ""


def wait_for(condition: Any, timeout_s: float, what: str) -> Any:
    """Return the first true value of ``condition()``; fails after ``timeout_s``."""
    give_up_at = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < give_up_at, f"waited {timeout_s} s for {what}"
        time.sleep(0.2)
