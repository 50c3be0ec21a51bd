from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from iaas.drivers.interface import MachineKind, MachineSpec, PermanentError, PowerState, TransientError
from iaas.drivers.sim.compute import SimComputeDriver
from iaas.drivers.sim.images import SimImageDriver
from iaas.drivers.sim.latency import LatencyModel
from iaas.drivers.sim.world import SimWorld
from iaas.kernel.clock import CloudClock
from tests.unit.drivers.sim.conftest import VM_ID


def power(driver: SimComputeDriver) -> PowerState:
    state = driver.inspect_machine(VM_ID)
    assert state is not None
    return state.power


def test_each_passage_ends_exactly_at_next_change(vms: SimComputeDriver, spec: MachineSpec, clock: CloudClock) -> None:
    vms.ensure_machine(spec)
    state = vms.start_machine(VM_ID)
    assert state.power is PowerState.STARTING
    assert state.next_change_at == clock.now() + timedelta(seconds=1.0)  # create 0.2 and start 0.8
    clock.advance(0.999999)
    assert power(vms) is PowerState.STARTING
    clock.advance(0.000001)
    running = vms.inspect_machine(VM_ID)
    assert running is not None
    assert running.power is PowerState.RUNNING
    assert running.next_change_at == clock.now() + timedelta(seconds=3)
    assert not vms.is_guest_ready(VM_ID)
    clock.advance(3)
    assert vms.is_guest_ready(VM_ID)
    rested = vms.inspect_machine(VM_ID)
    assert rested is not None
    assert rested.next_change_at is None


def test_disk_work_that_is_over_does_not_delay_the_start(
    vms: SimComputeDriver, spec: MachineSpec, clock: CloudClock
) -> None:
    vms.ensure_machine(spec)
    clock.advance(60)
    assert vms.start_machine(VM_ID).next_change_at == clock.now() + timedelta(seconds=0.8)


def test_nothing_takes_time_with_instant_latency(world: SimWorld, vms: SimComputeDriver, spec: MachineSpec) -> None:
    world.latency = LatencyModel.instant()
    vms.ensure_machine(spec)
    assert vms.start_machine(VM_ID).power is PowerState.RUNNING
    assert vms.is_guest_ready(VM_ID)
    assert vms.stop_machine(VM_ID, force=False).power is PowerState.STOPPED


def test_a_graceful_stop_of_a_booting_guest_waits_for_the_boot(
    vms: SimComputeDriver, spec: MachineSpec, clock: CloudClock
) -> None:
    vms.ensure_machine(spec)
    vms.start_machine(VM_ID)
    state = vms.stop_machine(VM_ID, force=False)
    assert state.power is PowerState.STOPPING
    assert state.next_change_at == clock.now() + timedelta(seconds=1 + 3 + 2)


def test_a_forced_stop_cuts_a_graceful_one_short(ready_vm: SimComputeDriver, clock: CloudClock) -> None:
    ready_vm.stop_machine(VM_ID, force=False)
    state = ready_vm.stop_machine(VM_ID, force=True)
    assert state.next_change_at == clock.now() + timedelta(seconds=0.1)
    clock.advance(0.1)
    assert power(ready_vm) is PowerState.STOPPED


def test_a_forced_stop_never_prolongs_a_stop(ready_vm: SimComputeDriver, clock: CloudClock) -> None:
    due_at = ready_vm.stop_machine(VM_ID, force=False).next_change_at
    clock.advance(1.95)
    assert ready_vm.stop_machine(VM_ID, force=True).next_change_at == due_at


def test_start_while_stopping_is_to_be_tried_again(ready_vm: SimComputeDriver, clock: CloudClock) -> None:
    ready_vm.stop_machine(VM_ID, force=False)
    with pytest.raises(TransientError, match="still stopping"):
        ready_vm.start_machine(VM_ID)
    clock.advance(2)
    assert ready_vm.start_machine(VM_ID).power is PowerState.STARTING


