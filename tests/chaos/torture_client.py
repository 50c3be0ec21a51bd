"""The clients of a tortured server: they ask for all sorts of things and keep a ledger of what was acknowledged."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

PATIENCE_S = 300.0  # with a server that does not answer, and with a job that does not end
PAUSE_S = 0.02  # between two attempts to connect
UNFINISHED = ("queued", "running")
# What is done to an instance that rests in a status, and how often in comparison.
WEIGHTS: Mapping[str, Mapping[str, int]] = {
    "running": {"stop": 6, "restart": 3, "rebuild": 3, "retire": 5, "delete": 3},
    "stopped": {"start": 8, "resize": 5, "rebuild": 2, "retire": 4, "delete": 2},
    "deleted": {"recover": 5, "purge": 3},
}
TARGETS: Mapping[str, str] = {
    "create": "running",
    "stop": "stopped",
    "restart": "running",
    "rebuild": "running",
    "start": "running",
    "resize": "stopped",
    "recover": "stopped",
    "retire": "deleted",
    "delete": "purged",
    "purge": "purged",
}


@dataclass(frozen=True, kw_only=True)
class Appetite:
    """What one client asks for. ``alive``: living instances at most; ``at_once``: jobs that it leaves unwaited."""

    kinds: tuple[str, ...] = ("container", "vm")
    alive: int = 25
    at_once: int = 6
    batch: int = 4


@dataclass
class Owned:
    """One instance as it must be. ``asked``: how often each action was accepted, by the job's name for it."""

    status: str
    vcpus: int
    asked: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Keyed:
    """One POST that was acknowledged: sent again it must be given the same answer."""

    path: str
    body: Any
    digest: str


@dataclass
class Ledger:
    """What one client was told."""

    owned: dict[str, Owned] = field(default_factory=dict)
    jobs: dict[str, tuple[str, str]] = field(default_factory=dict)  # job -> (instance, action)
    keyed: dict[str, Keyed] = field(default_factory=dict)
    repeated: int = 0  # requests that had to be sent again
    unheard: int = 0  # deletes that were done though nobody was told


