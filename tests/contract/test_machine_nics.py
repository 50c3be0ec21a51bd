"""The contract of every compute driver, as far as it is about NICs. See README.md beside this file.

A link is looked for by its MAC: how guests number their links differs, and is none of the contract.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from iaas.drivers.interface import (
    ComputeCapability,
    MachineKind,
    NICSpec,
    NoCapacityError,
    NotFoundError,
    PermanentError,
    PowerState,
    TransientError,
)
from iaas.drivers.interface.compute import NICS_PER_MACHINE
from tests.contract.shared_machine import SharedMachine
from tests.contract.subjects import GATEWAY, ComputeSubject

UNKNOWN = "i-zzzz9999"
NIC_TIMEOUT_S = 60.0
MOST_LINKS = 8
"""So many links of a guest are looked at."""


@pytest.fixture
def hotplug(running: SharedMachine) -> SharedMachine:
    """The shared machine, running, where NICs can come and go; with its first NIC alone."""
    for capability in (ComputeCapability.NIC_HOTPLUG, ComputeCapability.EXEC):
        if capability not in running.driver.capabilities:
            pytest.skip(f"not in capabilities: {capability.value}")
    for nic_id in running.state().nic_ids[1:]:
        detach(running, nic_id)
    return running


def attach(machine: SharedMachine, nic: NICSpec) -> None:
    """Attach a NIC, as often as it takes."""

    def tried() -> bool:
        try:
            machine.driver.attach_nic(machine.machine_id, nic)
        except TransientError:
            return False
        return True

    machine.subject.wait_for(tried, NIC_TIMEOUT_S, "the NIC to be attached")


def detach(machine: SharedMachine, nic_id: str) -> None:
    """Detach a NIC, as often as it takes."""

    def tried() -> bool:
        try:
            machine.driver.detach_nic(machine.machine_id, nic_id)
        except TransientError:
            return False
        return True

    machine.subject.wait_for(tried, NIC_TIMEOUT_S, "the NIC to be detached")


def link_of(machine: SharedMachine, nic: NICSpec) -> str | None:
    """Return the name of the NIC's link in the guest's first network namespace."""
    for number in range(MOST_LINKS):
        shown = machine.run("cat", f"/sys/class/net/eth{number}/address")
        if shown.exit_code == 0 and shown.stdout.decode().strip() == nic.mac:
            return f"eth{number}"
    return None


def wait_for_link(machine: SharedMachine, nic: NICSpec) -> str:
    """Return the NIC's link as soon as the guest has it."""
    machine.subject.wait_for(lambda: link_of(machine, nic) is not None, NIC_TIMEOUT_S, "the link in the guest")
    link = link_of(machine, nic)
    assert link is not None
    return link


def wait_until_usable(machine: SharedMachine, nic: NICSpec) -> None:
    """Wait until the guest has brought up the NIC by itself, with its own address and no other."""
    address = f"inet {machine.subject.address_of(nic)}/"

    def is_up() -> bool:
        link = link_of(machine, nic)
        return link is not None and address in machine.run("ip", "addr", "show", link).stdout.decode()

    machine.subject.wait_for(is_up, NIC_TIMEOUT_S, f"{address} in the guest")


# --- stopped machines: no guest is booted ------------------------------------------------------------------


def test_a_machine_has_its_nics_in_the_order_of_their_device_indexes(subject: ComputeSubject) -> None:
    later, first, middle = (subject.new_nic(device_index=index) for index in (10, 0, 2))
    spec = subject.new_spec(nics=(later, first, middle))
    wanted = (first.nic_id, middle.nic_id, later.nic_id)
    assert subject.driver.ensure_machine(spec).nic_ids == wanted
    [listed] = subject.driver.inventory(only=[spec.machine_id])
    assert listed.nic_ids == wanted


def test_a_machine_without_nics_has_none(subject: ComputeSubject) -> None:
    assert subject.driver.ensure_machine(subject.new_spec(nics=())).nic_ids == ()


def test_nics_come_and_go_on_a_stopped_machine_and_may_be_told_again(subject: ComputeSubject) -> None:
    driver, spec, nic = subject.driver, subject.new_spec(), subject.new_nic()
    driver.ensure_machine(spec)
    for _ in range(2):
        driver.attach_nic(spec.machine_id, nic)
    state = driver.inspect_machine(spec.machine_id)
    assert state is not None
    assert (state.nic_ids, state.power) == ((spec.nics[0].nic_id, nic.nic_id), PowerState.STOPPED)
    # Told what the machine had at first, a driver does not take away what came later.
    assert driver.ensure_machine(spec).nic_ids == state.nic_ids
    for nic_id in (spec.nics[0].nic_id, nic.nic_id, nic.nic_id):
        driver.detach_nic(spec.machine_id, nic_id)
    assert driver.ensure_machine(spec).nic_ids == ()


def test_a_detached_nic_can_move_to_another_machine(subject: ComputeSubject) -> None:
    driver, nic = subject.driver, subject.new_nic()
    specs = [subject.new_spec() for _ in range(2)]
    for spec in specs:
        driver.ensure_machine(spec)
        driver.attach_nic(spec.machine_id, nic)
        state = driver.inspect_machine(spec.machine_id)
        assert state is not None
        assert state.nic_ids == (spec.nics[0].nic_id, nic.nic_id)
        driver.detach_nic(spec.machine_id, nic.nic_id)


def test_a_device_index_holds_one_nic(subject: ComputeSubject) -> None:
    spec, nic = subject.new_spec(), subject.new_nic(device_index=0)
    before = subject.driver.ensure_machine(spec)
    with pytest.raises(PermanentError):
        subject.driver.attach_nic(spec.machine_id, nic)
    assert subject.driver.inspect_machine(spec.machine_id) == before
    subject.driver.attach_nic(spec.machine_id, replace(nic, device_index=1))