def test_a_deaf_guest_runs_on_until_its_power_is_cut(
    world: SimWorld, ready_vm: SimComputeDriver, clock: CloudClock
) -> None:
    world.faults.ignore_shutdown(VM_ID)
    assert ready_vm.stop_machine(VM_ID, force=False).power is PowerState.RUNNING
    clock.advance(1000)
    assert power(ready_vm) is PowerState.RUNNING
    ready_vm.stop_machine(VM_ID, force=True)
    clock.advance(1)
    assert power(ready_vm) is PowerState.STOPPED


def test_a_crash_is_heard_of_and_the_machine_can_be_started_again(
    ready_vm: SimComputeDriver, clock: CloudClock
) -> None:
    heard: list[tuple[str, PowerState]] = []
    ready_vm.on_lifecycle(lambda machine_id, state: heard.append((machine_id, state)))
    ready_vm.crash_machine(VM_ID)
    assert heard == [(VM_ID, PowerState.CRASHED)]
    assert power(ready_vm) is PowerState.CRASHED
    assert b"Kernel panic" in ready_vm.read_console(VM_ID, tail_bytes=1000)
    with pytest.raises(PermanentError):
        ready_vm.crash_machine(VM_ID)
    ready_vm.start_machine(VM_ID)
    clock.advance(10)
    assert ready_vm.is_guest_ready(VM_ID)


def test_a_listener_hears_of_a_poweroff_when_the_clock_gets_there_and_only_once(
    ready_vm: SimComputeDriver, clock: CloudClock
) -> None:
    heard: list[tuple[str, PowerState]] = []
    ready_vm.on_lifecycle(lambda machine_id, state: heard.append((machine_id, state)))
    ready_vm.execute(VM_ID, ["poweroff"], timeout_s=5)
    assert heard == []
    clock.advance(2)
    clock.advance(2)
    assert heard == [(VM_ID, PowerState.STOPPED)]


def test_a_listener_hears_nothing_of_what_was_asked_for(ready_vm: SimComputeDriver, clock: CloudClock) -> None:
    heard: list[tuple[str, PowerState]] = []
    ready_vm.on_lifecycle(lambda machine_id, state: heard.append((machine_id, state)))
    ready_vm.execute(VM_ID, ["poweroff"], timeout_s=5)
    ready_vm.stop_machine(VM_ID, force=True)  # now it is the cloud's own stop
    clock.advance(10)
    assert heard == []


def test_a_running_clock_brings_the_news_by_itself(ready_vm: SimComputeDriver, clock: CloudClock) -> None:
    news = threading.Event()
    ready_vm.on_lifecycle(lambda machine_id, state: news.set())
    clock.set_scale(100)  # the two seconds of the shutdown pass in 20 ms
    ready_vm.execute(VM_ID, ["poweroff"], timeout_s=5)
    assert news.wait(timeout=10)
    assert power(ready_vm) is PowerState.STOPPED


def test_news_that_came_while_the_world_was_closed_are_told_after_it_opens(
    ready_vm: SimComputeDriver, clock: CloudClock, open_world: Callable[[], SimWorld]
) -> None:
    ready_vm.execute(VM_ID, ["poweroff"], timeout_s=5)
    ready_vm.world.close()
    clock.advance(5)
    heard: list[tuple[str, PowerState]] = []
    again = SimComputeDriver(MachineKind.VM, open_world())
    again.on_lifecycle(lambda machine_id, state: heard.append((machine_id, state)))
    assert heard == [(VM_ID, PowerState.STOPPED)]


@pytest.mark.parametrize("seconds", [0, 5])
def test_a_listener_that_comes_late_hears_what_nobody_has_heard(
    world: SimWorld, ready_vm: SimComputeDriver, clock: CloudClock, seconds: float
) -> None:
    ready_vm.execute(VM_ID, ["poweroff"], timeout_s=5)
    clock.advance(seconds)
    SimComputeDriver(MachineKind.CONTAINER, world).on_lifecycle(lambda machine_id, state: None)
    news = threading.Event()
    ready_vm.on_lifecycle(lambda machine_id, state: news.set())
    clock.set_scale(100)
    assert news.wait(timeout=10)


