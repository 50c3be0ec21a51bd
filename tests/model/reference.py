"""What an instance of a cloud may do, in plain dictionaries and sums: written from the documents, not from the code.

The model predicts every answer and every state. What it cannot know is when a job ends; so it is told of each job's
end, and says what must be true from then on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

# docs/transitions.md
ALLOWED = {
    "start": {"stopped"},
    "stop": {"running"},
    "restart": {"running"},
    "resize": {"stopped"},
    "rebuild": {"running", "stopped"},
    "delete": {"running", "stopped", "failed"},
}
TRANSITIONS = {
    "create": "creating",
    "start": "starting",
    "stop": "stopping",
    "restart": "restarting",
    "resize": "resizing",
    "rebuild": "rebuilding",
    "delete": "deleting",
    "retire": "deleting",
    "purge": "deleting",
    "recover": "recovering",
}
ENDS = {
    "create": "running",
    "start": "running",
    "stop": "stopped",
    "restart": "running",
    "resize": "stopped",
    "rebuild": "running",
    "delete": "deleted",
    "retire": "deleted",
    "purge": "deleted",
    "recover": "stopped",
}
NEVER_CANCELLED = {"delete", "retire", "purge", "recover"}
FLAVORS = {"nano": (1, 128, 1), "micro": (1, 512, 4)}
QUOTAS = ("instances", "vcpus", "memory_mib", "root_disk_gib")
GHOST_AGE = timedelta(hours=1)
KEY_AGE = timedelta(hours=24)

Refusal = tuple[int, str]
"""Status and code of an answer."""
Refusals = set[Refusal]
"""Where several things stand against it, either may be told. Empty: it is accepted."""

NOT_FOUND: Refusal = (404, "not_found")
IN_TRANSITION: Refusal = (409, "in_transition")
INVALID_STATE: Refusal = (409, "invalid_state")
NAME_TAKEN: Refusal = (409, "name_taken")
OUT_OF_CAPACITY: Refusal = (409, "out_of_capacity")
HOST_DOWN: Refusal = (409, "host_down")
QUOTA_EXCEEDED: Refusal = (403, "quota_exceeded")


@dataclass(frozen=True)
class Shape:
    vcpus: int
    memory_mib: int
    disk_gib: int
    flavor: str | None = None

    @classmethod
    def of_flavor(cls, flavor: str) -> Shape:
        return cls(*FLAVORS[flavor], flavor)


@dataclass
class Job:
    """``untouched`` until time has moved: then no step of it has run."""

    id: str
    action: str
    shape: Shape | None = None  # that a resize brings
    untouched: bool = True
    cancel_requested: bool = False


@dataclass
class Machine:
    """``purge_at`` is set while it is deleted and can come back; ``purged_at`` once nothing is left but its row."""

    id: str
    name: str
    kind: str
    shape: Shape
    host: str | None
    labels: dict[str, str]
    status: str = "pending"
    job: Job | None = None
    failure: str | None = None
    purge_at: datetime | None = None
    purged_at: datetime | None = None
    may_rest_in: set[str] = field(default_factory=set)

    @property
    def transition(self) -> str | None:
        return TRANSITIONS[self.job.action] if self.job else None

    @property
    def is_visible(self) -> bool:
        return self.status != "deleted" or (self.job is not None and self.job.action == "recover")

    @property
    def holds_disk(self) -> bool:
        return self.host is not None

    @property
    def holds_all(self) -> bool:
        return self.host is not None and self.is_visible

    def amounts(self) -> dict[str, int]:
        """What it takes of quota; of its host the same without the count."""
        found = dict.fromkeys(QUOTAS, 0)
        if self.holds_disk:
            found["root_disk_gib"] = self.shape.disk_gib
        if self.holds_all:
            grown = self.job.shape if self.job and self.job.shape else self.shape
            found["instances"] = 1
            found["vcpus"] = max(self.shape.vcpus, grown.vcpus)
            found["memory_mib"] = max(self.shape.memory_mib, grown.memory_mib)
        return found


@dataclass
class Host:
    id: str
    name: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    status: str = "up"


@dataclass(frozen=True)
class Wish:
    name: str | None
    shape: Shape
    kind: str = "container"
    labels: tuple[tuple[str, str], ...] = ()


@dataclass
class Reference:
    hosts: dict[str, Host]
    retention: timedelta
    limits: dict[str, int | None] = field(default_factory=dict)
    machines: dict[str, Machine] = field(default_factory=dict)
    keys: dict[str, tuple[str, Any, datetime]] = field(default_factory=dict)

    # -- sums ---------------------------------------------------------------------------------------------

    def used(self) -> dict[str, int]:
        return _sum(machine.amounts() for machine in self.machines.values())

    def used_on(self, host_id: str) -> dict[str, int]:
        return _sum(machine.amounts() for machine in self.machines.values() if machine.host == host_id)

    def names(self) -> dict[str, str]:
        """Id of the holder by name: whoever failed to come or is deleted holds none."""
        return {machine.name: machine.id for machine in self.machines.values() if machine.holds_all}

    def visible(self) -> list[Machine]:
        return [machine for machine in self.machines.values() if machine.is_visible]

    def jobs(self) -> list[tuple[Machine, Job]]:
        return [(machine, machine.job) for machine in self.machines.values() if machine.job]

    # -- may it be? ---------------------------------------------------------------------------------------

    def why_not_create(self, wishes: Sequence[Wish]) -> tuple[Refusals, list[str]]:
        """Return the refusals, and the hosts on which the machines must come to be."""
        asked = {
            "instances": len(wishes),
            "vcpus": sum(wish.shape.vcpus for wish in wishes),
            "memory_mib": sum(wish.shape.memory_mib for wish in wishes),
            "root_disk_gib": sum(wish.shape.disk_gib for wish in wishes),
        }
        found = {QUOTA_EXCEEDED} if self._exceeds(asked) else set()
        wanted = [wish.name for wish in wishes if wish.name is not None]
        if len(wanted) > len(set(wanted)) or self.names().keys() & set(wanted):
            found.add(NAME_TAKEN)
        more, chosen = {host: dict.fromkeys(QUOTAS, 0) for host in self.hosts}, []
        for wish in wishes:
            host = self._least_used(wish.shape, more)
            if host is None:
                return found | {OUT_OF_CAPACITY}, []
            more[host] = _sum([more[host], _amounts_of(wish.shape)])
            chosen.append(host)
        return found, chosen

    def why_not(self, machine: Machine, action: str, *, shape: Shape | None = None) -> Refusals:
        if not machine.is_visible:
            return {NOT_FOUND}
        if machine.job is not None:
            return {IN_TRANSITION}
        if machine.status not in ALLOWED[action]:
            return {INVALID_STATE}
        if self._is_down(machine):
            return {HOST_DOWN}
        if shape is None:
            return set()
        vcpus, memory_mib = shape.vcpus - machine.shape.vcpus, shape.memory_mib - machine.shape.memory_mib
        return self._why_not_grow(machine, {"vcpus": max(0, vcpus), "memory_mib": max(0, memory_mib)})

    def why_not_rename(self, machine: Machine, name: str | None) -> Refusals:
        if not machine.is_visible:
            return {NOT_FOUND}
        if name is not None and machine.holds_all and self.names().get(name, machine.id) != machine.id:
            return {NAME_TAKEN}
        return set()

    def why_not_purge(self, machine: Machine) -> Refusals:
        """Of a deleted one; one that is visible is simply deleted."""
        if machine.purged_at is not None:
            return {NOT_FOUND}
        if self._is_down(machine):
            return {HOST_DOWN}
        return {IN_TRANSITION} if machine.job else set()

    def why_not_recover(self, machine: Machine, name: str | None, now: datetime) -> Refusals:
        if machine.job is not None:
            return {IN_TRANSITION}
        if machine.is_visible or machine.purge_at is None or machine.purge_at <= now:
            return {INVALID_STATE}
        if self._is_down(machine):
            return {HOST_DOWN}
        taken = {NAME_TAKEN} if (name or machine.name) in self.names() else set()
        asked = {"instances": 1, "vcpus": machine.shape.vcpus, "memory_mib": machine.shape.memory_mib}
        return taken | self._why_not_grow(machine, asked)

    def _why_not_grow(self, machine: Machine, asked: dict[str, int]) -> Refusals:
        found = {QUOTA_EXCEEDED} if self._exceeds(asked) else set()
        assert machine.host is not None
        host, used = self.hosts[machine.host], self.used_on(machine.host)
        measure = {"vcpus": host.vcpus, "memory_mib": host.memory_mib}
        if not all(_fits(asked[name], used[name], most) for name, most in measure.items()):
            found.add(OUT_OF_CAPACITY)
        return found

    def _exceeds(self, asked: dict[str, int]) -> bool:
        used = self.used()
        limits = {name: limit for name, limit in self.limits.items() if limit is not None}
        return any(asked.get(name, 0) > 0 and used[name] + asked[name] > limit for name, limit in limits.items())

    def _is_down(self, machine: Machine) -> bool:
        return machine.host is not None and self.hosts[machine.host].status == "down"

    def _least_used(self, shape: Shape, more: dict[str, dict[str, int]]) -> str | None:
        """docs/placement.md: the least share of memory in use, then of vCPUs. Equals are taken by their ids."""
        ranked = []
        for host in self.hosts.values():
            used = _sum([self.used_on(host.id), more[host.id]])
            fits = (
                _fits(shape.vcpus, used["vcpus"], host.vcpus)
                and _fits(shape.memory_mib, used["memory_mib"], host.memory_mib)
                and _fits(shape.disk_gib, used["root_disk_gib"], host.disk_gib)
            )
            if fits and host.status == "up":
                ranked.append((used["memory_mib"] / host.memory_mib, used["vcpus"] / host.vcpus, host.id))
        return min(ranked)[2] if ranked else None

    # -- it is so -----------------------------------------------------------------------------------------

    def created(self, wish: Wish, document: dict[str, Any], job_id: str, host: str) -> None:
        self.machines[document["id"]] = Machine(
            id=document["id"],
            name=wish.name or document["id"],
            kind=wish.kind,
            shape=wish.shape,
            host=host,
            labels=dict(wish.labels),
            job=Job(job_id, "create"),
        )

    def removal_of(self, machine: Machine, *, purge: bool) -> str:
        """Return what a DELETE means: away for good, or kept for a while."""
        if not machine.is_visible:
            return "purge"
        return "delete" if purge or machine.status == "failed" or not self.retention else "retire"

    def ended(self, machine: Machine, outcome: str, now: datetime) -> None:
        """The machine's job has ended with this status."""
        job = machine.job
        assert job is not None
        machine.job = None
        machine.may_rest_in = set()
        if job.cancel_requested:
            assert outcome == "cancelled", f"{job.action} was called off and ended {outcome}"
            self._cancelled(machine, job)
            return
        assert outcome == "succeeded", f"{job.action} ended {outcome}"
        machine.status = ENDS[job.action]
        if job.shape is not None:
            machine.shape = job.shape
        match job.action:
            case "delete" | "purge":
                machine.host, machine.purge_at, machine.purged_at = None, None, now
            case "retire":
                machine.purge_at = now + self.retention
            case "recover":
                machine.purge_at = None

    def _cancelled(self, machine: Machine, job: Job) -> None:
        """docs/api.md, Cancelling a job."""
        match job.action:
            case "create":
                machine.status, machine.failure, machine.host = "failed", "cancelled", None
            case "start":
                machine.status = "stopped"
            case "stop" | "restart":
                machine.may_rest_in = {"running", "stopped"}


def _fits(more: int, used: int, most: int) -> bool:
    return more <= 0 or used + more <= most


def _amounts_of(shape: Shape) -> dict[str, int]:
    return {
        "instances": 1,
        "vcpus": shape.vcpus,
        "memory_mib": shape.memory_mib,
        "root_disk_gib": shape.disk_gib,
    }


def _sum(parts: Iterable[dict[str, int]]) -> dict[str, int]:
    parts = list(parts)
    return {name: sum(part[name] for part in parts) for name in QUOTAS}