def test_a_machine_has_room_for_so_many_nics(subject: ComputeSubject) -> None:
    nics = tuple(subject.new_nic(device_index=index) for index in range(NICS_PER_MACHINE + 1))
    spec = subject.new_spec(nics=nics)
    with pytest.raises(NoCapacityError):
        subject.driver.ensure_machine(spec)
    assert subject.driver.inspect_machine(spec.machine_id) is None
    full = subject.driver.ensure_machine(replace(spec, nics=nics[:-1]))
    assert len(full.nic_ids) == NICS_PER_MACHINE
    with pytest.raises(NoCapacityError):
        subject.driver.attach_nic(spec.machine_id, nics[-1])
    assert subject.driver.inspect_machine(spec.machine_id) == full


def test_nics_of_an_unknown_machine(subject: ComputeSubject) -> None:
    nic = subject.new_nic()
    with pytest.raises(NotFoundError):
        subject.driver.attach_nic(UNKNOWN, nic)
    subject.driver.detach_nic(UNKNOWN, nic.nic_id)
    assert not subject.driver.replug_nic(UNKNOWN, nic.nic_id)


def test_nothing_is_to_be_plugged_again_on_a_stopped_machine(subject: ComputeSubject) -> None:
    spec = subject.new_spec()
    subject.driver.ensure_machine(spec)
    assert not subject.driver.replug_nic(spec.machine_id, spec.nics[0].nic_id)
    assert not subject.driver.replug_nic(spec.machine_id, "nic-unknown0")
    subject.driver.detach_nic(spec.machine_id, "nic-unknown0")


# --- a running guest ---------------------------------------------------------------------------------------


def test_a_running_guest_gets_a_nic_brings_it_up_and_loses_it_again(hotplug: SharedMachine) -> None:
    first, nic = hotplug.spec.nics[0], hotplug.subject.new_nic()
    for _ in range(2):  # the second time with another link in the same place
        attach(hotplug, nic)
        attach(hotplug, nic)
        assert hotplug.state().nic_ids == (first.nic_id, nic.nic_id)
        wait_until_usable(hotplug, nic)
        wait_until_usable(hotplug, first)
        assert not hotplug.driver.replug_nic(hotplug.machine_id, nic.nic_id)
        detach(hotplug, nic.nic_id)
        assert hotplug.state().nic_ids == (first.nic_id,)
        assert link_of(hotplug, nic) is None
        detach(hotplug, nic.nic_id)


def test_nics_of_a_running_machine_are_refused_for_the_same_reasons(hotplug: SharedMachine) -> None:
    before = hotplug.state()
    with pytest.raises(PermanentError):
        hotplug.driver.attach_nic(hotplug.machine_id, hotplug.subject.new_nic(device_index=0))
    assert hotplug.state() == before


def test_a_nic_that_is_handed_on_works_there_and_is_usable_again_when_that_place_is_gone(
    hotplug: SharedMachine,
) -> None:
    nic = hotplug.subject.new_nic()
    attach(hotplug, nic)
    wait_until_usable(hotplug, nic)
    link, address = wait_for_link(hotplug, nic), hotplug.subject.address_of(nic)
    hotplug.output_of(["sh", "-c", f"ip netns add pod && ip link set {link} netns pod"])
    assert link_of(hotplug, nic) is None
    hotplug.output_of(["ip", "-n", "pod", "addr", "add", f"{address}/24", "dev", link])
    hotplug.output_of(["ip", "-n", "pod", "link", "set", link, "up"])
    assert nic.mac in hotplug.output_of(["ip", "netns", "exec", "pod", "ip", "addr"])
    hotplug.subject.wait_for(
        lambda: hotplug.run("ip", "netns", "exec", "pod", "ping", "-c", "1", "-W", "2", GATEWAY).exit_code == 0,
        NIC_TIMEOUT_S,
        "the gateway, from inside the namespace",
    )
    assert not hotplug.driver.replug_nic(hotplug.machine_id, nic.nic_id)
    assert hotplug.state().nic_ids[1:] == (nic.nic_id,)

    hotplug.output_of(["ip", "netns", "del", "pod"])
    if hotplug.subject.kind is MachineKind.CONTAINER:  # the link dies with the namespace
        hotplug.subject.wait_for(
            lambda: hotplug.driver.replug_nic(hotplug.machine_id, nic.nic_id), NIC_TIMEOUT_S, "a link to be plugged"
        )
    wait_until_usable(hotplug, nic)
    assert not hotplug.driver.replug_nic(hotplug.machine_id, nic.nic_id)
    detach(hotplug, nic.nic_id)
    assert link_of(hotplug, nic) is None


def test_nics_that_came_while_it_ran_or_stood_still_are_there_after_a_start(hotplug: SharedMachine) -> None:
    came_running, came_stopped = (hotplug.subject.new_nic(device_index=index) for index in (2, 1))
    attach(hotplug, came_running)
    hotplug.bring_down()
    hotplug.driver.attach_nic(hotplug.machine_id, came_stopped)
    hotplug.bring_up()
    wanted = (hotplug.spec.nics[0].nic_id, came_stopped.nic_id, came_running.nic_id)
    assert hotplug.state().nic_ids == wanted
    for nic in (hotplug.spec.nics[0], came_running, came_stopped):
        wait_until_usable(hotplug, nic)
    hotplug.subject.reopen()
    assert hotplug.state().nic_ids == wanted
    for nic_id in wanted[1:]:
        detach(hotplug, nic_id)
