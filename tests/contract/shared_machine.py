"""One machine for many tests: a real VM takes ten seconds to boot where the processor is emulated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from iaas.drivers.interface import ComputeCapability, ComputeDriver, ExecResult, MachineSpec, MachineState, PowerState
from tests.contract.subjects import ComputeSubject

EXEC_TIMEOUT_S = 20.0


class SharedMachine:
    """A machine that is brought into the state a test asks for, whatever the test before did to it."""

    def __init__(self, subject: ComputeSubject) -> None:
        self.subject = subject
        # Where that is a matter of choice, one that namespaces can be made in: its NICs are handed on to them.
        nesting = ComputeCapability.NESTING in subject.driver.capabilities
        self.spec: MachineSpec = subject.new_spec(nesting=nesting)

    @property
    def driver(self) -> ComputeDriver:
        return self.subject.driver

    @property
    def machine_id(self) -> str:
        return self.spec.machine_id

    def state(self) -> MachineState:
        """Return the machine's state; it must be there."""
        state = self.driver.inspect_machine(self.machine_id)
        assert state is not None, "the machine is gone"
        return state

    def bring_up(self) -> None:
        """Make it, start it and wait until its guest is ready, as far as that is needed."""
        if self.driver.inspect_machine(self.machine_id) is None:
            self.driver.ensure_machine(self.spec)
        if self.state().power is PowerState.STOPPING:
            self.wait_for_power(PowerState.STOPPED)
        self.driver.start_machine(self.machine_id)
        self.wait_until_ready()

    def bring_down(self) -> None:
        """Make it and cut its power, as far as that is needed."""
        if self.driver.inspect_machine(self.machine_id) is None:
            self.driver.ensure_machine(self.spec)
        self.driver.stop_machine(self.machine_id, force=True)
        self.wait_for_power(PowerState.STOPPED)

    def wait_for_power(self, power: PowerState) -> None:
        """Wait until the driver reports ``power``."""
        timeout_s = self.subject.stop_timeout_s if power is PowerState.STOPPED else self.subject.boot_timeout_s
        self.subject.wait_for(lambda: self.state().power is power, timeout_s, f"power {power.value}")

    def wait_until_ready(self) -> None:
        """Wait until the guest has answered."""
        self.wait_for_power(PowerState.RUNNING)
        self.subject.wait_for(
            lambda: self.driver.is_guest_ready(self.machine_id), self.subject.boot_timeout_s, "guest ready"
        )

    def run(self, *argv: str, stdin: bytes = b"", timeout_s: float = EXEC_TIMEOUT_S) -> ExecResult:
        """Run a command in the guest."""
        return self.driver.execute(self.machine_id, argv, timeout_s=timeout_s, stdin=stdin)

    def output_of(self, argv: Sequence[str]) -> str:
        """Return a command's standard output as text; it must end with exit code 0."""
        result = self.run(*argv)
        assert result.exit_code == 0, result
        return result.stdout.decode()

    def rebuild(self) -> MachineState:
        """Give the stopped machine a fresh root disk: the next generation."""
        self.spec = replace(self.spec, generation=self.spec.generation + 1)
        return self.driver.ensure_machine(self.spec)
