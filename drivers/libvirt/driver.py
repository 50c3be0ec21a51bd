"""VMs as the cloud asks for them, made of libvirt domains."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from weakref import WeakValueDictionary

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
    NICSpec,
    NotFoundError,
    PermanentError,
    PowerState,
    UnsupportedError,
)
from iaas.drivers.interface.compute import LifecycleListener
from iaas.drivers.interface.paging import chosen
from iaas.drivers.libvirt import console, nics
from iaas.drivers.libvirt.connection import Connection
from iaas.drivers.libvirt.disks import Base, DiskStore
from iaas.drivers.libvirt.domain import Domain
from iaas.drivers.libvirt.domain_config import (
    DomainConfig,
    Identity,
    VirtType,
    with_root_disk,
    with_shape,
)
from iaas.drivers.libvirt.errors import translated
from iaas.drivers.libvirt.guest_agent import GuestAgent
from iaas.drivers.libvirt.interfaces import InterfaceConfig, with_macs
from iaas.drivers.libvirt.probe import VirtTypeChoice, VirtTypeProbe
from iaas.drivers.linux import names
from iaas.kernel import ids


class LibvirtComputeDriver:
    """VMs of one deployment on one host; also takes their images in (``ComputeDriver`` and ``ImageImporter``).

    Args:
        uri: libvirt's URI.
        tag: the deployment's; machines without it are not seen.
        state_dir: an absolute folder for disks, logs and images, one per deployment, searchable by QEMU's user.
        bridge_name: the bridge of a subnet, by subnet id; the deployment's own names when None.
        virt_type: how processors run; see ADR 0005.
    """

    kind = MachineKind.VM
    capabilities = frozenset(
        {
            ComputeCapability.EXEC,
            ComputeCapability.CONSOLE,
            ComputeCapability.FILE_PUSH,
            ComputeCapability.GRACEFUL_STOP,
            ComputeCapability.NIC_HOTPLUG,
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
        self._bridge_name = bridge_name or (lambda subnet_id: names.bridge(self._tag, subnet_id))
        self._virt_type = VirtTypeChoice(virt_type)
        self._disks = DiskStore(state_dir)
        self._probe = VirtTypeProbe(state_dir)
        self._listeners: list[LifecycleListener] = []
        # A lock lives as long as somebody holds or awaits it.
        self._locks: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        self._locks_guard = threading.Lock()
        # (domain name, libvirt's number of this run): guests that were ready once in it.
        self._ready: set[tuple[str, int | None]] = set()
        self._stopping_by_us: set[str] = set()
        self._connection = Connection(uri, self._lifecycle_event)

    # --- finding ---

    def _name(self, machine_id: str) -> str:
        return names.machine(self._tag, machine_id)

    def _lock(self, machine_id: str) -> threading.Lock:
        """Return the machine's own lock: two calls about one machine wait, calls about others do not."""
        with self._locks_guard:
            return self._locks.setdefault(machine_id, threading.Lock())

    def _find(self, machine_id: str) -> Domain | None:
        connection = self._connection.get()
        try:
            with translated("look the machine up"):
                return Domain(connection.lookupByName(self._name(machine_id)))
        except NotFoundError:
            return None

    def _need(self, machine_id: str) -> Domain:
        domain = self._find(machine_id)
        if domain is None:
            raise NotFoundError(f"there is no machine {machine_id}")
        return domain

    def _define(self, xml: str) -> Domain:
        connection = self._connection.get()
        with translated("define the machine"):
            return Domain(connection.defineXML(xml))

    def check_available(self) -> None:
        with translated("reach libvirt"):
            self._connection.get().getLibVersion()

    def inspect_machine(self, machine_id: str) -> MachineState | None:
        domain = self._find(machine_id)
        return self._state_or_gone(domain) if domain is not None else None

    def inventory(
        self, *, only: Collection[str] | None = None, after: str = "", limit: int | None = None
    ) -> list[MachineState]:
        connection = self._connection.get()
        with translated("list machines"):
            domains = [Domain(handle) for handle in connection.listAllDomains()]
        ours = {
            f"{ids.INSTANCE}-{suffix}": each
            for each in domains
            if (suffix := names.machine_suffix(self._tag, each.name)) is not None
        }
        wanted = chosen(ours, only=only, after=after, limit=limit)
        return [state for each in wanted if (state := self._state_or_gone(ours[each])) is not None]

    def _state_or_gone(self, domain: Domain) -> MachineState | None:
        """Return the state; None for a domain that is not ours or was removed since it was found."""
        try:
            return domain.state()
        except NotFoundError:
            return None

    # --- making and changing ---

    def ensure_machine(self, spec: MachineSpec) -> MachineState:
        if spec.kind is not MachineKind.VM:
            raise PermanentError("this driver makes VMs only")
        if spec.nesting or spec.privileged:
            raise UnsupportedError("nesting and privileged are for container machines")
        nics.check_count(len(spec.nics))
        with self._lock(spec.machine_id):
            domain = self._find(spec.machine_id)
            if domain is None:
                return self._make(spec)
            state = domain.need_state()
            if state.generation < spec.generation:
                return self._rebuild(domain, state, spec)
            disk = self._disks.root_disk(domain.name, state.generation)
            if state.power is PowerState.STOPPED and not disk.exists():
                # libvirt obeyed and its answer was lost, so we had taken the disk back: begin again.
                return self._make(spec)
            return state

    def _make(self, spec: MachineSpec) -> MachineState:
        name = self._name(spec.machine_id)
        with ExitStack() as undo:
            # Also rids us of what a killed process left of an earlier attempt.
            self._disks.remove_machine(name)
            undo.callback(self._disks.remove_machine, name)
            base = self._make_root_disk(spec)
            config = DomainConfig(
                name=name,
                identity=_identity(spec),
                virt_type=self._decide_virt_type(),
                vcpus=spec.vcpus,
                memory_mib=spec.memory_mib,
                root_disk=self._disks.root_disk(name, spec.generation),
                boot=base.boot,
                console_log=self._disks.console_log(name),
                interfaces=tuple(map(self._interface, spec.nics)),
            )
            domain = self._define(config.to_xml())
            undo.pop_all()
        return domain.need_state()

    def _make_root_disk(self, spec: MachineSpec) -> Base:
        return self._disks.make_root_disk(
            self._name(spec.machine_id), spec.generation, image_id=spec.image_id, size_gib=spec.root_disk_gib
        )

    def _rebuild(self, domain: Domain, state: MachineState, spec: MachineSpec) -> MachineState:
        if state.power is not PowerState.STOPPED:
            raise PermanentError("the machine must be stopped to be rebuilt")
        with ExitStack() as undo:
            undo.callback(self._disks.keep_generation, domain.name, state.generation)
            base = self._make_root_disk(spec)
            xml = with_root_disk(
                domain.xml(),
                root_disk=self._disks.root_disk(domain.name, spec.generation),
                boot=base.boot,
                identity=_identity(spec),
            )
            domain = self._define(xml)  # the one step that decides: old disk or new
            undo.pop_all()
        self._disks.keep_generation(domain.name, spec.generation)
        return domain.need_state()

    def _decide_virt_type(self) -> VirtType:
        if self._virt_type is VirtTypeChoice.AUTO:
            return self._probe.decide(self._disks.any_kernel())
        return VirtType(self._virt_type)

    def resize_machine(self, machine_id: str, *, vcpus: int, memory_mib: int) -> MachineState:
        with self._lock(machine_id):
            domain = self._need(machine_id)
            state = domain.need_state()
            if state.power is not PowerState.STOPPED:
                raise PermanentError("the machine must be stopped to be resized")
            if (state.vcpus, state.memory_mib) == (vcpus, memory_mib):
                return state
            return self._define(with_shape(domain.xml(), vcpus=vcpus, memory_mib=memory_mib)).need_state()

    def set_macs(self, machine_id: str, macs: Mapping[str, str]) -> None:
        with self._lock(machine_id):
            domain = self._need(machine_id)
            if domain.need_state().power not in {PowerState.STOPPED, PowerState.CRASHED}:
                raise PermanentError("the machine must be stopped to be given other MACs")
            before = domain.xml()
            after = with_macs(before, {names.tap(self._tag, nic_id): mac for nic_id, mac in macs.items()})
            if after != before:
                self._define(after)

    # --- NICs ---

    def attach_nic(self, machine_id: str, nic: NICSpec) -> None:
        with self._lock(machine_id):
            nics.attach(self._need(machine_id), self._interface(nic))

    def detach_nic(self, machine_id: str, nic_id: str) -> None:
        tap = names.tap(self._tag, nic_id)

        def ask() -> bool:
            # The lock for each request only: whoever cuts the power need not wait for the guest.
            with self._lock(machine_id), suppress(NotFoundError):
                return nics.ask_to_detach(self._need(machine_id), tap)
            return False

        def is_gone() -> bool:
            with suppress(NotFoundError):
                return not nics.is_plugged(self._need(machine_id), tap)
            return True

        nics.detach(ask, is_gone)

    def replug_nic(self, machine_id: str, nic_id: str) -> bool:
        """Return False: when the namespace that a NIC was handed on to dies, the guest's kernel takes the NIC back."""
        return False

    def _interface(self, nic: NICSpec) -> InterfaceConfig:
        return InterfaceConfig(
            mac=nic.mac,
            bridge=self._bridge_name(nic.subnet_id),
            tap=names.tap(self._tag, nic.nic_id),
            device_index=nic.device_index,
            mtu=nic.mtu,
        )

    # --- power ---

    def start_machine(self, machine_id: str) -> MachineState:
        with self._lock(machine_id):
            domain = self._need(machine_id)
            console.shorten(self._disks.console_log(domain.name))
            # An event lost with a connection must not hide the end of this run.
            self._stopping_by_us.discard(domain.name)
            domain.start()
            return domain.need_state()

    def stop_machine(self, machine_id: str, *, force: bool) -> MachineState:
        domain = self._need(machine_id)
        state = domain.need_state()
        if state.power is PowerState.STOPPED:
            return state
        if force:
            with self._lock(machine_id):
                self._cut_power(domain)
                return domain.need_state()
        # No lock for the polite form: it is repeated while it has no effect, and never takes long.
        domain.press_power_button()
        power = domain.power()
        # libvirt does not know that the guest was asked; whoever asks must see that something is under way.
        return domain.need_state(PowerState.STOPPING if power is PowerState.RUNNING else power)

    def _cut_power(self, domain: Domain) -> None:
        # Before it is done: the event may come from its own thread while the call is still under way.
        self._stopping_by_us.add(domain.name)
        ran = False
        try:
            ran = domain.cut_power()
        finally:
            if not ran:
                self._stopping_by_us.discard(domain.name)

    def remove_machine(self, machine_id: str) -> None:
        with self._lock(machine_id):
            domain = self._find(machine_id)
            if domain is not None and self._state_or_gone(domain) is not None:
                with suppress(NotFoundError):  # removed by somebody else meanwhile
                    self._cut_power(domain)
                    domain.undefine()
            self._disks.remove_machine(self._name(machine_id))

    # --- the guest ---

    def is_guest_ready(self, machine_id: str) -> bool:
        domain = self._find(machine_id)
        if domain is None:
            return False
        try:
            run = (domain.name, domain.run_number())
            if domain.power() is not PowerState.RUNNING:
                return False
        except NotFoundError:
            return False
        if run not in self._ready:
            if not GuestAgent(domain.handle).is_ready():
                return False
            self._ready = {other for other in self._ready if other[0] != domain.name} | {run}
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
        if domain.power() is not PowerState.RUNNING:
            raise GuestUnavailableError("the machine does not run")
        return GuestAgent(domain.handle)

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


def _identity(spec: MachineSpec) -> Identity:
    return Identity(machine_id=spec.machine_id, generation=spec.generation, host_id=spec.host_id)
