"""How long things take in the simulated world, in cloud seconds."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, fields, replace
from enum import StrEnum

from iaas.drivers.interface import MachineKind

MICROSECONDS_PER_S = 1_000_000


class Delay(StrEnum):
    """What takes time; the members are the fields of :class:`KindLatency` without their ``_s``."""

    CREATE = "create"
    START = "start"
    GUEST_READY = "guest_ready"
    STOP_GRACEFUL = "stop_graceful"
    STOP_FORCED = "stop_forced"
    RESIZE = "resize"
    REBUILD = "rebuild"
    NIC_UP = "nic_up"
    NIC_GONE = "nic_gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class KindLatency:
    """Delays of one kind of machine, each at least 0.

    ``create_s``, ``resize_s`` and ``rebuild_s`` are work on the disk: the call returns at once, and the
    next start waits until the work is through. ``guest_ready_s`` counts from the moment the machine runs.
    ``nic_up_s`` is what a running guest needs to bring up a NIC that was attached, ``nic_gone_s`` what it needs
    to let go of one: until then, taking it away fails for the moment.
    """

    create_s: float = 0.0
    start_s: float = 0.0
    guest_ready_s: float = 0.0
    stop_graceful_s: float = 0.0
    stop_forced_s: float = 0.0
    resize_s: float = 0.0
    rebuild_s: float = 0.0
    nic_up_s: float = 0.0
    nic_gone_s: float = 0.0

    def __post_init__(self) -> None:
        for each in fields(self):
            if getattr(self, each.name) < 0:
                raise ValueError(f"{each.name} must not be negative")


VM = KindLatency(
    create_s=0.2,
    start_s=0.8,
    guest_ready_s=3.0,
    stop_graceful_s=2.0,
    stop_forced_s=0.1,
    resize_s=0.1,
    rebuild_s=0.3,
    nic_up_s=0.5,
)
CONTAINER = KindLatency(
    create_s=0.1,
    start_s=0.2,
    guest_ready_s=0.6,
    stop_graceful_s=0.5,
    stop_forced_s=0.05,
    resize_s=0.05,
    rebuild_s=0.2,
    nic_up_s=0.2,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyModel:
    """Delays of both kinds, a factor for all of them, and how much they vary.

    Args:
        scale: multiplies every delay; 0 makes everything instant.
        jitter: 0.2 lets each delay vary by up to a fifth either way. The variation is a pure function of
            ``seed``, machine and delay, so it survives a restart and does not depend on the order of calls.
    """

    vm: KindLatency = VM
    container: KindLatency = CONTAINER
    scale: float = 1.0
    jitter: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.scale < 0:
            raise ValueError("scale must not be negative")
        if not 0 <= self.jitter <= 1:
            raise ValueError("jitter is a fraction from 0 to 1")

    @classmethod
    def instant(cls) -> LatencyModel:
        """Return a model in which nothing takes any time."""
        return cls(scale=0.0)

    def of(self, kind: MachineKind) -> KindLatency:
        """Return the delays of one kind, before ``scale`` and ``jitter``."""
        return self.vm if kind is MachineKind.VM else self.container

    def with_kind(self, kind: MachineKind, **delays_s: float) -> LatencyModel:
        """Return this model with some delays of one kind changed: ``with_kind(VM, guest_ready_s=30)``."""
        changed = replace(self.of(kind), **delays_s)
        return replace(self, vm=changed) if kind is MachineKind.VM else replace(self, container=changed)

    def microseconds(self, kind: MachineKind, delay: Delay, machine_id: str) -> int:
        """Return one machine's delay in whole microseconds of the cloud clock."""
        seconds: float = getattr(self.of(kind), f"{delay.value}_s") * self.scale
        if self.jitter:
            spread = zlib.crc32(f"{self.seed}/{delay.value}/{machine_id}".encode()) / 0xFFFFFFFF
            seconds *= 1 + self.jitter * (2 * spread - 1)
        return round(seconds * MICROSECONDS_PER_S)
