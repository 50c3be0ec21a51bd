"""Holds what the API shows against the model: called after every step."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from tests.factories import assert_consistent
from tests.model.reference import GHOST_AGE, Machine, Reference
from tests.model.subject import Subject

# What an event says of its instance: status and transition from then on. None: the status is not told.
TOLD: dict[str, tuple[str | None, str | None]] = {
    "creating": ("pending", "creating"),
    "created": ("running", None),
    "started": ("running", None),
    "stopped": ("stopped", None),
    "restarted": ("running", None),
    "resized": ("stopped", None),
    "rebuilt": ("running", None),
    "deleted": ("deleted", None),
    "purged": ("deleted", None),
    "recovered": ("stopped", None),
    "create_cancelled": ("failed", None),
}
MOVING = {"starting", "stopping", "restarting", "resizing", "rebuilding", "deleting", "recovering"}
CANCELLED = {"start_cancelled", "stop_cancelled", "restart_cancelled", "resize_cancelled", "rebuild_cancelled"}
SILENT = {"updated", "guest_ready"}


class Told:
    """The events so far, and what they say."""

    def __init__(self) -> None:
        self._last = 0
        self.generations: dict[str, int] = {}
        self.statuses: dict[str, str | None] = {}
        self.transitions: dict[str, str | None] = {}

    def read(self, subject: Subject) -> None:
        while page := subject.member.get("/v1/events", after=str(self._last), limit=1000)["items"]:
            for event in page:
                assert int(event["id"]) > self._last, "events out of order"
                self._last = int(event["id"])
                if event["resource"]["type"] == "instance":
                    self._take(event)

    def _take(self, event: dict[str, Any]) -> None:
        name, word = event["resource"]["id"], event["type"].removeprefix("instance.")
        assert event["generation"] == self.generations.get(name, 0) + 1, f"a change without an event before {event}"
        self.generations[name] = event["generation"]
        if word in TOLD:
            self.statuses[name], self.transitions[name] = TOLD[word]
        elif word in MOVING:
            self.transitions[name] = word
        elif word in CANCELLED:
            self.statuses[name], self.transitions[name] = None, None
        else:
            assert word in SILENT, f"an event nobody foresaw: {event}"


def check_everything(subject: Subject, model: Reference, told: Told) -> None:
    """Hold instances, names, addresses, quotas, capacity, events and (at rest) the doctor against the model."""
    now = subject.cloud.clock.now()
    shown = _all(subject, limit=3)
    by_id = {document["id"]: document for document in shown}
    assert len(shown) == len(by_id), "an instance is listed twice"
    assert by_id.keys() == {machine.id for machine in model.visible()}
    told.read(subject)
    for machine in model.visible():
        _check_visible(machine, by_id[machine.id])
        assert told.generations[machine.id] == by_id[machine.id]["generation"]
    _check_deleted(subject, model, told, now)
    for machine in model.machines.values():
        assert told.transitions[machine.id] == machine.transition
        assert told.statuses[machine.id] in (machine.status, None), f"{machine} is told to be otherwise"
    _check_nics(shown, model)
    _check_amounts(subject, model)
    if not model.jobs():
        _check_at_rest(subject, model)


def _check_visible(machine: Machine, document: dict[str, Any]) -> None:
    expected = {
        "name": machine.name,
        "kind": machine.kind,
        "status": machine.status,
        "transition": machine.transition,
        "labels": machine.labels,
        "vcpus": machine.shape.vcpus,
        "memory_mib": machine.shape.memory_mib,
        "root_disk_gib": machine.shape.disk_gib,
        "flavor": machine.shape.flavor,
        "host_id": machine.host,
    }
    assert {name: document[name] for name in expected} == expected
    assert (document["failure"] or {}).get("code") == machine.failure
    if machine.status in ("stopped", "failed", "pending"):
        assert document["guest_ready_at"] is None


def _check_deleted(subject: Subject, model: Reference, told: Told, now: datetime) -> None:
    shown = {document["id"]: document for document in _all(subject, limit=100, deleted="true")}
    gone = {machine.id: machine for machine in model.machines.values() if not machine.is_visible}
    assert shown.keys() <= gone.keys()
    for machine in gone.values():
        document = shown.get(machine.id)
        if document is None:
            assert machine.purged_at is not None, f"{machine.id} is forgotten while it can come back"
            assert now - machine.purged_at >= GHOST_AGE, f"{machine.id} is forgotten too early"
            continue
        assert (document["status"], document["transition"]) == ("deleted", machine.transition)
        assert (document["purged_at"] is not None) == (machine.purged_at is not None)
        assert document["host_id"] == machine.host
        assert document["nics"] == []
        assert document["generation"] == told.generations[machine.id]


def _check_nics(shown: list[dict[str, Any]], model: Reference) -> None:
    nics: Counter[str] = Counter()
    for document in shown:
        expected = 1 if model.machines[document["id"]].holds_all else 0
        assert len(document["nics"]) == expected, f"{document['id']} has {document['nics']}"
        nics.update(value for nic in document["nics"] for value in (nic["address"], nic["mac"]))
    assert not nics or max(nics.values()) == 1, f"held by two: {nics}"


def _check_amounts(subject: Subject, model: Reference) -> None:
    quotas = {item["resource"]: item for item in subject.member.get("/v1/quotas")["items"]}
    used = model.used()
    assert {name: quotas[name]["used"] for name in used} == used
    for name, limit in model.limits.items():
        assert limit is None or quotas[name]["limit"] == limit
    for document in subject.admin.get("/v1/hosts")["items"]:
        host, on_host = model.hosts[document["id"]], model.used_on(document["id"])
        shown = {name: document[f"{name}_used"] for name in ("vcpus", "memory_mib", "disk_gib")}
        assert shown == {
            "vcpus": on_host["vcpus"],
            "memory_mib": on_host["memory_mib"],
            "disk_gib": on_host["root_disk_gib"],
        }
        assert all(0 <= shown[name] <= document[name] for name in shown), f"{document['name']} is beyond its measure"
        assert document["status"] == host.status


def _check_at_rest(subject: Subject, model: Reference) -> None:
    report = subject.admin.send("POST", "/v1/doctor/actions/check", status=200)
    assert report["findings"] == []
    if subject.cloud.executor.is_idle:
        assert_consistent(subject.cloud)
        for machine in model.visible():
            if machine.status == "running":
                assert subject.member.get(f"/v1/instances/{machine.id}")["guest_ready_at"] is not None


def _all(subject: Subject, *, limit: int, **query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    page = subject.member.get("/v1/instances", limit=limit, **query)
    while True:
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        page = subject.member.get("/v1/instances", limit=limit, cursor=page["next_cursor"], **query)


def parsed(text: str) -> datetime:
    return datetime.fromisoformat(text)


def lasts(document: dict[str, Any], retention: timedelta) -> bool:
    """Whether a deleted instance can be recovered for as long as the cloud says."""
    return parsed(document["purge_at"]) - parsed(document["deleted_at"]) == retention
