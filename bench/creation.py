"""Creating many simulated machines through the API, by several clients at once."""

from __future__ import annotations

import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench.start import TIMEOUT_S, running_server
from iaas.client import Client

MACHINES_A_ZONE = 100  # simulated hosts have an end too


@dataclass(frozen=True, slots=True, kw_only=True)
class Creations:
    count: int
    clients: int
    accept_p50_ms: float
    accept_p99_ms: float
    accepted_per_s: float
    jobs_per_s: float


def measure_creations(state: Path, *, count: int, clients: int) -> Creations:
    """Create ``count`` container machines, one POST each, and wait until all their jobs are done.

    The latencies of the simulation are part of the last job's end: a container machine takes 0.3 s.
    """
    zones = [f"zone-{number}" for number in range(1 + count // MACHINES_A_ZONE)]
    with running_server(state, "--zones", ",".join(zones)) as (process, _):
        line = process.stdout.readline() if process.stdout else ""
        if not line.startswith("ready "):
            raise RuntimeError("the server did not start")
        found = json.loads((state / "credentials.json").read_text())
        with Client(found["endpoint"], found["api_token"], timeout_s=TIMEOUT_S) as client:

            def create(number: int) -> tuple[float, str]:
                began = time.monotonic()
                action = client.instances.create(
                    kind="container", image="tiny", vcpus=1, memory_mib=128, zone=zones[number % len(zones)]
                )
                return (time.monotonic() - began) * 1000, action.job.id

            began = time.monotonic()
            with ThreadPoolExecutor(clients) as pool:
                accepted = list(pool.map(create, range(count)))
            accepted_s = time.monotonic() - began
            for _, job_id in accepted:
                client.jobs.get(job_id).wait(timeout_s=TIMEOUT_S)
            done_s = time.monotonic() - began
    times_ms = sorted(each for each, _ in accepted)
    return Creations(
        count=count,
        clients=clients,
        accept_p50_ms=statistics.median(times_ms),
        accept_p99_ms=times_ms[min(len(times_ms) - 1, round(len(times_ms) * 0.99))],
        accepted_per_s=count / accepted_s,
        jobs_per_s=count / done_s,
    )
