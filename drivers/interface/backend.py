"""A backend: the drivers of one host, wired together by the composition root."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from iaas.drivers.interface.compute import ComputeDriver, MachineKind
from iaas.drivers.interface.images import ImageDriver
from iaas.drivers.interface.networks import NetworkDriver


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReport:
    """What a host has, and how far beyond that the scheduler may go (a ratio of 1 gives out what there is)."""

    name: str
    zone: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    vcpu_overcommit: float = 1.0
    memory_overcommit: float = 1.0
    disk_overcommit: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """The drivers behind one cloud.

    ``blocking`` says that calls take wall time (daemons, netlink), so the executor runs them on a pool;
    the simulation never blocks and is driven inline, which keeps it deterministic. ``revive`` starts again those
    daemons that are ours to start and have died; None when there are none. It may take a minute.
    """

    name: str
    blocking: bool
    compute: Mapping[MachineKind, ComputeDriver]
    networks: NetworkDriver
    images: ImageDriver
    hosts: tuple[HostReport, ...]
    close: Callable[[], None]
    revive: Callable[[], None] | None = None
