"""``make torture``: a loaded server on the simulation is killed at random moments, again and again.

Clients keep a ledger of what the server acknowledged, and send again (with the same idempotency key) what it did
not answer. In the end the ledger is held against the API and the database against the simulated world: nothing
acknowledged is lost, nothing is done twice, nothing is left over.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iaas.cloud import Cloud
from iaas.config import CloudConfig
from iaas.db.store import Store
from iaas.drivers.sim.backend import build_sim_backend
from iaas.kernel.clock import CloudClock
from iaas.kernel.ids import IdSource
from tests.factories import assert_consistent

START_TIMEOUT_S = 60
SETTLE_TIMEOUT_S = 120
LIVE_S = (0.05, 1.5)  # how long a server lives, at random
ZONES = ("zone-1", "zone-2")


class Server:
    """``iaas serve`` on one folder and one port, started again after each kill."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def token(self) -> str:
        found: str = json.loads((self.folder / "credentials.json").read_text())["api_token"]
        return found

    def start(self) -> None:
        argv = [sys.executable, "-m", "iaas.cli", "serve", "--listen", f"127.0.0.1:{self.port}"]
        with (self.folder.parent / "server.log").open("a") as log:
            process = subprocess.Popen(
                [*argv, "--state", str(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._process = process
        assert process.stdout is not None
        timer = threading.Timer(START_TIMEOUT_S, process.kill)
        timer.start()
        line = process.stdout.readline()
        timer.cancel()
        assert line.startswith("ready "), f"the server did not start again: {line!r}"
        self.port = int(line.rpartition(":")[2])

    def end(self, how: signal.Signals) -> int:
        process = self._process
        if process is None:
            return 0
        process.send_signal(how)
        status = process.wait(30)
        assert process.stdout is not None
        process.stdout.close()
        self._process = None
        return status


@dataclass
class Ledger:
    """What one client was told: the status that each of its instances must have, and the jobs that were accepted."""

    expected: dict[str, str] = field(default_factory=dict)
    jobs: dict[str, tuple[str, str]] = field(default_factory=dict)  # job -> (instance, action)
    repeated: int = 0


class ClientThread(threading.Thread):
    """Creates, stops, starts and deletes instances of its own until it is told to stop."""

    def __init__(self, server: Server, token: str, name: str, seed: int, stop: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self._server = server
        self._token = token
        self._random = random.Random(seed)  # noqa: S311 - repeatable choices, no secrets
        self._told_to_stop = stop
        self._serial = 0
        self.ledger = Ledger()
        self.fault: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._told_to_stop.is_set():
                self._act()
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            self.fault = error

    def _act(self) -> None:
        ledger = self.ledger
        alive = [each for each, status in ledger.expected.items() if status != "deleted"]
        if len(alive) < 3 or self._random.random() < 0.4:
            body = {"kind": "container", "image": "tiny", "flavor": "nano", "name": f"{self.name}-{self._serial}"}
            self._accept("create", "POST", "/v1/instances", body, "running")
            return
        instance = self._random.choice(alive)
        if ledger.expected[instance] == "running" and self._random.random() < 0.6:
            self._accept("stop", "POST", f"/v1/instances/{instance}/actions/stop", {"force": True}, "stopped")
        elif ledger.expected[instance] == "stopped" and self._random.random() < 0.6:
            self._accept("start", "POST", f"/v1/instances/{instance}/actions/start", {}, "running")
        else:
            self._accept("delete", "DELETE", f"/v1/instances/{instance}", None, "deleted")

    def _accept(self, action: str, method: str, path: str, body: Any, status: str) -> None:
        self._serial += 1
        answer = self.ask(method, path, body, key=f"{self.name}-{self._serial}" if method == "POST" else None)
        if answer is None:
            return  # a delete whose answer was lost, and which has been done: see ask()
        instance, job = answer["instance"]["id"], answer["job"]["id"]
        self.ledger.expected[instance] = status
        self.ledger.jobs[job] = (instance, action)
        while self.ask("GET", f"/v1/jobs/{job}?wait=5")["status"] in ("queued", "running"):
            pass

    def ask(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> Any:
        """Return the document, asked for again until the server answers.

        A delete has no key: one that was done unheard is seen by the 404, or by its transition.
        """
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        if key is not None:
            headers["Idempotency-Key"] = key
        tries = 0
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=20)
            try:
                connection.request(method, path, None if body is None else json.dumps(body), headers)
                answer = connection.getresponse()
                document = json.loads(answer.read() or b"null")
            except (OSError, http.client.HTTPException):
                tries += 1
                time.sleep(0.02)  # a pause between two attempts to connect, not a wait for a state
                continue
            finally:
                connection.close()
            self.ledger.repeated += tries > 0
            if answer.status in (200, 202):
                return document
            if method == "DELETE" and tries and (answer.status == 404 or document.get("code") == "in_transition"):
                self.ledger.expected[path.rpartition("/")[2]] = "deleted"
                return None
            if document.get("code") in ("idempotency_in_progress", "backend_unavailable"):
                continue
            raise AssertionError(f"{method} {path} was answered {answer.status}: {document}")


def torture(folder: Path, *, kills: int, clients: int, seed: int) -> Counter[str]:
    """Run it; return what was counted.

    Raises:
        AssertionError: something was lost, doubled or left over.
    """
    choices = random.Random(seed)  # noqa: S311 - repeatable choices, no secrets
    server = Server(folder)
    server.start()
    stop = threading.Event()
    threads = [ClientThread(server, server.token, f"c{n}", seed * 1000 + n, stop) for n in range(clients)]
    for thread in threads:
        thread.start()
    try:
        for number in range(kills):
            time.sleep(choices.uniform(*LIVE_S))  # the random moment
            server.end(signal.SIGKILL)
            server.start()
            _raise_faults(threads)
            if number % 20 == 19:
                print(f"killed {number + 1} times", flush=True)
        stop.set()
        for thread in threads:
            thread.join(SETTLE_TIMEOUT_S)
            assert not thread.is_alive(), f"{thread.name} waits for ever"
        _raise_faults(threads)
        counted = _compare(threads)
    finally:
        stop.set()
        server.end(signal.SIGTERM)
    _check_world(folder)
    counted["kills"] = kills
    return counted


def _raise_faults(threads: list[ClientThread]) -> None:
    for thread in threads:
        if thread.fault is not None:
            raise thread.fault


def _compare(threads: list[ClientThread]) -> Counter[str]:
    """Hold the ledgers against the API."""
    ask = threads[0].ask
    expected = {each: status for thread in threads for each, status in thread.ledger.expected.items()}
    acknowledged = {job: what for thread in threads for job, what in thread.ledger.jobs.items()}
    give_up_at = time.monotonic() + SETTLE_TIMEOUT_S
    while any(job["status"] in ("queued", "running") for job in _all(ask, "/v1/jobs")):
        assert time.monotonic() < give_up_at, "jobs are left unfinished"
    shown = {each["id"]: each for each in _all(ask, "/v1/instances")}
    living = {each for each, status in expected.items() if status != "deleted"}
    assert shown.keys() == living, f"lost: {living - shown.keys()}, more than asked for: {shown.keys() - living}"
    for instance in living:
        row = shown[instance]
        assert (row["status"], row["transition"]) == (expected[instance], None), row
    names = Counter(each["name"] for each in shown.values())
    assert not names or max(names.values()) == 1
    jobs = {job["id"]: job for job in _all(ask, "/v1/jobs")}
    for job_id, (instance, action) in acknowledged.items():
        assert jobs[job_id]["status"] == "succeeded", jobs[job_id]
        assert jobs[job_id]["resources"] == [{"type": "instance", "id": instance}]
        assert jobs[job_id]["action"] == f"instance.{action}" or action == "delete"
    doubled = {
        job["id"]
        for job in jobs.values()
        if job["action"] in ("instance.create", "instance.stop", "instance.start") and job["id"] not in acknowledged
    }
    assert not doubled, f"done, and never acknowledged to anybody: {doubled}"
    return Counter(
        acknowledged=len(acknowledged),
        instances=len(expected),
        repeated=sum(thread.ledger.repeated for thread in threads),
    )


def _all(ask: Callable[[str, str], Any], path: str) -> list[Any]:
    items: list[Any] = []
    cursor = ""
    while True:
        found = ask("GET", f"{path}?limit=1000{cursor}")
        items += found["items"]
        if found["next_cursor"] is None:
            return items
        cursor = f"&cursor={found['next_cursor']}"


def _check_world(folder: Path) -> None:
    """Hold the database against the simulated world."""
    clock = CloudClock()
    url = f"sqlite:///{folder / 'cloud.db'}"
    cloud = Cloud(
        config=CloudConfig(state_dir=folder, database_url=url, zones=ZONES),
        backend=build_sim_backend(folder / "sim.db", clock, zones=ZONES),
        store=Store(url, clock),
        clock=clock,
        ids=IdSource(),
    )
    try:
        assert_consistent(cloud)
    finally:
        cloud.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(2)))
    told = parser.parse_args()
    print(f"torture: seed {told.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="iaas-torture-") as place:
        counted = torture(Path(place) / "state", kills=told.kills, clients=told.clients, seed=told.seed)
    print(json.dumps(counted))


if __name__ == "__main__":
    main()