def test_a_closed_driver_tells_nobody(ready_vm: SimComputeDriver, clock: CloudClock) -> None:
    heard: list[str] = []
    ready_vm.on_lifecycle(lambda machine_id, state: heard.append(machine_id))
    ready_vm.execute(VM_ID, ["poweroff"], timeout_s=5)
    ready_vm.close()
    clock.advance(10)
    assert heard == []


def test_a_reboot_leaves_the_machine_running_and_its_guest_away_for_a_while(
    ready_vm: SimComputeDriver, clock: CloudClock
) -> None:
    ready_vm.execute(VM_ID, ["sh", "-c", "echo kept > /root/x; reboot"], timeout_s=5)
    assert power(ready_vm) is PowerState.RUNNING
    assert not ready_vm.is_guest_ready(VM_ID)
    clock.advance(5)
    assert ready_vm.is_guest_ready(VM_ID)
    assert ready_vm.execute(VM_ID, ["cat", "/root/x"], timeout_s=5).stdout == b"kept\n"


def test_the_two_kinds_share_a_world_and_never_a_machine(
    world: SimWorld, ready_vm: SimComputeDriver, spec: MachineSpec
) -> None:
    containers = SimComputeDriver(MachineKind.CONTAINER, world)
    assert containers.inspect_machine(VM_ID) is None
    assert containers.inventory() == []
    containers.remove_machine(VM_ID)
    assert power(ready_vm) is PowerState.RUNNING
    with pytest.raises(PermanentError, match="exists as vm"):
        containers.ensure_machine(replace(spec, kind=MachineKind.CONTAINER))


def test_flags_of_a_container_machine_are_remembered(world: SimWorld, spec: MachineSpec) -> None:
    containers = SimComputeDriver(MachineKind.CONTAINER, world)
    containers.ensure_machine(replace(spec, kind=MachineKind.CONTAINER, nesting=True, privileged=True))
    with world.lock:
        row = world.connection().execute("SELECT nesting, privileged FROM machines").fetchone()
    assert row == (1, 1)


def test_machines_outlive_their_image(world: SimWorld, ready_vm: SimComputeDriver, clock: CloudClock) -> None:
    SimImageDriver(world).remove_image("img-tiny0001")
    ready_vm.stop_machine(VM_ID, force=True)
    clock.advance(1)
    assert ready_vm.start_machine(VM_ID).power is PowerState.STARTING


def test_the_boot_appears_on_the_console_line_by_line(
    vms: SimComputeDriver, spec: MachineSpec, clock: CloudClock
) -> None:
    vms.ensure_machine(spec)
    vms.start_machine(VM_ID)
    assert vms.read_console(VM_ID, tail_bytes=4096) == b""
    seen = 0
    for _ in range(8):
        clock.advance(0.5)
        length = len(vms.read_console(VM_ID, tail_bytes=4096))
        assert length >= seen
        seen = length
    text = vms.read_console(VM_ID, tail_bytes=4096)
    assert text.endswith(b"READY i-vm000001\n")
    assert b"host name is web-1" in text


def test_a_cut_of_the_power_ends_the_console_text_for_good(
    vms: SimComputeDriver, spec: MachineSpec, clock: CloudClock
) -> None:
    vms.ensure_machine(spec)
    vms.start_machine(VM_ID)
    clock.advance(2)
    vms.stop_machine(VM_ID, force=True)
    text = vms.read_console(VM_ID, tail_bytes=4096)
    clock.advance(100)
    assert vms.read_console(VM_ID, tail_bytes=4096) == text
    assert text
    assert b"READY" not in text
