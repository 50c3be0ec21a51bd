"""Instances: machines of either kind."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from iaas.kernel.errors import Failure
from iaas.resources.networks import NIC, NewNIC


class InstanceStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    STOPPED = "stopped"
    SUSPENDED = "suspended"
    FAILED = "failed"
    DELETED = "deleted"


class InstanceTransition(StrEnum):
    CREATING = "creating"
    STARTING = "starting"
    STOPPING = "stopping"
    RESTARTING = "restarting"
    RESIZING = "resizing"
    REBUILDING = "rebuilding"
    DELETING = "deleting"
    RECOVERING = "recovering"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    id: str
    project_id: str
    name: str
    labels: dict[str, str]
    zone: str
    kind: str
    status: str
    transition: str | None
    failure: Failure | None
    generation: int
    hostname: str
    flavor: str | None
    vcpus: int
    memory_mib: int
    root_disk_gib: int
    image_id: str
    image: str
    key_pairs: list[str]
    nesting: bool
    privileged: bool
    host_id: str | None
    disk_generation: int
    guest_ready_at: datetime | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    purge_at: datetime | None = None
    purged_at: datetime | None = None
    placement: JSONDict | None = None
    retained: JSONDict | None = None
    metadata_labels: bool = False
    nics: tuple[NIC, ...] = ()

    @property
    def address(self) -> str | None:
        """The first address of the first NIC."""
        return next((nic.address for nic in self.nics if nic.address), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementRule:
    """Which other instances to be near to, or far from: those named (ids or names), or those a selector finds.

    ``strict`` rules must hold; others are wishes that room and hosts may overrule.
    """

    instances: tuple[str, ...] = ()
    label_selector: str | None = None
    strict: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementWish:
    """Where to put a new instance; ``host`` (id or name) is for admins."""

    affinity: PlacementRule | None = None
    anti_affinity: PlacementRule | None = None
    host: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewInstance:
    """A wish for an instance, checked for form only. ``flavor`` excludes ``vcpus`` and ``memory_mib``."""

    kind: str
    image: str
    flavor: str | None = None
    vcpus: int | None = None
    memory_mib: int | None = None
    root_disk_gib: int | None = None
    name: str | None = None
    hostname: str | None = None
    zone: str | None = None
    key_pairs: tuple[str, ...] = ()
    user_data: bytes | None = None
    labels: dict[str, str] | None = None
    nesting: bool = False
    privileged: bool = False
    metadata_labels: bool = False
    placement: PlacementWish | None = None
    nics: tuple[NewNIC, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecOutcome:
    """What a command in a guest gave; text with replacement characters."""

    exit_code: int
    stdout: str
    stderr: str
    truncated: bool


JSONDict = dict[str, Any]
