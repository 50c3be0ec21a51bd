"""Sends requests from a process of its own and measures how long each took.

    python -m bench.load < PLAN > RESULT

The plan is a JSON object: ``host``, ``port``, ``headers``, ``clients`` (threads, a kept connection each) and
``requests``: a list of ``[method, path, body or null]``, taken in turn. The result: ``elapsed_s``, ``ms`` (one
for each request, in the order of the plan), ``failed`` (how many were not answered by 2xx) and ``first_bad``.
"""

from __future__ import annotations

import http.client
import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

TIMEOUT_S = 120.0
Request = tuple[str, str, str | None]
"""Method, path, body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one run of requests took; ``ms`` is sorted."""

    count: int
    elapsed_s: float
    ms: list[float]

    @property
    def per_s(self) -> float:
        return self.count / self.elapsed_s

    def percentile_ms(self, percent: float) -> float:
        return self.ms[min(len(self.ms) - 1, round(len(self.ms) * percent / 100))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where requests go."""

    port: int
    headers: dict[str, str]
    host: str = "127.0.0.1"

    def run(self, requests: Sequence[Request], *, clients: int = 1) -> Load:
        """Send all requests, ``clients`` at a time, from another process.

        Raises:
            RuntimeError: one of them was not answered by 2xx.
        """
        plan = {"host": self.host, "port": self.port, "headers": self.headers, "clients": clients}
        done = subprocess.run(
            [sys.executable, "-m", "bench.load"],
            input=json.dumps({**plan, "requests": requests}),
            capture_output=True,
            text=True,
            timeout=1800,
            check=True,
        )
        found = json.loads(done.stdout)
        if found["failed"]:
            raise RuntimeError(f"{found['failed']} of {len(requests)} requests failed: {found['first_bad']}")
        return Load(count=len(requests), elapsed_s=found["elapsed_s"], ms=sorted(found["ms"]))

    def ask(self, method: str, path: str, body: str | None = None) -> bytes:
        """Send one request from this process and return the body of its answer."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_S)
        try:
            connection.request(method, path, body, self.headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:300]!r}")
        return content


def main() -> None:
    plan = json.load(sys.stdin)
    requests = plan["requests"]
    times_ms = [0.0] * len(requests)
    bad: list[str] = []
    turn = itertools.count()
    ready = threading.Barrier(plan["clients"] + 1)

    def work() -> None:
        connection = http.client.HTTPConnection(plan["host"], plan["port"], timeout=TIMEOUT_S)
        connection.connect()
        ready.wait()
        while (number := next(turn)) < len(requests):
            method, path, body = requests[number]
            began = time.perf_counter()
            connection.request(method, path, body, plan["headers"])
            answer = connection.getresponse()
            content = answer.read()
            times_ms[number] = (time.perf_counter() - began) * 1000
            if not 200 <= answer.status < 300:
                bad.append(f"{method} {path}: {answer.status} {content[:300]!r}")
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(plan["clients"])]
    for thread in threads:
        thread.start()
    ready.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    result: dict[str, Any] = {"elapsed_s": time.perf_counter() - began, "ms": times_ms}
    json.dump({**result, "failed": len(bad), "first_bad": bad[0] if bad else None}, sys.stdout)


if __name__ == "__main__":
    main()
