from __future__ import annotations

from dataclasses import replace

import pytest

from iaas.drivers.interface import BackendDownError, ImageSpec, MachineKind, PermanentError
from iaas.drivers.sim.backend import IN_MEMORY, build_sim_backend, world_of
from iaas.drivers.sim.images import SimImageDriver
from iaas.drivers.sim.latency import LatencyModel
from iaas.drivers.sim.world import SimWorld
from iaas.kernel.clock import CloudClock

BOTH = frozenset(MachineKind)


def quiet(sentence: str) -> None:
    """Progress nobody reads."""


def test_a_backend_has_both_kinds_and_hosts_in_every_zone(clock: CloudClock) -> None:
    backend = build_sim_backend(IN_MEMORY, clock, zones=("a", "b", "c"), hosts_per_zone=3, vcpus=8)
    assert set(backend.compute) == BOTH
    assert all(driver.kind is kind for kind, driver in backend.compute.items())
    assert not backend.blocking
    assert len({host.name for host in backend.hosts}) == 9
    assert {host.zone for host in backend.hosts} == {"a", "b", "c"}
    assert {host.vcpus for host in backend.hosts} == {8}
    backend.close()
    with pytest.raises(BackendDownError):
        backend.networks.check_available()


def test_the_world_behind_a_backend_can_be_reached(clock: CloudClock) -> None:
    latency = LatencyModel.instant()
    backend = build_sim_backend(IN_MEMORY, clock, latency=latency)
    assert world_of(backend).latency is latency
    with pytest.raises(TypeError):
        world_of(replace(backend, compute={MachineKind.VM: object()}))  # type: ignore[dict-item] # not a driver, on purpose
    backend.close()


def test_the_builtin_image_is_there_at_once_for_either_kind(world: SimWorld) -> None:
    images = SimImageDriver(world)
    said: list[str] = []
    spec = ImageSpec(image_id="img-other001", source="builtin:tiny", kinds=BOTH)
    assert images.ensure_image(spec, kind=MachineKind.VM, progress=said.append).kinds == {MachineKind.VM}
    assert images.ensure_image(spec, kind=MachineKind.CONTAINER, progress=said.append).kinds == BOTH
    assert said
    assert [state.image_id for state in images.inventory()] == ["img-other001", "img-tiny0001"]
    images.remove_image("img-other001")
    images.remove_image("img-other001")
    assert [state.image_id for state in images.inventory()] == ["img-tiny0001"]


def test_an_image_that_cannot_be_had_is_refused(world: SimWorld) -> None:
    images = SimImageDriver(world)
    unknown = ImageSpec(image_id="img-other001", source="builtin:huge", kinds=BOTH)
    only_vm = ImageSpec(image_id="img-other001", source="builtin:tiny", kinds=frozenset({MachineKind.VM}))
    with pytest.raises(PermanentError, match="knows no image"):
        images.ensure_image(unknown, kind=MachineKind.VM, progress=quiet)
    with pytest.raises(PermanentError, match="no artefact"):
        images.ensure_image(only_vm, kind=MachineKind.CONTAINER, progress=quiet)
    assert [state.image_id for state in images.inventory()] == ["img-tiny0001"]
