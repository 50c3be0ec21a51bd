"""VMs as the cloud asks for them, made of libvirt domains."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import libvirt

from iaas.drivers.interface import (
    ComputeCapability,
    ExecResult,
    GuestFile,
    GuestUnavailableError,
    ImageArtefact,
    MachineKind,
    MachineSpec,
    MachineState,
    NotFoundError,
    PermanentError,
    PowerState,
    UnsupportedError,
)
from iaas.drivers.interface.compute import LifecycleListener
from iaas.drivers.libvirt import console
from iaas.drivers.libvirt.connection import Connection
from iaas.drivers.libvirt.disks import Base, DiskStore
from iaas.drivers.libvirt.domain_config import (
    DomainConfig,
    DomainFacts,
    Identity,
    InterfaceConfig,
    VirtType,
    read_facts,
    with_root_disk,
    with_shape,
)
from iaas.drivers.libvirt.errors import translated
from iaas.drivers.libvirt.guest_agent import GuestAgent
from iaas.drivers.libvirt.probe import VirtTypeChoice, VirtTypeProbe
from iaas.drivers.linux import names
from iaas.kernel import ids

logger = logging.getLogger(__name__)

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


class LibvirtComputeDriver:
    """VMs of one deployment on one host; also takes their images in (``ComputeDriver`` and ``ImageImporter``).

    Args:
        uri: libvirt's URI.
        tag: the deployment's; machines without it are not seen.
        state_dir: an absolute folder for disks, logs and images, one per deployment, searchable by QEMU's user.
        bridge_name: the bridge of a network, by network id; the deployment's own names when None.
        virt_type: how processors run; see ADR 0005.
    """

    kind = MachineKind.VM
    capabilities = frozenset(
        {
            ComputeCapability.EXEC,
            ComputeCapability.CONSOLE,
            ComputeCapability.FILE_PUSH,
            ComputeCapability.GRACEFUL_STOP,
        }
    )

    def __init__(
        self,
        uri: str,
        tag: str,
        state_dir: Path,
        bridge_name: Callable[[str], str] | None = None,
        virt_type: VirtTypeChoice | str = VirtTypeChoice.QEMU,
    ) -> None:
        self._tag = names.check_tag(tag)
        self._bridge_name = bridge_name or (lambda network_id: names.bridge(self._tag, network_id))
        self._virt_type = VirtTypeChoice(virt_type)
        self._disks = DiskStore(state_dir)
        self._probe = VirtTypeProbe(state_dir)
        self._listeners: list[LifecycleListener] = []
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._locks_guard = threading.Lock()
        # (domain name, libvirt's number of this run): guests that were ready once in it.
        self._ready: set[tuple[str, int]] = set()
        self._stopping_by_us: set[str] = set()
        self._connection = Connection(uri, self._lifecycle_event)

    # --- finding ---

    def _name(self, machine_id: str) -> str:
        return names.machine(self._tag, machine_id)

    def _lock(self, machine_id: str) -> threading.Lock:
        """Return the machine's own lock: two calls about one machine wait, calls about others do not."""
        with self._locks_guard:
            return self._locks[machine_id]

    def _find(self, machine_id: str) -> libvirt.virDomain | None:
        connection = self._connection.get()
        try:
            with translated("look the machine up"):
                return connection.lookupByName(self._name(machine_id))
        except NotFoundError:
            return None

    def _need(self, machine_id: str) -> libvirt.virDomain:
        domain = self._find(machine_id)
        if domain is None:
            raise NotFoundError(f"there is no machine {machine_id}")
        return domain

    def _power(self, domain: libvirt.virDomain) -> PowerState:
        state, reason = domain.state()
        if state == libvirt.VIR_DOMAIN_PAUSED and reason in STARTING_REASONS:
            return PowerState.STARTING
        return POWER.get(state, PowerState.CRASHED)

    def _facts(self, domain: libvirt.virDomain) -> DomainFacts | None:
        return read_facts(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))

    def _state(self, domain: libvirt.virDomain) -> MachineState | None:
        """Return the machine's state; None when the domain is not of our making after all."""
        with translated("inspect the machine"):
            facts = self._facts(domain)
            if facts is None:
                return None
            return MachineState(
                machine_id=facts.identity.machine_id,
                kind=MachineKind.VM,
                power=self._power(domain),
                vcpus=facts.vcpus,
                memory_mib=facts.memory_mib,
                generation=facts.identity.generation,
            )

    def _need_state(self, domain: libvirt.virDomain, machine_id: str) -> MachineState:
        state = self._state(domain)
        if state is None:
            raise PermanentError(f"the name of machine {machine_id} is taken by a domain that is not ours")
        return state

    def check_available(self) -> None:
        with translated("reach libvirt"):
            self._connection.get().getLibVersion()

    def inspect_machine(self, machine_id: str) -> MachineState | None:
        domain = self._find(machine_id)
        if domain is None:
            return None
        try:
            return self._state(domain)
        except NotFoundError:  # removed between the two looks
            return None

    def inventory(self) -> list[MachineState]:
        connection = self._connection.get()
        with translated("list machines"):
            domains = connection.listAllDomains()
            ours = [domain for domain in domains if names.machine_suffix(self._tag, domain.name()) is not None]
        found = []
        for domain in ours:
            try:
                state = self._state(domain)
            except NotFoundError:  # removed since it was listed
                continue
            if state is not None:
                found.append(state)
        return found

    # --- making and changing ---

    def ensure_machine(self, spec: MachineSpec) -> MachineState:
        if spec.kind is not MachineKind.VM:
            raise PermanentError("this driver makes VMs only")
        if spec.nesting or spec.privileged:
            raise UnsupportedError("nesting and privileged are for container machines")
        with self._lock(spec.machine_id):
            domain = self._find(spec.machine_id)
            if domain is None:
                return self._make(spec)
            state = self._need_state(domain, spec.machine_id)
            if state.generation >= spec.generation:
                return state
            return self._rebuild(domain, state, spec)

    def _make(self, spec: MachineSpec) -> MachineState:
        name = self._name(spec.machine_id)
        with ExitStack() as undo:
            # Also rids us of what a killed process left of an earlier attempt.
            self._disks.remove_machine(name)
            undo.callback(self._disks.remove_machine, name)
            base = self._make_root_disk(spec)
            config = DomainConfig(
                name=name,
                identity=Identity(machine_id=spec.machine_id, generation=spec.generation),
                virt_type=self._decide_virt_type(),
                vcpus=spec.vcpus,
                memory_mib=spec.memory_mib,
                root_disk=self._disks.root_disk(name, spec.generation),
                boot=base.boot,
                console_log=self._disks.console_log(name),
                interfaces=tuple(
                    InterfaceConfig(
                        mac=nic.mac,
                        bridge=self._bridge_name(nic.network_id),
                        tap=names.tap(self._tag, nic.nic_id),
                    )
                    for nic in sorted(spec.nics, key=lambda nic: nic.device_index)
                ),
            )
            connection = self._connection.get()
            with translated("define the machine"):
                domain = connection.defineXML(config.to_xml())
            undo.pop_all()
        return self._need_state(domain, spec.machine_id)

    def _make_root_disk(self, spec: MachineSpec) -> Base:
        return self._disks.make_root_disk(
            self._name(spec.machine_id), spec.generation, image_id=spec.image_id, size_gib=spec.root_disk_gib
        )

    def _rebuild(self, domain: libvirt.virDomain, state: MachineState, spec: MachineSpec) -> MachineState:
        if state.power is not PowerState.STOPPED:
            raise PermanentError("the machine must be stopped to be rebuilt")
        name = self._name(spec.machine_id)
        with ExitStack() as undo:
            undo.callback(self._disks.keep_generation, name, state.generation)
            base = self._make_root_disk(spec)
            identity = Identity(machine_id=spec.machine_id, generation=spec.generation)
            with translated("give the machine its new disk"):
                xml = with_root_disk(
                    domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE),
                    root_disk=self._disks.root_disk(name, spec.generation),
                    boot=base.boot,
                    identity=identity,
                )
                domain = self._connection.get().defineXML(xml)  # the one step that decides: old disk or new
            undo.pop_all()
        self._disks.keep_generation(name, spec.generation)
        return self._need_state(domain, spec.machine_id)

    def _decide_virt_type(self) -> VirtType:
        if self._virt_type is VirtTypeChoice.AUTO:
            return self._probe.decide(self._disks.any_kernel())
        return VirtType(self._virt_type)

    def resize_machine(self, machine_id: str, *, vcpus: int, memory_mib: int) -> MachineState:
        with self._lock(machine_id):
            domain = self._need(machine_id)
            state = self._need_state(domain, machine_id)
            if state.power is not PowerState.STOPPED:
                raise PermanentError("the machine must be stopped to be resized")
            if (state.vcpus, state.memory_mib) == (vcpus, memory_mib):
                return state
            with translated("resize the machine"):
                xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
                domain = self._connection.get().defineXML(with_shape(xml, vcpus=vcpus, memory_mib=memory_mib))
            return self._need_state(domain, machine_id)

    # --- power ---

    def start_machine(self, machine_id: str) -> MachineState:
        with self._lock(machine_id):
            domain = self._need(machine_id)
            console.shorten(self._disks.console_log(self._name(machine_id)))
            with translated("start the machine"):
                if self._power(domain) in {PowerState.STOPPED, PowerState.CRASHED}:
                    domain.create()
                elif self._power(domain) is PowerState.SUSPENDED:
                    domain.resume()
            return self._need_state(domain, machine_id)

    def stop_machine(self, machine_id: str, *, force: bool) -> MachineState:
        # No lock for the polite form: it is repeated while it has no effect, and never takes long.
        domain = self._need(machine_id)
        state = self._need_state(domain, machine_id)
        if state.power is PowerState.STOPPED:
            return state
        if force:
            with self._lock(machine_id):
                self._cut_power(domain)
            return self._need_state(domain, machine_id)
        try:
            with translated("ask the machine to stop"):
                domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
        finally:
            state = self._need_state(domain, machine_id)
        if state.power is PowerState.RUNNING:
            return MachineState(
                machine_id=machine_id,
                kind=MachineKind.VM,
                power=PowerState.STOPPING,
                vcpus=state.vcpus,
                memory_mib=state.memory_mib,
                generation=state.generation,
            )
        return state

    def _cut_power(self, domain: libvirt.virDomain) -> None:
        """Destroy the domain unless it does not run (any more)."""
        with translated("cut the machine's power"):
            name = domain.name()
            self._stopping_by_us.add(name)
            try:
                domain.destroy()
            except libvirt.libvirtError as exc:
                self._stopping_by_us.discard(name)
                if exc.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
                    raise

    def remove_machine(self, machine_id: str) -> None:
        with self._lock(machine_id):
            domain = self._find(machine_id)
            if domain is not None and self._state_or_gone(domain) is not None:
                self._cut_power(domain)
                try:
                    with translated("remove the machine"):
                        domain.undefineFlags(UNDEFINE_FLAGS)
                except NotFoundError:
                    logger.info("machine %s was removed by somebody else", machine_id)
            self._disks.remove_machine(self._name(machine_id))
        with self._locks_guard:
            self._locks.pop(machine_id, None)

    def _state_or_gone(self, domain: libvirt.virDomain) -> MachineState | None:
        try:
            return self._state(domain)
        except NotFoundError:
            return None

    # --- the guest ---

    def is_guest_ready(self, machine_id: str) -> bool:
        domain = self._find(machine_id)
        if domain is None:
            return False
        with translated("look at the machine"):
            run = (self._name(machine_id), domain.ID())  # -1 when it does not run
            if run[1] == -1 or self._power(domain) is not PowerState.RUNNING:
                return False
        if run not in self._ready:
            if not GuestAgent(domain).is_ready():
                return False
            self._ready = {other for other in self._ready if other[0] != run[0]} | {run}
        return True

    def read_console(self, machine_id: str, *, tail_bytes: int) -> bytes:
        self._need(machine_id)
        path = self._disks.console_log(self._name(machine_id))
        console.shorten(path)
        return console.read_tail(path, tail_bytes)

    def execute(self, machine_id: str, argv: Sequence[str], *, timeout_s: float, stdin: bytes = b"") -> ExecResult:
        return self._agent(machine_id).execute(argv, timeout_s=timeout_s, stdin=stdin)

    def push_file(self, machine_id: str, file: GuestFile) -> None:
        """Write one file into the running guest.

        Raises:
            GuestUnavailableError: the machine does not run, or its agent does not answer.
        """
        self._agent(machine_id).write_file(file)

    def _agent(self, machine_id: str) -> GuestAgent:
        domain = self._need(machine_id)
        with translated("look at the machine"):
            if self._power(domain) is not PowerState.RUNNING:
                raise GuestUnavailableError("the machine does not run")
        return GuestAgent(domain)

    # --- events ---

    def on_lifecycle(self, listener: LifecycleListener) -> None:
        self._listeners.append(listener)

    def _lifecycle_event(self, name: str, event: int, _: int) -> None:
        suffix = names.machine_suffix(self._tag, name)
        if suffix is None or event not in {libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_CRASHED}:
            return
        if event == libvirt.VIR_DOMAIN_EVENT_STOPPED and name in self._stopping_by_us:
            self._stopping_by_us.discard(name)
            return
        for listener in list(self._listeners):
            listener(f"{ids.INSTANCE}-{suffix}", PowerState.STOPPED)

    # --- images ---

    def import_image(self, image_id: str, artefact: ImageArtefact) -> None:
        self._disks.import_image(image_id, artefact)

    def remove_image(self, image_id: str) -> None:
        self._disks.remove_image(image_id)

    def imported_images(self) -> list[str]:
        return self._disks.images()

    def close(self) -> None:
        self._connection.close()
