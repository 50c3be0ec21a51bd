"""Drives the instance API at random, and asks the model before each step what the answer must be."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from werkzeug.test import TestResponse

from tests.model import checks
from tests.model.reference import (
    ALLOWED,
    HOST_DOWN,
    INVALID_STATE,
    KEY_AGE,
    NEVER_CANCELLED,
    NOT_FOUND,
    Host,
    Job,
    Machine,
    Reference,
    Refusal,
    Refusals,
    Shape,
    Wish,
)
from tests.model.subject import RETENTION, Subject

NAMES = ("web", "db", "cache")
LABELS = ("red", "blue")
REUSED: Refusal = (422, "idempotency_key_reused")

picks = st.integers(0, 5)
names = st.one_of(st.none(), st.sampled_from(NAMES))
labels = st.sampled_from([(), *((("colour", value),) for value in LABELS)])
keys = st.one_of(st.none(), st.none(), st.none(), st.sampled_from(["key-1", "key-2"]))
shapes = st.one_of(
    st.sampled_from(["nano", "micro"]).map(Shape.of_flavor),
    st.builds(Shape, st.integers(1, 3), st.sampled_from([64, 256, 700]), st.integers(1, 5)),
)
kinds = st.sampled_from(["container", "vm"])
thens = st.sampled_from(["settle", "go on"])


def wishes_of(kinds: st.SearchStrategy[str]) -> st.SearchStrategy[Wish]:
    return st.builds(Wish, names, shapes, kinds, labels)


class InstanceRules(RuleBasedStateMachine):
    """The steps; subclasses say which cloud they are done to."""

    def make_subject(self) -> Subject:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.subject = self.make_subject()
        hosts = self.subject.admin.get("/v1/hosts")["items"]
        self.model = Reference(
            hosts={
                item["id"]: Host(
                    item["id"], item["name"], item["vcpus"], item["memory_mib"], item["disk_gib"], item["status"]
                )
                for item in hosts
            },
            retention=RETENTION,
        )
        self.told = checks.Told()
        self._quotas = f"/v1/projects/{self.subject.project}/quotas"

    def teardown(self) -> None:
        self.subject.close()

    # -- creating -----------------------------------------------------------------------------------------

    @initialize(wish=wishes_of(st.just("container")))
    def begin_with_one(self, wish: Wish) -> None:
        self._create([wish], None)
        self._settle()

    @rule(wish=wishes_of(kinds), key=keys)
    def create(self, wish: Wish, key: str | None) -> None:
        self._create([wish], key)

    @rule(wishes=st.lists(wishes_of(kinds), min_size=1, max_size=4), key=keys)
    def create_batch(self, wishes: list[Wish], key: str | None) -> None:
        self._create(wishes, key, is_batch=True)

    def _create(self, wishes: list[Wish], key: str | None, *, is_batch: bool = False) -> None:
        if not self.subject.is_simulated:
            wishes = [Wish(wish.name, Shape.of_flavor("nano"), labels=wish.labels) for wish in wishes]
        refusals, hosts = self.model.why_not_create(wishes)
        bodies = [_body(wish) for wish in wishes]

        def accept(document: dict[str, Any]) -> None:
            made = document["instances"] if is_batch else [document["instance"]]
            jobs = document["jobs"] if is_batch else [document["job"]]
            for wish, instance, job, host in zip(wishes, made, jobs, hosts, strict=True):
                self.model.created(wish, instance, job["id"], host)

        path, body = ("/v1/instances:batch", {"instances": bodies}) if is_batch else ("/v1/instances", bodies[0])
        self._send("POST", path, body, refusals, accept, key=key)

    # -- acting -------------------------------------------------------------------------------------------

    @rule(
        pick=picks,
        action=st.sampled_from(["start", "stop", "restart", "rebuild"]),
        force=st.booleans(),
        key=keys,
        then=thens,
    )
    def act(self, pick: int, action: str, force: bool, key: str | None, then: str) -> None:
        if machine := self._aim(pick, ALLOWED[action]):
            body = {"force": force} if action in ("stop", "restart") else {}
            self._act(machine, action, body, key)
            self._then(then)

    @rule(pick=picks, shape=shapes, key=keys, then=thens)
    def resize(self, pick: int, shape: Shape, key: str | None, then: str) -> None:
        if machine := self._aim(pick, ALLOWED["resize"]):
            whole = Shape(shape.vcpus, shape.memory_mib, machine.shape.disk_gib, shape.flavor)
            body: dict[str, Any] = {"vcpus": shape.vcpus, "memory_mib": shape.memory_mib}
            self._act(machine, "resize", {"flavor": shape.flavor} if shape.flavor else body, key, shape=whole)
            self._then(then)

    def _act(
        self, machine: Machine, action: str, body: dict[str, Any], key: str | None, shape: Shape | None = None
    ) -> None:
        refusals = self.model.why_not(machine, action, shape=shape)

        def accept(document: dict[str, Any]) -> None:
            machine.job = Job(document["job"]["id"], action, shape)

        self._send("POST", f"/v1/instances/{machine.id}/actions/{action}", body, refusals, accept, key=key)

    @rule(pick=picks, purge=st.sampled_from([False, False, True]), then=thens)
    def delete(self, pick: int, purge: bool, then: str) -> None:
        machine = self._aim(pick, ALLOWED["delete"])
        if machine is None or self._is_forgotten(machine):
            return
        is_purge = purge and not machine.is_visible
        refusals = self.model.why_not_purge(machine) if is_purge else self.model.why_not(machine, "delete")
        action = self.model.removal_of(machine, purge=purge)

        def accept(document: dict[str, Any]) -> None:
            machine.job = Job(document["job"]["id"], action)

        query = "?purge=true" if purge else ""
        self._send("DELETE", f"/v1/instances/{machine.id}{query}", None, refusals, accept)
        self._then(then)

    @rule(pick=picks, name=names, key=keys, then=thens)
    def recover(self, pick: int, name: str | None, key: str | None, then: str) -> None:
        machine = self._aim(pick, {"deleted"})
        if machine is None or self._is_forgotten(machine):
            return
        refusals = self.model.why_not_recover(machine, name, self.subject.cloud.clock.now())

        def accept(document: dict[str, Any]) -> None:
            machine.name = name or machine.name
            machine.job = Job(document["job"]["id"], "recover")

        body = {"name": name} if name else {}
        self._send("POST", f"/v1/instances/{machine.id}/actions/recover", body, refusals, accept, key=key)
        self._then(then)

    @rule(pick=picks, name=names, colour=st.sampled_from([*LABELS, None, "unchanged"]))
    def patch(self, pick: int, name: str | None, colour: str | None) -> None:
        machine = self._pick(pick)
        if machine is None:
            return
        body: dict[str, Any] = {"name": name} if name else {}
        if colour != "unchanged":
            body["labels"] = {"colour": colour}

        def accept(document: dict[str, Any]) -> None:
            machine.name = name or machine.name
            if colour != "unchanged":
                machine.labels = {} if colour is None else {"colour": colour}

        refusals = self.model.why_not_rename(machine, name)
        self._send("PATCH", f"/v1/instances/{machine.id}", body, refusals, accept, status=200)

    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        busy = [machine for machine, _ in self.model.jobs()]
        machine = self._pick(pick, busy)
        if machine is None or machine.job is None:
            return
        job = machine.job
        answer, told = self._call("POST", f"/v1/jobs/{job.id}/actions/cancel")
        if job.action in NEVER_CANCELLED:
            assert (answer.status_code, told["code"]) == (409, "not_cancellable")
        elif job.untouched or job.cancel_requested:
            assert answer.status_code == 202, answer.text
        else:  # it depends on the step that it has come to
            assert answer.status_code == 202 or told["code"] == "not_cancellable", answer.text
        if answer.status_code == 202:
            assert told["cancel_requested"]
            job.cancel_requested = True

    # -- looking ------------------------------------------------------------------------------------------

    @rule(
        status=st.sampled_from([None, "running", "stopped", "failed", "pending"]),
        kind=st.sampled_from([None, "vm", "container"]),
        name=names,
        selector=st.sampled_from([None, "colour", "!colour", "colour=red", "colour!=red", "colour in (red,blue)"]),
        sort=st.sampled_from(["name", "-name", "created_at", "-created_at", "status"]),
    )
    def look_for(self, status: str | None, kind: str | None, name: str | None, selector: str | None, sort: str) -> None:
        query = {"status": status, "kind": kind, "name": name, "label_selector": selector}
        found = self.subject.member.get(
            "/v1/instances", sort=sort, limit=1000, **{key: value for key, value in query.items() if value is not None}
        )["items"]
        expected = {
            machine.id
            for machine in self.model.visible()
            if status in (None, machine.status)
            and kind in (None, machine.kind)
            and name in (None, machine.name)
            and (selector is None or _fits(machine.labels.get("colour"), selector))
        }
        assert {item["id"] for item in found} == expected
        values = [item[sort.lstrip("-")] for item in found]
        assert values == sorted(values, reverse=sort.startswith("-"))

    @rule(pick=picks)
    def run_a_command(self, pick: int) -> None:
        machine = self._pick(pick)
        if machine is None:
            return
        path = f"/v1/instances/{machine.id}/actions/exec"
        answer, told = self._call("POST", path, json={"command": ["echo", machine.id]})
        got = (answer.status_code, told.get("code"))
        if not machine.is_visible:
            assert got == NOT_FOUND
        elif machine.status != "running":
            assert got == INVALID_STATE
        elif self._is_down(machine):
            assert got == HOST_DOWN
        elif got != (409, "guest_unavailable"):
            assert answer.status_code == 200, answer.text
            assert told["stdout"].strip() == machine.id
        else:
            assert machine.job is not None or not self._is_ready(machine)

    @rule(pick=picks)
    def look_as_a_stranger(self, pick: int) -> None:
        machine = self._pick(pick)
        assert self.subject.stranger.get("/v1/instances")["items"] == []
        if machine is not None:
            path = f"/v1/instances/{machine.id}"
            self.subject.stranger.refused("GET", path, status=404, code="not_found")
            self.subject.stranger.refused("DELETE", path, status=404, code="not_found")
            self.subject.stranger.refused("GET", f"{path}?deleted=true", status=404, code="not_found")

    # -- the operator -------------------------------------------------------------------------------------

    @rule(name=st.sampled_from(["instances", "vcpus", "memory_mib", "root_disk_gib"]), room=st.integers(-1, 3))
    def set_quota(self, name: str, room: int) -> None:
        """As much as is in use, or a little less or more."""
        limit = max(0, self.model.used()[name] + room * (128 if name == "memory_mib" else 1))
        self.subject.admin.send("PATCH", self._quotas, {name: limit}, status=200)
        self.model.limits[name] = limit

    @rule()
    def lift_quotas(self) -> None:
        self.subject.admin.send("PATCH", self._quotas, dict.fromkeys(self.model.limits), status=200)
        self.model.limits.clear()

    @rule(pick=picks, status=st.sampled_from(["up", "up", "up", "draining", "down"]))
    def set_host(self, pick: int, status: str) -> None:
        hosts = sorted(self.model.hosts.values(), key=lambda host: host.name)
        host = hosts[pick % len(hosts)]
        self.subject.admin.send("PATCH", f"/v1/hosts/{host.id}", {"status": status}, status=200)
        host.status = status

    # -- time ---------------------------------------------------------------------------------------------

    @rule()
    def let_all_settle(self) -> None:
        self._settle()

    @precondition(lambda self: self.subject.is_simulated)
    @rule(seconds=st.sampled_from([0.0, 0.05, 0.3, 1.0, 5.0, 70.0, 601.0, 3700.0, 90_000.0]))
    def advance(self, seconds: float) -> None:
        self.subject.advance(seconds)
        self._absorb()

    @precondition(lambda self: self.subject.is_simulated)
    @rule(pick=picks)
    def power_off_inside(self, pick: int) -> None:
        """The guest goes down by itself: the instance follows."""
        machine = self._pick(pick, [each for each in self.model.visible() if each.status == "running"])
        if machine is None or machine.job is not None or self._is_down(machine) or not self._is_ready(machine):
            return
        path = f"/v1/instances/{machine.id}/actions/exec"
        self.subject.member.send("POST", path, {"command": ["poweroff"]}, status=200)
        self.subject.advance(10.0)
        machine.status = "stopped"
        self._absorb()

    @rule()
    def restart_the_server(self) -> None:
        self.subject.restart()
        self._absorb()

    # -- always -------------------------------------------------------------------------------------------

    @invariant()
    def all_is_as_the_model_says(self) -> None:
        checks.check_everything(self.subject, self.model, self.told)

    # -- how ----------------------------------------------------------------------------------------------

    def _pick(self, pick: int, among: list[Machine] | None = None) -> Machine | None:
        """Return one of the newest six."""
        chosen = list(self.model.machines.values() if among is None else among)[-6:]
        return chosen[pick % len(chosen)] if chosen else None

    def _aim(self, pick: int, statuses: set[str]) -> Machine | None:
        """As :meth:`_pick`; mostly one that rests in one of these statuses, if there is any."""
        fitting = [each for each in self.model.machines.values() if each.status in statuses and each.job is None]
        return self._pick(pick, fitting if pick < 4 and fitting else None)

    def _then(self, then: str) -> None:
        """Some walks let each job end, others come in between."""
        if then == "settle":
            self._settle()

    def _send(
        self,
        method: str,
        path: str,
        body: Any,
        refusals: Refusals,
        accept: Callable[[dict[str, Any]], None],
        *,
        key: str | None = None,
        status: int = 202,
    ) -> None:
        """Send it, and hold the answer against what the model says; ``accept`` is told of an accepted one."""
        request = {} if body is None else {"json": body}
        if key is not None:
            request["headers"] = {"Idempotency-Key": key}
        answer, told = self._call(method, path, **request)
        got = (answer.status_code, told.get("code"))
        meaning = json.dumps([path, body])
        kept = self._kept(key)
        if kept is not None:
            if kept[0] != meaning:
                assert got == REUSED
            else:
                assert answer.headers["Idempotency-Replayed"] == "true"
                assert (answer.status_code, told) == (status, kept[1])
            return
        expected: set[tuple[int, str | None]] = {*refusals} or {(status, None)}
        assert got in expected, f"{method} {path} {body}: expected {expected}, got {answer.text}"
        if not refusals:
            accept(told)
            if key is not None:
                self.model.keys[key] = (meaning, told, self.subject.cloud.clock.now())
            if not self.subject.is_simulated:
                self._settle()  # its jobs run all the time: nothing can be said of them before their end

    def _call(self, method: str, path: str, **request: Any) -> tuple[TestResponse, dict[str, Any]]:
        answer = self.subject.member.call(method, path, **request)
        assert isinstance(answer.json, dict)
        return answer, answer.json

    def _kept(self, key: str | None) -> tuple[str, Any] | None:
        if key is None or key not in self.model.keys:
            return None
        meaning, answer, at = self.model.keys[key]
        return (meaning, answer) if self.subject.cloud.clock.now() - at < KEY_AGE else None

    def _settle(self) -> None:
        self.subject.settle()
        self._absorb()
        assert not [job for _, job in self.model.jobs() if job.action != "purge"], "a job does not end"

    def _absorb(self) -> None:
        """Look which jobs have ended, and what the cloud has begun by itself: purges of what is over its time."""
        now = self.subject.cloud.clock.now()
        for machine, job in self.model.jobs():
            job.untouched = False
            found = self.subject.member.get(f"/v1/jobs/{job.id}")
            if found["finished_at"] is not None:
                self.model.ended(machine, found["status"], now)
                self._look_closer(machine)
        for machine in self.model.machines.values():
            if machine.purge_at is not None and machine.job is None and machine.purge_at <= now:
                self._follow_purge(machine)

    def _look_closer(self, machine: Machine) -> None:
        """Take over what the model leaves open, within its bounds."""
        if machine.purge_at is not None:
            document = self.subject.member.get(f"/v1/instances/{machine.id}", deleted="true")
            assert checks.lasts(document, self.model.retention)
            machine.purge_at = checks.parsed(document["purge_at"])
        if machine.may_rest_in:
            status = self.subject.member.get(f"/v1/instances/{machine.id}")["status"]
            assert status in machine.may_rest_in
            machine.status = status

    def _follow_purge(self, machine: Machine) -> None:
        now = self.subject.cloud.clock.now()
        answer, document = self._call("GET", f"/v1/instances/{machine.id}?deleted=true")
        if answer.status_code == 404 or document["purged_at"] is not None:
            machine.job = Job("", "purge")
            self.model.ended(machine, "succeeded", now)
            if answer.status_code == 200:
                machine.purged_at = checks.parsed(document["purged_at"])
        elif document["transition"] is not None:
            jobs = self.subject.member.get("/v1/jobs", resource_id=machine.id, action="instance.purge")["items"]
            machine.job = Job(jobs[0]["id"], "purge")

    def _is_forgotten(self, machine: Machine) -> bool:
        """Ghosts go by and by: what is said of them is either, so nothing is asked."""
        if machine.purged_at is None:
            return False
        return self.subject.member.call("GET", f"/v1/instances/{machine.id}?deleted=true").status_code == 404

    def _is_down(self, machine: Machine) -> bool:
        return machine.host is not None and self.model.hosts[machine.host].status == "down"

    def _is_ready(self, machine: Machine) -> bool:
        return self.subject.member.get(f"/v1/instances/{machine.id}")["guest_ready_at"] is not None


def _body(wish: Wish) -> dict[str, Any]:
    shape = wish.shape
    sized = {"vcpus": shape.vcpus, "memory_mib": shape.memory_mib, "root_disk_gib": shape.disk_gib}
    body = {
        "kind": wish.kind,
        "image": "tiny",
        **({"flavor": shape.flavor} if shape.flavor else sized),
        **({"name": wish.name} if wish.name else {}),
    }
    return {**body, "labels": dict(wish.labels)} if wish.labels else body


def _fits(colour: str | None, selector: str) -> bool:
    return {
        "colour": colour is not None,
        "!colour": colour is None,
        "colour=red": colour == "red",
        "colour!=red": colour != "red",
        "colour in (red,blue)": colour in ("red", "blue"),
    }[selector]
