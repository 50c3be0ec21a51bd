from __future__ import annotations

import pytest

from iaas.drivers.interface import MachineKind
from iaas.drivers.sim.latency import Delay, KindLatency, LatencyModel


def test_every_delay_is_a_field() -> None:
    assert {f"{delay.value}_s" for delay in Delay} == set(KindLatency.__dataclass_fields__)


def test_delays_are_whole_microseconds_and_scaled() -> None:
    assert LatencyModel().microseconds(MachineKind.VM, Delay.START, "i-1") == 800_000
    assert LatencyModel(scale=0.5).microseconds(MachineKind.VM, Delay.START, "i-1") == 400_000
    assert LatencyModel.instant().microseconds(MachineKind.VM, Delay.GUEST_READY, "i-1") == 0


def test_one_kind_can_be_made_slow() -> None:
    model = LatencyModel().with_kind(MachineKind.CONTAINER, guest_ready_s=30)
    assert model.microseconds(MachineKind.CONTAINER, Delay.GUEST_READY, "i-1") == 30_000_000
    assert model.vm == LatencyModel().vm


def test_jitter_stays_in_its_bounds_and_depends_on_the_seed_alone() -> None:
    def delays(seed: int) -> list[int]:
        model = LatencyModel(jitter=0.2, seed=seed)
        return [model.microseconds(MachineKind.VM, Delay.START, f"i-{number}") for number in range(200)]

    assert delays(1) == delays(1)
    assert delays(1) != delays(2)
    assert min(delays(1)) >= 640_000
    assert max(delays(1)) <= 960_000
    assert len(set(delays(1))) > 100


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="start_s"):
        KindLatency(start_s=-1)
    with pytest.raises(ValueError, match="jitter"):
        LatencyModel(jitter=2)
    with pytest.raises(ValueError, match="scale"):
        LatencyModel(scale=-1)
