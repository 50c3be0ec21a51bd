"""Creates and deletes without end: what may not grow with the number of machines that there once were.

Of each instance that is gone some facts stay for a while (its row as a ghost, its jobs, its events), each kind
with an upper limit; so sizes rise until those are reached, and must stay there. Creates are sent in batches, to
be through within an hour; deletes one by one.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.native import BATCH, WISH, Server
from bench.start import pss_mib

ROUND = 1000
TABLES = ("instances", "jobs", "events", "nics", "labels", "allocations", "idempotency")
Sample = dict[str, float]


def churn(
    server: Server, *, count: int, clients: int, samples: int, report: Callable[[Sample], None] = lambda sample: None
) -> list[Sample]:
    """Create and delete ``count`` instances in rounds of a thousand; return ``samples`` looks at the server."""
    found: list[Sample] = []
    rounds = max(1, count // ROUND)
    every = max(1, rounds // samples)
    body = json.dumps({"instances": [WISH] * BATCH})
    for number in range(1, rounds + 1):
        server.target.run([("POST", "/v1/instances:batch", body)] * (ROUND // BATCH))
        server.wait_until_idle()
        ids = [each["id"] for each in server.json("GET", f"/v1/instances?limit={ROUND}")["items"]]
        server.target.run([("DELETE", f"/v1/instances/{each}?purge=true", None) for each in ids], clients=clients)
        server.wait_until_idle()
        if number % every == 0:
            found.append(_look(server, number * ROUND))
            report(found[-1])
    assert server.json("GET", "/v1/instances?limit=1")["items"] == []
    return found


def growth(samples: list[Sample]) -> dict[str, float]:
    """Return how many times larger each size is at the end than half-way, when every limit had been reached."""
    half, end = samples[len(samples) // 2 - 1], samples[-1]
    return {name: end[name] / half[name] for name in ("pss_mib", "files_mib", "fds") if half.get(name)}


def _look(server: Server, count: int) -> Sample:
    state = server.state
    files = sum(each.stat().st_size for each in state.rglob("*") if each.is_file())
    sample: Sample = {"deleted": count, "files_mib": files / 2**20, "fds": _file_descriptors(server.pid)}
    memory = pss_mib(server.pid)
    if memory is not None:
        sample["pss_mib"] = memory
    return {**sample, **_rows(server.state / "cloud.db")}


def _file_descriptors(pid: int) -> int:
    folder = Path(f"/proc/{pid}/fd")
    return len(os.listdir(folder)) if folder.is_dir() else 0


def _rows(database: Path) -> dict[str, Any]:
    """Return how many rows each table has, where it is there."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60)
    try:
        known = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        tables = [name for name in TABLES if name in known]
        return {
            f"rows_{name}": connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]  # noqa: S608 - our names
            for name in tables
        }
    finally:
        connection.close()
