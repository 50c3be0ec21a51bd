"""A fleet of processes for tests: servers and workers on one PostgreSQL, each of which may be killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from tests.api.server_process import START_TIMEOUT_S, Server

LEASE_S = 1.0


class Worker:
    """One ``iaas worker``; ready when this returns. Its log is in a file of its own."""

    def __init__(self, folder: Path, name: str, url: str, options: Sequence[str] = ()) -> None:
        self.log = folder / f"{name}.log"
        command = [sys.executable, "-m", "iaas.cli", "worker", "--state", str(folder / "state"), "--database", url]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*command, "--lease", str(LEASE_S), "--log-level", "info", "--log-json", *options],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=folder,
            )
        timer = threading.Timer(START_TIMEOUT_S, self.process.kill)
        timer.start()
        try:
            assert self.process.stdout is not None
            assert self.process.stdout.readline() == "ready\n", self.log.read_text()
        finally:
            timer.cancel()

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def told(self, event: str) -> list[dict[str, Any]]:
        """Return what the worker has logged as ``event``."""
        found = []
        for line in self.log.read_text().splitlines():
            if line.startswith("{") and line.endswith("}"):  # the last one may be half written
                entry = json.loads(line)
                if entry.get("event") == event:
                    found.append(entry)
        return found

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.reap()

    def reap(self) -> int:
        status = self.process.wait(30)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return status


class Fleet:
    """Servers and, when asked for, workers; what a test kills the next one finds replaced."""

    def __init__(self, folder: Path, url: str, *, servers: int = 2) -> None:
        self._count = servers
        self.folder = folder
        self.url = url
        self.servers: list[Server] = []
        self.workers: list[Worker] = []  # all that ever were
        self._engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")

    def need_servers(self) -> list[Server]:
        """Return the servers, all of which run."""
        for index in range(self._count):
            if index == len(self.servers):
                self.servers.append(self._server())
            elif self.servers[index].process.poll() is not None:
                self.servers[index] = self._server()
        return self.servers

    def need_workers(self, count: int) -> list[Worker]:
        """Return exactly so many workers that run, started side by side; others are stopped."""
        alive = [worker for worker in self.workers if worker.is_alive]
        for surplus in alive[count:]:
            surplus.signal(signal.SIGTERM)
            surplus.reap()
        fresh: list[Worker] = []

        def start(name: str) -> None:
            fresh.append(Worker(self.folder, name, self.url))

        missing = [f"worker-{len(self.workers) + number}" for number in range(count - len(alive[:count]))]
        starting = [threading.Thread(target=start, args=(name,)) for name in missing]
        for thread in starting:
            thread.start()
        for thread in starting:
            thread.join()
        self.workers += fresh
        assert len(fresh) == len(missing)
        return alive[:count] + fresh

    def close(self) -> None:
        for worker in self.workers:
            if worker.is_alive:
                worker.kill()
        for server in self.servers:
            if server.process.poll() is None:
                server.stop()

    def query(self, statement: str, **values: Any) -> list[Any]:
        """Ask the database behind everybody's back."""
        with self._engine.connect() as connection:
            result = connection.execute(text(statement), values)
            return list(result) if result.returns_rows else []

    def _server(self) -> Server:
        return Server(self.folder / "state", "--database", self.url, "--workers", "external")


def create(server: Server, name: str, *, kind: str = "container", key: str | None = None) -> dict[str, Any]:
    """Ask for an instance and return the answer, with ``instance`` and ``job``."""
    body = {"kind": kind, "image": "tiny", "flavor": "nano", "name": name}
    headers = {} if key is None else {"Idempotency-Key": key}
    answer = server.client.post("/v1/instances", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    document: dict[str, Any] = answer.json()
    return document


def all_events(server: Server, *, after: str = "0") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: str | None = after
    while cursor is not None:
        page = server.get("/v1/events", after=cursor, limit=200)
        found += page["items"]
        cursor = page["next_cursor"]
    return found


def streamed_events(server: Server, *, after: str, at_most: int, until: str) -> Iterator[dict[str, Any]]:
    """Yield events as the server streams them: ``at_most``, or until one of the type ``until`` has come."""
    headers = {"Accept": "text/event-stream", "Last-Event-ID": after}
    with server.client.stream("GET", "/v1/events", headers=headers, timeout=httpx.Timeout(60)) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            if line.startswith("data:"):
                event = json.loads(line.removeprefix("data:"))
                yield event
                at_most -= 1
                if at_most == 0 or event["type"] == until:
                    return
