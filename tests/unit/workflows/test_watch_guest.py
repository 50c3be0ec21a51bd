"""A guest may go down between the last look of the job that started it and that job's last commit."""

from __future__ import annotations

import pytest

from iaas.drivers.interface import MachineState, PowerState
from iaas.drivers.sim.compute import SimComputeDriver
from iaas.resources.instances import InstanceStatus
from tests.factories import instance_row, open_cloud, operator, settle, wish


def test_a_row_follows_a_guest_that_went_down_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_cloud() as cloud:
        real_inspect = SimComputeDriver.inspect_machine
        crashed: list[str] = []

        def inspect(self: SimComputeDriver, machine_id: str) -> MachineState | None:
            state = real_inspect(self, machine_id)
            if state is not None and state.power is PowerState.RUNNING and not crashed:
                crashed.append(machine_id)
                self.crash_machine(machine_id)
            return state

        monkeypatch.setattr(SimComputeDriver, "inspect_machine", inspect)
        instance, _ = cloud.instances.create(operator(cloud), [wish(kind="container")])[0]
        settle(cloud)
        assert crashed == [instance.id]
        found = instance_row(cloud, instance.id)
        assert (found.status, found.transition) == (InstanceStatus.STOPPED, None)
        told = [event.type for event in cloud.events.list_after(operator(cloud), after=0, limit=100)]
        assert told[-2:] == ["instance.created", "instance.stopped"]