class Client(threading.Thread):
    """Acts on instances of its own until it is told to stop, and then waits until all of them rest.

    Args:
        port: asked before each request: a server that is started again may have another.
    """

    def __init__(self, port: Callable[[], int], token: str, name: str, seed: int, appetite: Appetite) -> None:
        super().__init__(name=name, daemon=True)
        self._port = port
        self._token = token
        self._random = random.Random(seed)  # noqa: S311 - repeatable choices, no secrets
        self._appetite = appetite
        self._serial = 0
        self._busy: dict[str, str | None] = {}  # instance -> its job; None for one that nobody was told of
        self.told_to_stop = threading.Event()
        self.ledger = Ledger()
        self.fault: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.told_to_stop.is_set():
                self._act()
            while self._busy:
                self._await(next(iter(self._busy)))
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            self.fault = error

    @property
    def all_jobs(self) -> Collection[str]:
        """The jobs that were acknowledged so far."""
        return self.ledger.jobs.keys()

    # -- what to do ---------------------------------------------------------------------------------------

    def _act(self) -> None:
        if len(self._busy) >= self._appetite.at_once:
            self._await(next(iter(self._busy)))  # the one that has been under way for longest
        owned = self.ledger.owned
        idle = [each for each in owned if each not in self._busy and owned[each].status != "purged"]
        alive = sum(each.status in ("running", "stopped") for each in owned.values())
        if alive < self._appetite.alive and (not idle or self._random.random() < 0.35):
            self._create(self._random.randint(1, self._appetite.batch) if self._random.random() < 0.3 else 0)
        elif idle:
            instance = self._random.choice(idle)
            weights = WEIGHTS[owned[instance].status]
            self._change(instance, self._random.choices(list(weights), list(weights.values()))[0])
        else:
            self._await(next(iter(self._busy)))

    def _create(self, batch: int) -> None:
        wishes = [self._wish(number) for number in range(max(1, batch))]
        if batch:
            answer = self._post("/v1/instances:batch", {"instances": wishes})
            accepted = list(zip(answer["instances"], answer["jobs"], strict=True))
        else:
            answer = self._post("/v1/instances", wishes[0])
            accepted = [(answer["instance"], answer["job"])]
        assert [instance["name"] for instance, _ in accepted] == [wish["name"] for wish in wishes]
        for instance, job in accepted:
            assert instance["id"] not in self.ledger.owned, "an answer for another request"
            self.ledger.owned[instance["id"]] = Owned("running", instance["vcpus"])
            self._accepted(instance["id"], "create", job["id"])

    def _wish(self, number: int) -> dict[str, Any]:
        kind = self._random.choice(self._appetite.kinds)
        return {"kind": kind, "image": "tiny", "flavor": "nano", "name": f"{self.name}-{self._serial}-{number}"}

    def _change(self, instance: str, action: str) -> None:
        owned = self.ledger.owned[instance]
        path = f"/v1/instances/{instance}"
        if action in ("retire", "delete", "purge"):
            if not self._send_delete(instance, path if action == "retire" else f"{path}?purge=true", action):
                return
        else:
            body: dict[str, Any] = {}
            if action in ("stop", "restart"):
                body = {"force": True}
            elif action == "resize":
                owned.vcpus = 3 - owned.vcpus if owned.vcpus in (1, 2) else 1
                body = {"vcpus": owned.vcpus, "memory_mib": 128}
            answer = self._post(f"{path}/actions/{action}", body)
            assert answer["instance"]["id"] == instance
            self._accepted(instance, action, answer["job"]["id"])
        owned.status = TARGETS[action]

    def _accepted(self, instance: str, action: str, job: str) -> None:
        assert job not in self.ledger.jobs, "one job for two requests"
        self.ledger.jobs[job] = (instance, action)
        self.ledger.owned[instance].asked[f"instance.{action}"] += 1
        self._busy[instance] = job

    def _await(self, instance: str) -> None:
        """Wait for the end of what is under way on the instance."""
        job = self._busy[instance]
        give_up_at = time.monotonic() + PATIENCE_S
        while True:
            assert time.monotonic() < give_up_at, f"{instance} does not come to rest: job {job}"
            if job is None:
                if self.ask("GET", f"/v1/instances/{instance}?deleted=true")["transition"] is None:
                    break
                continue
            shown = self.ask("GET", f"/v1/jobs/{job}?wait=5")
            if shown["status"] not in UNFINISHED:
                assert shown["status"] == "succeeded", shown
                break
        del self._busy[instance]

    # -- how to ask ---------------------------------------------------------------------------------------

    def _post(self, path: str, body: Any) -> Any:
        self._serial += 1
        key = f"{self.name}-{self._serial}"
        raw = self.send("POST", path, body, key=key)
        kept = Keyed(path, body, hashlib.sha256(raw).hexdigest())
        self.ledger.keyed[key] = kept
        if self._random.random() < 0.1:
            self.send_again(key)
        return json.loads(raw)

    def send_again(self, key: str) -> None:
        """Send an acknowledged POST once more: nothing happens, and the answer is the one that it had."""
        kept = self.ledger.keyed[key]
        raw = self.send("POST", kept.path, kept.body, key=key)
        assert hashlib.sha256(raw).hexdigest() == kept.digest, f"key {key} has another answer now: {raw[:500]!r}"

    def _send_delete(self, instance: str, path: str, action: str) -> bool:
        """Return True when it was acknowledged; else it was done unheard, and is noted here.

        A delete has no key. One that was done unheard is seen by the 404, or by its transition.
        """
        found = self._exchange("DELETE", path, None, None)
        if found.status == 202:
            self._accepted(instance, action, json.loads(found.raw)["job"]["id"])
            return True
        assert found.status == 404 or found.code == "in_transition", f"DELETE {path}: {found}"
        assert found.tries, f"DELETE {path}, sent once, was answered {found}"
        self.ledger.unheard += 1
        self.ledger.owned[instance].asked[f"instance.{action}"] += 1
        self.ledger.owned[instance].status = TARGETS[action]
        self._busy[instance] = None
        return False

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return the document, asked for again until the server answers."""
        return json.loads(self.send(method, path, body))

    def send(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> bytes:
        """Return the body of the answer, which must be a good one."""
        found = self._exchange(method, path, body, key)
        assert found.status in (200, 201, 202), f"{method} {path} was answered {found}"
        return found.raw

    def _exchange(self, method: str, path: str, body: Any, key: str | None) -> Exchanged:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        if key is not None:
            headers["Idempotency-Key"] = key
        content = None if body is None else json.dumps(body)
        tries = 0
        give_up_at = time.monotonic() + PATIENCE_S
        while True:
            assert time.monotonic() < give_up_at, f"{method} {path}: nobody has answered for {PATIENCE_S:g} s"
            connection = http.client.HTTPConnection("127.0.0.1", self._port(), timeout=60)
            try:
                connection.request(method, path, content, headers)
                answer = connection.getresponse()
                raw = answer.read()
            except (OSError, http.client.HTTPException):
                tries += 1
                threading.Event().wait(PAUSE_S)
                continue
            finally:
                connection.close()
            found = Exchanged(answer.status, raw, tries)
            if found.code in ("idempotency_in_progress", "backend_unavailable"):
                threading.Event().wait(PAUSE_S)
                continue
            self.ledger.repeated += tries > 0
            return found


@dataclass(frozen=True)
class Exchanged:
    """An answer, and how often the question got lost before."""

    status: int
    raw: bytes
    tries: int

    @property
    def code(self) -> str | None:
        """The code of a problem document."""
        if self.status < 400:
            return None
        found: str | None = json.loads(self.raw or b"{}").get("code")
        return found
