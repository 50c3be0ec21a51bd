"""The simulated compute drivers, both kinds, as subjects of the contract suite."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from iaas.drivers.interface import ComputeDriver, ImageSpec, MachineKind
from iaas.drivers.sim.compute import SimComputeDriver
from iaas.drivers.sim.images import SimImageDriver
from iaas.drivers.sim.network import SimNetworkDriver
from iaas.drivers.sim.world import SimWorld
from iaas.kernel.clock import CloudClock
from tests.contract.subjects import StandardSubject

STEP_S = 0.05
IMAGE_ID = "img-contract"


def make_vm_subject(request: pytest.FixtureRequest) -> StandardSubject:
    return _make_subject(MachineKind.VM)


def make_container_subject(request: pytest.FixtureRequest) -> StandardSubject:
    return _make_subject(MachineKind.CONTAINER)


def _make_subject(kind: MachineKind) -> StandardSubject:
    folder = tempfile.TemporaryDirectory(prefix="iaas-sim-")
    path = Path(folder.name) / "world.db"
    clock = CloudClock(scale=0)
    open_worlds: list[SimWorld] = []

    def open_driver() -> ComputeDriver:
        # A reopened driver stands for a restarted server, so the world's file is opened anew as well.
        world = SimWorld(path, clock)
        open_worlds.append(world)
        return SimComputeDriver(kind, world)

    def open_stranger() -> ComputeDriver:
        world = SimWorld(":memory:", clock)
        open_worlds.append(world)
        return SimComputeDriver(kind, world)

    def close() -> None:
        for world in open_worlds:
            world.close()
        folder.cleanup()

    network_world = SimWorld(path, clock)
    open_worlds.append(network_world)
    both = frozenset(MachineKind)
    SimImageDriver(network_world).ensure_image(
        ImageSpec(image_id=IMAGE_ID, source="builtin:tiny", kinds=both), kind=kind, progress=lambda _: None
    )
    return StandardSubject(
        kind=kind,
        open_driver=open_driver,
        networks=SimNetworkDriver(network_world),
        image_id=IMAGE_ID,
        boot_timeout_s=20,
        stop_timeout_s=20,
        stranger_factory=open_stranger,
        pass_time=lambda: clock.advance(STEP_S),
        now_s=lambda: clock.now().timestamp(),
        on_close=close,
    )
