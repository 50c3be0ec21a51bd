"""One libvirt domain of ours: what it is, and the few things done to it."""

from __future__ import annotations

import libvirt

from iaas.drivers.interface import MachineKind, MachineState, PermanentError, PowerState
from iaas.drivers.libvirt.domain_config import DomainFacts, read_facts
from iaas.drivers.libvirt.errors import translated
from iaas.drivers.libvirt.interfaces import InterfaceFacts, read_interfaces
from iaas.kernel import ids

# Source: libvirt, enum virDomainState.
POWER: dict[int, PowerState] = {
    libvirt.VIR_DOMAIN_NOSTATE: PowerState.STARTING,
    libvirt.VIR_DOMAIN_RUNNING: PowerState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: PowerState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: PowerState.SUSPENDED,
    libvirt.VIR_DOMAIN_SHUTDOWN: PowerState.STOPPING,
    libvirt.VIR_DOMAIN_SHUTOFF: PowerState.STOPPED,
    libvirt.VIR_DOMAIN_CRASHED: PowerState.CRASHED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: PowerState.SUSPENDED,
}
# QEMU is made with its processors halted and let run a moment later; libvirt shows that as a pause.
STARTING_REASONS = frozenset({libvirt.VIR_DOMAIN_PAUSED_STARTING_UP, libvirt.VIR_DOMAIN_PAUSED_UNKNOWN})
UNDEFINE_FLAGS = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)


class Domain:
    """Wraps a ``virDomain``; every call raises NotFoundError when it was removed meanwhile."""

    def __init__(self, domain: libvirt.virDomain) -> None:
        self.handle = domain
        self.name: str = domain.name()

    def xml(self) -> str:
        """Return the XML it will have at its next start."""
        with translated("inspect the machine"):
            return str(self.handle.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))

    def interfaces(self) -> tuple[list[InterfaceFacts], list[InterfaceFacts] | None]:
        """Return the NICs it will have at its next start, and those it has now; None when it does not run."""
        return read_interfaces(self.xml()), self._live_interfaces()

    def _live_interfaces(self) -> list[InterfaceFacts] | None:
        with translated("inspect the machine"):
            return read_interfaces(str(self.handle.XMLDesc(0))) if self.handle.isActive() else None

    def power(self) -> PowerState:
        with translated("inspect the machine"):
            state, reason = self.handle.state()
        if state == libvirt.VIR_DOMAIN_PAUSED and reason in STARTING_REASONS:
            return PowerState.STARTING
        return POWER.get(state, PowerState.CRASHED)

    def run_number(self) -> int | None:
        """Return libvirt's number of the present run; None while it does not run."""
        with translated("inspect the machine"):
            number = int(self.handle.ID())
        return None if number == -1 else number

    def state(self, power: PowerState | None = None) -> MachineState | None:
        """Return the machine's state, None when the domain does not carry our mark.

        Args:
            power: shown instead of what libvirt says, for a passage that libvirt does not know of.
        """
        xml = self.xml()
        facts: DomainFacts | None = read_facts(xml)
        if facts is None:
            return None
        return MachineState(
            machine_id=facts.identity.machine_id,
            kind=MachineKind.VM,
            power=power or self.power(),
            vcpus=facts.vcpus,
            memory_mib=facts.memory_mib,
            generation=facts.identity.generation,
            host_id=facts.identity.host_id,
            nic_ids=_nic_ids([*read_interfaces(xml), *(self._live_interfaces() or ())]),
        )

    def need_state(self, power: PowerState | None = None) -> MachineState:
        """Return the machine's state.

        Raises:
            PermanentError: somebody else's domain has a name of ours.
        """
        state = self.state(power)
        if state is None:
            raise PermanentError("the machine's name is taken by a domain that is not ours")
        return state

    def start(self) -> None:
        """Let it run, from whatever state. Already running is success."""
        power = self.power()
        with translated("start the machine"):
            if power in {PowerState.STOPPED, PowerState.CRASHED}:
                self.handle.create()
            elif power is PowerState.SUSPENDED:
                self.handle.resume()

    def press_power_button(self) -> None:
        """Ask the guest to stop. No longer running is success."""
        self._unless_stopped("ask the machine to stop", libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)

    def cut_power(self) -> bool:
        """End it at once; return whether it ran."""
        return self._unless_stopped("cut the machine's power", None)

    def _unless_stopped(self, what: str, shutdown_flags: int | None) -> bool:
        with translated(what):
            try:
                if shutdown_flags is None:
                    self.handle.destroy()
                else:
                    self.handle.shutdownFlags(shutdown_flags)
            except libvirt.libvirtError as exc:
                if exc.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
                    raise
                return False  # it stopped before we asked
        return True

    def undefine(self) -> None:
        """Have libvirt forget it; it must not run."""
        with translated("remove the machine"):
            self.handle.undefineFlags(UNDEFINE_FLAGS)


def _nic_ids(interfaces: list[InterfaceFacts]) -> tuple[str, ...]:
    """Return the ids in the taps' names; a NIC that is both there now and at the next start is one."""
    taps = {each.tap: None for each in sorted(interfaces, key=lambda each: each.device_index)}
    return tuple(f"{ids.NIC}-{tap[-ids.SUFFIX_LENGTH :]}" for tap in taps)
