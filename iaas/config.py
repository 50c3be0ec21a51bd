"""Settings of one cloud. The composition root fills this; nothing in here reads the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What tenants may ask for beyond the ordinary."""

    allow_privileged: bool = True
    allow_nesting: bool = True
    max_batch: int = 100
    max_user_data_bytes: int = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRetention:
    """How long events are kept, on the cloud clock, and how many at most; whatever ends first."""

    age_s: float = 7 * 86_400.0
    count: int = 200_000
    purge_every_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ghosts:
    """How long the row of an instance stays after the instance is gone for good, on the cloud clock; and how many."""

    age_s: float = 3600.0
    count: int = 10_000
    tidy_every_s: float = 30.0  # also how often retained instances whose time is over are looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorPolicy:
    """When the doctor looks by itself: ``every_s`` of the cloud clock, for the first time soon after the start.

    It repairs by itself only with ``repairs``. ``least_pause_s`` is wall time, for clocks that run fast;
    simulated clouds of more than ``most_simulated`` instances are looked at only on request: the simulation
    runs in this process and loses nothing, and reading them all takes a while.
    """

    every_s: float | None = None
    first_in_s: float = 15.0
    least_pause_s: float = 30.0
    most_simulated: int = 50_000
    repairs: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudConfig:
    """One cloud. ``state_dir`` holds its files; None keeps everything in memory (tests).

    ``driver_calls``: how many calls of a real backend may be under way at once on one host, by kind of machine;
    kinds that are not named have :data:`iaas.jobs.executor.DRIVER_CALLS`.
    ``quotas``: limits of projects that have none of their own, by name; what is not named has
    :data:`iaas.services.quotas.DEFAULTS`.
    ``retention_s``: how long a deleted instance can be recovered, on the cloud clock; 0 removes it at once.
    """

    state_dir: Path | None
    database_url: str
    zones: tuple[str, ...] = ("zone-1", "zone-2")
    max_waiters: int = 64
    policy: Policy = Policy()
    event_retention: EventRetention = EventRetention()
    doctor: DoctorPolicy = DoctorPolicy()
    retention_s: float = 0.0
    ghosts: Ghosts = Ghosts()
    driver_calls: Mapping[str, int] = field(default_factory=dict)
    quotas: Mapping[str, int] = field(default_factory=dict)
