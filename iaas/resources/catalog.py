"""What instances are made of and where: zones, hosts, flavors, images, key pairs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    id: str
    name: str
    labels: dict[str, str]
    status: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
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
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Flavor:
    id: str
    name: str
    labels: dict[str, str]
    vcpus: int
    memory_mib: int
    root_disk_gib: int
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """This issue's seam of the network model: one default network per zone, served by the driver."""

    id: str
    zone: str
    cidr: str
    gateway: str
