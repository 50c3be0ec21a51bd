"""The simulated backend, wired: one world, both kinds of machines, networks, images, hosts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from iaas.drivers.interface import Backend, HostReport, MachineKind
from iaas.drivers.sim.compute import SimComputeDriver
from iaas.drivers.sim.images import SimImageDriver
from iaas.drivers.sim.latency import LatencyModel
from iaas.drivers.sim.network import SimNetworkDriver
from iaas.drivers.sim.world import IN_MEMORY, SimWorld
from iaas.kernel.clock import CloudClock

__all__ = ["IN_MEMORY", "build_sim_backend", "world_of"]


def build_sim_backend(
    path: Path | str,
    clock: CloudClock,
    *,
    zones: Sequence[str] = ("zone-1", "zone-2"),
    hosts_per_zone: int = 2,
    vcpus: int = 128,
    memory_mib: int = 512 * 1024,
    disk_gib: int = 10_000,
    hosts: Sequence[HostReport] | None = None,
    latency: LatencyModel | None = None,
) -> Backend:
    """Return a backend whose world is the file ``path`` (made when absent; ``":memory:"`` for none).

    Args:
        clock: the cloud clock, on which everything happens.
        vcpus, memory_mib, disk_gib: the capacity of each host.
        hosts: the hosts one by one, in place of ``hosts_per_zone`` equal ones.
        latency: how long things take; the defaults of :mod:`iaas.drivers.sim.latency` when absent.

    Raises:
        BackendDownError: the file cannot be opened.
        PermanentError: it is a world of another version.
    """
    world = SimWorld(path, clock, latency)
    return Backend(
        name="sim",
        blocking=False,
        compute={kind: SimComputeDriver(kind, world) for kind in MachineKind},
        networks=SimNetworkDriver(world),
        images=SimImageDriver(world),
        hosts=tuple(hosts)
        if hosts is not None
        else tuple(
            HostReport(name=f"sim-{zone}-{number}", zone=zone, vcpus=vcpus, memory_mib=memory_mib, disk_gib=disk_gib)
            for zone in zones
            for number in range(1, hosts_per_zone + 1)
        ),
        close=world.close,
    )


def world_of(backend: Backend) -> SimWorld:
    """Return the world behind a simulated backend: its faults, latency and clock, for tests and the lab.

    Raises:
        TypeError: the backend is not a simulated one.
    """
    driver = backend.compute[MachineKind.VM]
    if not isinstance(driver, SimComputeDriver):
        raise TypeError(f"backend {backend.name} is not simulated")
    return driver.world
