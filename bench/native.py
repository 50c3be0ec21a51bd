"""What our own server does in a second, asked over HTTP from another process."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.load import Load, Request, Target
from bench.start import TIMEOUT_S

WISH: dict[str, Any] = {"kind": "container", "image": "tiny", "vcpus": 1, "memory_mib": 128}
BATCH = 100
LARGEST_BATCH = 1000
POLL_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server of :mod:`bench.server`."""

    target: Target
    pid: int
    state: Path

    def json(self, method: str, path: str, body: Any = None) -> Any:
        return json.loads(self.target.ask(method, path, None if body is None else json.dumps(body)))

    def create(self, count: int, *, clients: int) -> Load:
        return self.target.run([("POST", "/v1/instances", json.dumps(WISH))] * count, clients=clients)

    def wait_until_idle(self) -> None:
        """Return once no job is left to do."""
        give_up_at = time.monotonic() + 600
        while any(self.json("GET", f"/v1/jobs?limit=1&status={status}")["items"] for status in ("queued", "running")):
            if time.monotonic() > give_up_at:
                raise TimeoutError("the server did not finish its jobs")
            time.sleep(POLL_S)

    def last_event(self) -> int:
        """Return the id of the newest event."""
        after = 0
        while items := self.json("GET", f"/v1/events?limit=1000&after={after}")["items"]:
            after = int(items[-1]["id"])
        return after


@contextlib.contextmanager
def instant_server() -> Iterator[Server]:
    """Give a server without simulated latency on a fresh state folder."""
    with tempfile.TemporaryDirectory(prefix="iaas-bench-") as folder, server_on(Path(folder) / "state") as server:
        yield server


@contextlib.contextmanager
def server_on(state: Path, *options: str) -> Iterator[Server]:
    """Give a server without simulated latency on that state folder."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "bench.server", str(state), str(port), *options]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line.startswith("ready "):
            raise RuntimeError("the server did not start")
        token = json.loads((state / "credentials.json").read_text())["api_token"]
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        yield Server(target=Target(port=port, headers=headers), pid=process.pid, state=state)
    finally:
        process.terminate()
        process.communicate(timeout=TIMEOUT_S)


def creations(server: Server, *, count: int, clients: int) -> dict[str, float]:
    """Create one instance a request; ``running`` figures are of the server's own events."""
    server.create(50, clients=clients)  # the first ones compile, import and fill caches
    server.wait_until_idle()
    after = server.last_event()
    load = server.create(count, clients=clients)
    server.wait_until_idle()
    began: dict[str, datetime] = {}
    done: dict[str, datetime] = {}
    while items := server.json("GET", f"/v1/events?limit=1000&after={after}")["items"]:
        for each in items:
            kept = {"instance.creating": began, "instance.created": done}.get(each["type"])
            if kept is not None:
                kept[each["resource"]["id"]] = datetime.fromisoformat(each["created_at"])
        after = int(items[-1]["id"])
    to_running_ms = sorted((done[each] - began[each]).total_seconds() * 1000 for each in done)
    span_s = (max(done.values()) - min(began.values())).total_seconds()
    return {
        "accepted_per_s": load.per_s,
        "accept_p50_ms": load.percentile_ms(50),
        "accept_p99_ms": load.percentile_ms(99),
        "running_per_s": count / span_s,
        "running_p50_ms": to_running_ms[len(to_running_ms) // 2],
        "running_p99_ms": to_running_ms[round(len(to_running_ms) * 0.99) - 1],
    }


def batches(server: Server, *, count: int, size: int = BATCH) -> dict[str, float]:
    """Create in batches back to back, one client."""
    body = json.dumps({"instances": [WISH] * size})
    load = server.target.run([("POST", "/v1/instances:batch", body)] * (count // size))
    server.wait_until_idle()
    return {"accepted_per_s": load.per_s * size}


def reading(server: Server, *, count: int) -> dict[str, float]:
    """Get by id and list a page of 100, one client."""
    known = server.json("GET", "/v1/instances?limit=1")["items"][0]["id"]
    get = server.target.run([("GET", f"/v1/instances/{known}", None)] * count)
    page = server.target.run([("GET", "/v1/instances?limit=100", None)] * (count // 5))
    return {"get_p50_ms": get.percentile_ms(50), "get_per_s": get.per_s, "page_p50_ms": page.percentile_ms(50)}


class NativeCalls:
    """The questions of :mod:`bench.compare` in our own words."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def create(self, count: int = 1, label: tuple[str, str] | None = None) -> Request:
        """Return the request that makes instances."""
        wish = WISH if label is None else {**WISH, "labels": dict([label])}
        if count == 1:
            return "POST", "/v1/instances", json.dumps(wish)
        return "POST", "/v1/instances:batch", json.dumps({"instances": [wish] * count})

    def show(self, instance_id: str) -> Request:
        return "GET", f"/v1/instances/{instance_id}", None

    def page(self) -> Request:
        return "GET", "/v1/instances?limit=100", None

    def labelled(self, key: str, value: str) -> Request:
        return "GET", f"/v1/instances?limit=100&label_selector={key}%3D{value}", None

    def ids(self, answer: bytes) -> list[str]:
        """Return the instances of an answer."""
        found = json.loads(answer)
        some = [found["instance"]] if "instance" in found else found.get("items") or found.get("instances") or [found]
        return [str(each["id"]) for each in some]

    def settle(self) -> None:
        """Return once all that was asked for is done."""
        self._server.wait_until_idle()
