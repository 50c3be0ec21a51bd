from __future__ import annotations

import pytest

from iaas.drivers.interface import (
    ComputeDriver,
    ImageDriver,
    MachineSpec,
    NetworkDriver,
    NoCapacityError,
    TransientError,
)
from iaas.drivers.sim.compute import SimComputeDriver
from iaas.drivers.sim.faults import OPERATIONS
from iaas.drivers.sim.network import SimNetworkDriver
from iaas.drivers.sim.world import SimWorld
from tests.unit.drivers.sim.conftest import VM_ID


def test_every_method_of_the_protocols_can_be_failed() -> None:
    methods = {
        name
        for protocol in (ComputeDriver, NetworkDriver, ImageDriver)
        for name, member in vars(protocol).items()
        if callable(member) and not name.startswith("_")
    }
    # Closing and listening for news do not reach the world; listening in a network and probing it are unsupported.
    assert methods - {"close", "on_lifecycle", "on_link_lost", "listen", "probe"} == OPERATIONS


def test_a_fault_before_the_effect_leaves_nothing(world: SimWorld, vms: SimComputeDriver, spec: MachineSpec) -> None:
    world.faults.fail_next("ensure_machine", NoCapacityError("no room"))
    with pytest.raises(NoCapacityError, match="no room"):
        vms.ensure_machine(spec)
    assert vms.inspect_machine(VM_ID) is None
    vms.ensure_machine(spec)


def test_a_fault_after_the_effect_leaves_the_effect(world: SimWorld, vms: SimComputeDriver, spec: MachineSpec) -> None:
    world.faults.fail_next("ensure_machine", TransientError("the answer was lost"), when="after")
    with pytest.raises(TransientError):
        vms.ensure_machine(spec)
    assert vms.inspect_machine(VM_ID) is not None


def test_a_fault_strikes_as_often_as_it_is_told(world: SimWorld, vms: SimComputeDriver, spec: MachineSpec) -> None:
    world.faults.fail_next("ensure_machine", TransientError("again"), count=2)
    errors = []
    for _ in range(2):
        with pytest.raises(TransientError) as caught:
            vms.ensure_machine(spec)
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    assert world.faults.waiting() == 0
    vms.ensure_machine(spec)


def test_a_fault_for_one_machine_spares_the_others(world: SimWorld, vms: SimComputeDriver, spec: MachineSpec) -> None:
    world.faults.fail_next("ensure_machine", TransientError("x"), resource_id="i-other000")
    vms.ensure_machine(spec)
    assert world.faults.waiting() == 1
    world.faults.clear()
    assert world.faults.waiting() == 0


def test_a_call_that_fails_by_itself_does_not_use_up_a_fault_after_its_effect(
    world: SimWorld, vms: SimComputeDriver
) -> None:
    world.faults.fail_next("start_machine", TransientError("x"), when="after")
    with pytest.raises(Exception, match="there is no machine"):
        vms.start_machine("i-absent00")
    assert world.faults.waiting() == 1


def test_faults_reach_networks_too(world: SimWorld, networks: SimNetworkDriver) -> None:
    world.faults.fail_next("dial", TransientError("struck"), resource_id="vpc-00000001")
    world.faults.fail_next("remove_port", TransientError("struck"), resource_id="nic-00000001")
    networks.remove_port("net-00000001", "nic-other000")
    with pytest.raises(TransientError, match="struck"):
        networks.remove_port("net-00000001", "nic-00000001")
    with pytest.raises(TransientError, match="struck"):
        networks.dial("vpc-00000001", "10.0.0.10", 80, timeout_s=1)
    assert [port.nic_id for port in networks.ports("net-00000001")] == ["nic-00000001"]


def test_a_misspelt_operation_is_refused(world: SimWorld) -> None:
    with pytest.raises(ValueError, match="no such operation"):
        world.faults.fail_next("ensure_machines", TransientError("x"))
    with pytest.raises(ValueError, match="count"):
        world.faults.fail_next("ensure_machine", TransientError("x"), count=0)
