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

from bench.load import Load, Target
from bench.rows import LABEL, RARE, RARE_ROWS, fill
from bench.start import TIMEOUT_S, pss_mib

WISH: dict[str, Any] = {"kind": "container", "image": "tiny", "vcpus": 1, "memory_mib": 128}
BATCH = 100
POLL_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server of :mod:`bench.server`."""

    target: Target
    pid: int
    database: Path

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
    with tempfile.TemporaryDirectory(prefix="iaas-bench-") as folder:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        state = Path(folder) / "state"
        command = [sys.executable, "-m", "bench.server", str(state), str(port)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line.startswith("ready "):
                raise RuntimeError("the server did not start")
            token = json.loads((state / "credentials.json").read_text())["api_token"]
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            yield Server(target=Target(port=port, headers=headers), pid=process.pid, database=state / "cloud.db")
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


def batches(server: Server, *, count: int) -> dict[str, float]:
    """Create in batches of 100, one client."""
    body = json.dumps({"instances": [WISH] * BATCH})
    load = server.target.run([("POST", "/v1/instances:batch", body)] * (count // BATCH))
    server.wait_until_idle()
    return {"accepted_per_s": load.per_s * BATCH}


def reading(server: Server, *, count: int) -> dict[str, float]:
    """Get by id and list a page of 100, one client."""
    known = server.json("GET", "/v1/instances?limit=1")["items"][0]["id"]
    get = server.target.run([("GET", f"/v1/instances/{known}", None)] * count)
    page = server.target.run([("GET", "/v1/instances?limit=100", None)] * (count // 5))
    return {"get_p50_ms": get.percentile_ms(50), "get_per_s": get.per_s, "page_p50_ms": page.percentile_ms(50)}


def growth(server: Server, sizes: list[int], *, count: int) -> dict[str, dict[str, float]]:
    """Ask the same with more and more rows in the database (see :mod:`bench.rows`)."""
    template = server.json("POST", "/v1/instances", {**WISH, "name": "template"})["instance"]["id"]
    server.wait_until_idle()
    found: dict[str, dict[str, float]] = {}
    have = 0
    for size in sizes:
        fill(server.database, template, have=have, want=size)
        have = size
        first = server.json("GET", "/v1/instances?limit=100")
        rare = server.json("GET", f"/v1/instances?label_selector={LABEL}%3D{RARE}")["items"]
        assert len(rare) == min(RARE_ROWS, size)
        paths = {
            "get_p50_ms": "/v1/instances/i-00000001",
            "page_p50_ms": "/v1/instances?limit=100",
            "next_page_p50_ms": f"/v1/instances?limit=100&cursor={first['next_cursor'] or ''}".removesuffix("&cursor="),
            "rare_label_p50_ms": f"/v1/instances?limit=100&label_selector={LABEL}%3D{RARE}",
            "common_label_p50_ms": f"/v1/instances?limit=100&label_selector={LABEL}%3Dcommon",
        }
        row = {}
        for name, path in paths.items():
            row[name] = server.target.run([("GET", path, None)] * count).percentile_ms(50)
        memory = pss_mib(server.pid)
        found[str(size)] = {**row, "pss_mib": memory} if memory is not None else row
    return found
