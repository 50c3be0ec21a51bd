"""What instances are made of and where: zones, hosts, flavors, images, key pairs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    id: str
    name: str
    labels: dict[str, str]
    status: str
    created_at: datetime


class HostStatus(StrEnum):
    """DRAINING takes no new machines and keeps those it has; on a host that is DOWN nothing can be done."""

    UP = "up"
    DRAINING = "draining"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """``vcpus``, ``memory_mib`` and ``disk_gib`` are what is given out: what the host has, times its over-commit.

    ``status`` is ``wanted_status``, or ``down`` while the backend does not report the host.
    """

    id: str
    name: str
    labels: dict[str, str]
    zone: str
    status: str
    vcpus: int
    vcpus_used: int
    memory_mib: int
    memory_mib_used: int
    disk_gib: int
    disk_gib_used: int
    vcpu_overcommit: float
    memory_overcommit: float
    disk_overcommit: float
    wanted_status: str
    created_at: datetime
    updated_at: datetime


DEFAULT_MAX_NICS = 8
"""How many NICs an instance may have where no flavor says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flavor:
    id: str
    name: str
    labels: dict[str, str]
    vcpus: int
    memory_mib: int
    root_disk_gib: int
    max_nics: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """``kinds`` says for which kinds of instance the image holds an artefact."""

    id: str
    name: str
    labels: dict[str, str]
    status: str
    source: str
    kinds: list[str]
    os: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    id: str
    project_id: str
    name: str
    labels: dict[str, str]
    public_key: str
    fingerprint: str
    created_at: datetime
    updated_at: datetime
