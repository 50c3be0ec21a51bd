"""Container machines through LXD: the ComputeDriver and ImageImporter of kind ``container``."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

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
    TransientError,
)
from iaas.drivers.interface.compute import LifecycleListener
from iaas.drivers.interface.paging import chosen
from iaas.drivers.linux import names
from iaas.drivers.linux.container_links import ContainerLinks
from iaas.drivers.lxd import config, execute, nics
from iaas.drivers.lxd.connection import LXDConnection
from iaas.drivers.lxd.console import ConsoleLogs
from iaas.drivers.lxd.guest_files import file_exists, push_file
from iaas.drivers.lxd.images import LXDImages
from iaas.drivers.lxd.instances import Instance, LXDInstances
from iaas.drivers.lxd.lifecycle import LifecycleWatcher

# Pools that can bound a root disk; "dir" can on some file systems only.
QUOTA_POOLS = frozenset({"btrfs", "zfs", "lvm", "ceph", "powerflex", "linstor", "truenas"})


class LXDComputeDriver:
    """Container machines of one deployment on one LXD or Incus daemon.

    Args:
        endpoint: socket path, ``http+unix://`` or ``https://`` of the daemon.
        tag: the deployment's tag; what does not carry it is not ours.
        pool: LXD storage pool for root disks; it must be there.
        state_dir: where console logs are kept (``consoles/`` below it, made when needed).
        bridge_name: subnet id -> bridge that LXD shall plug NICs into; the deployment's own when absent.
        links: where LXD makes the host's ends of NICs; the deployment's own fabric when absent.
        cert: client certificate and key files, for https.
        verify: for https, True or the file with the daemon's certificate.
    """

    kind = MachineKind.CONTAINER
    capabilities = frozenset(ComputeCapability)

    def __init__(
        self,
        endpoint: str,
        *,
        tag: str,
        pool: str,
        state_dir: Path,
        bridge_name: Callable[[str], str] | None = None,
        links: ContainerLinks | None = None,
        cert: tuple[str, str] | None = None,
        verify: bool | str = True,
    ) -> None:
        self._tag = names.check_tag(tag)
        self._pool = pool
        self._bridge_name = bridge_name or functools.partial(names.bridge, tag)
        self._links = links or ContainerLinks(names.fabric_namespace(tag))
        self._connection = LXDConnection(endpoint, cert=cert, verify=verify)
        self._instances = LXDInstances(self._connection, tag=tag)
        self._images = LXDImages(self._connection, tag=tag)
        self._consoles = ConsoleLogs(state_dir / "consoles", self._connection)
        self._watcher = LifecycleWatcher(self._connection, look=self._look, look_at_all=self._look_at_all)
        self._has_quota: bool | None = None  # asked of the pool at the first machine
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def check_available(self) -> None:
        """See ``ComputeDriver.check_available``.

        Raises:
            PermanentError: it answers, and lacks the storage pool.
        """
        self._pool_driver()

    # Making, changing, removing

    def ensure_machine(self, spec: MachineSpec) -> MachineState:
        """See ``ComputeDriver.ensure_machine``; what a killed call left half made is mended here."""
        if spec.kind is not MachineKind.CONTAINER:
            raise PermanentError("LXD makes container machines only")
        config.check_hostname(spec.hostname)
        name = self._name(spec.machine_id)
        with self._locks[name]:
            current = self._instances.settle(name)
            if current is not None and _check_kept(spec, current):
                return self._observed(name, current)
            if not self._images.is_there(spec.image_id):
                raise NotFoundError(f"image {spec.image_id} is not on this host")
            if current is None:
                return config.machine_state(self._instances.create(self._request(spec, name)))
            self._instances.create(self._request(spec, config.spare_name(name)))
            return config.machine_state(self._instances.replace(name))

    def resize_machine(self, machine_id: str, *, vcpus: int, memory_mib: int) -> MachineState:
        """See ``ComputeDriver.resize_machine``."""
        name = self._name(machine_id)
        with self._locks[name]:
            if config.machine_state(self._instances.require(name)).power is not PowerState.STOPPED:
                raise PermanentError("only a stopped machine can be resized")
            shape = config.shape_config(vcpus=vcpus, memory_mib=memory_mib)
            self._instances.configure(name, shape, action="resize the machine")
            return self._state(name)

    def set_macs(self, machine_id: str, macs: Mapping[str, str]) -> None:
        """See ``ComputeDriver.set_macs``."""
        name = self._name(machine_id)
        with self._locks[name]:
            instance = self._instances.require(name)
            if config.machine_state(instance).power not in {PowerState.STOPPED, PowerState.CRASHED}:
                raise PermanentError("only a stopped machine can be given other MACs")
            links = {names.container_veth(self._tag, nic_id): mac for nic_id, mac in macs.items()}
            devices = nics.devices_with_macs(instance, links)
            if devices:
                self._instances.set_devices(name, devices, action="give the machine other MACs")

    def attach_nic(self, machine_id: str, nic: NICSpec) -> None:
        """See ``ComputeDriver.attach_nic``."""
        name = self._name(machine_id)
        device_name, device = nics.nic_device(nic, tag=self._tag, bridge_name=self._bridge_name)
        with self._locks[name]:
            present = self._instances.require(name)["devices"]
            added = nics.device_to_add(present, device_name, device)
            if added:
                self._links.delete_dead([device["host_name"]])
                self._instances.set_devices(name, added, action="attach the NIC")

    def detach_nic(self, machine_id: str, nic_id: str) -> None:
        """See ``ComputeDriver.detach_nic``; wherever in the machine the link is, it goes."""
        name, link = self._name(machine_id), names.container_veth(self._tag, nic_id)
        with self._locks[name], contextlib.suppress(NotFoundError):
            device_name = nics.present_nics(self._instances.require(name)["devices"]).get(link)
            if device_name is not None:
                self._instances.drop_device(name, device_name, action="detach the NIC")

    def replug_nic(self, machine_id: str, nic_id: str) -> bool:
        """See ``ComputeDriver.replug_nic``; the new link has the same MAC and name."""
        name, link = self._name(machine_id), names.container_veth(self._tag, nic_id)
        with self._locks[name]:
            instance = self._instances.find(name)
            if instance is None or config.machine_state(instance).power is not PowerState.RUNNING:
                return False
            device_name = nics.present_nics(instance["devices"]).get(link)
            if device_name is None or self._links.is_there(link):
                return False
            changed = {device_name: nics.replugged(instance["devices"][device_name])}
            self._instances.set_devices(name, changed, action="plug the NIC again")
            return True

    def remove_machine(self, machine_id: str) -> None:
        """See ``ComputeDriver.remove_machine``."""
        name = self._name(machine_id)
        with self._locks[name]:
            with self._watcher.changing(name, PowerState.STOPPED):
                self._instances.remove(name)
            self._consoles.forget(name)
            self._watcher.forget(name)

    # Power

    def start_machine(self, machine_id: str) -> MachineState:
        """See ``ComputeDriver.start_machine``; the guest's init runs when this returns.

        Raises:
            TransientError: the guest was asked to stop and has not yet.
        """
        name = self._name(machine_id)
        with self._locks[name]:
            instance = self._instances.require(name)
            state = self._observed(name, instance)
            if state.power is PowerState.RUNNING:
                return state
            if state.power is PowerState.STOPPING:
                raise TransientError("the machine is still stopping")
            is_suspended = state.power is PowerState.SUSPENDED
            if not is_suspended:
                with contextlib.suppress(TransientError):  # an old log lost is no reason not to start
                    self._consoles.collect(name, is_running=False)
                self._links.delete_dead(nics.present_nics(instance["devices"]).keys())
            with self._watcher.changing(name, PowerState.RUNNING):
                self._instances.start(name, is_suspended=is_suspended)
            return self._state(name)

    def stop_machine(self, machine_id: str, *, force: bool) -> MachineState:
        """See ``ComputeDriver.stop_machine``.

        A graceful stop returns STOPPING: LXD has told the guest's init to halt. The machine says so until it
        has, or RUNNING again when there was no reaction in fifteen minutes.
        """
        name = self._name(machine_id)
        with self._locks[name]:
            state = config.machine_state(self._instances.require(name))
            if state.power is PowerState.STOPPED:
                return state
            with self._watcher.changing(name, PowerState.STOPPED):
                if force:
                    self._instances.cut_power(name)
                else:
                    self._instances.begin_stop(name)
            return self._state(name)

    def on_lifecycle(self, listener: LifecycleListener) -> None:
        """See ``ComputeDriver.on_lifecycle``; the first listener opens the event stream."""
        self._watcher.listen(listener)

    # Looking

    def inspect_machine(self, machine_id: str) -> MachineState | None:
        """See ``ComputeDriver.inspect_machine``."""
        return self._look(self._name(machine_id))

    def inventory(
        self, *, only: Collection[str] | None = None, after: str = "", limit: int | None = None
    ) -> list[MachineState]:
        """See ``ComputeDriver.inventory``; half-made machines are among them."""
        states = {state.machine_id: state for state in self._look_at_all().values()}
        return [states[each] for each in chosen(states, only=only, after=after, limit=limit)]

    # The guest

    def is_guest_ready(self, machine_id: str) -> bool:
        """See ``ComputeDriver.is_guest_ready``.

        An image with the property ``iaas.ready_file`` says so itself, by that file; of other images
        we only see that a NIC has got its IPv4 address.
        """
        name = self._name(machine_id)
        instance = self._instances.find(name)
        if instance is None or config.machine_state(instance).power is not PowerState.RUNNING:
            return False
        ready_file = instance["config"].get(config.KEY_READY_FILE)
        if ready_file:
            return file_exists(self._connection, name, str(ready_file))
        seen = self._connection.find(f"instances/{name}/state", action="look at the guest")
        return seen is not None and _has_global_address(seen)

    def read_console(self, machine_id: str, *, tail_bytes: int) -> bytes:
        """See ``ComputeDriver.read_console``; the log goes on over restarts, its last MiB is kept."""
        name = self._name(machine_id)
        state = config.machine_state(self._instances.require(name))
        return self._consoles.read(name, is_running=state.power is not PowerState.STOPPED, tail_bytes=tail_bytes)

    def execute(self, machine_id: str, argv: Sequence[str], *, timeout_s: float, stdin: bytes = b"") -> ExecResult:
        """See ``ComputeDriver.execute``."""
        name = self._name(machine_id)
        if config.machine_state(self._instances.require(name)).power is not PowerState.RUNNING:
            raise GuestUnavailableError("the machine is not running")
        return execute.execute(self._connection, name, argv, timeout_s=timeout_s, stdin=stdin)

    def push_file(self, machine_id: str, file: GuestFile) -> None:
        """See ``ComputeDriver.push_file``: running or stopped, owned by root; missing folders are made."""
        name = self._name(machine_id)
        self._instances.require(name)
        if not PurePosixPath(file.path).is_absolute():
            raise PermanentError(f"{file.path!r} is not an absolute path")
        push_file(self._connection, name, file)

    # Images

    def import_image(self, image_id: str, artefact: ImageArtefact) -> None:
        """See ``ImageImporter.import_image``."""
        self._images.import_image(image_id, artefact)

    def remove_image(self, image_id: str) -> None:
        """See ``ImageImporter.remove_image``."""
        self._images.remove_image(image_id)

    def imported_images(self) -> list[str]:
        """See ``ImageImporter.imported_images``."""
        return self._images.imported_images()

    def close(self) -> None:
        """See ``ComputeDriver.close``. A guest asked to stop goes on stopping."""
        self._instances.close()
        self._watcher.close()
        self._connection.close()

    # Inner

    def _name(self, machine_id: str) -> str:
        return names.machine(self._tag, machine_id)

    def _request(self, spec: MachineSpec, instance_name: str) -> dict[str, Any]:
        if self._has_quota is None:
            self._has_quota = self._pool_driver() in QUOTA_POOLS
        return config.instance_request(
            spec,
            tag=self._tag,
            instance_name=instance_name,
            image_alias=self._images.alias(spec.image_id),
            pool=self._pool,
            has_quota=self._has_quota,
            bridge_name=self._bridge_name,
        )

    def _pool_driver(self) -> str:
        pool = self._connection.find(f"storage-pools/{self._pool}", action="look at the storage pool")
        if pool is None:
            raise PermanentError(f"LXD has no storage pool {self._pool!r}")
        return str(pool["driver"])

    def _look(self, name: str) -> MachineState | None:
        instance = self._instances.find(name)
        return None if instance is None else self._observed(name, instance)

    def _look_at_all(self) -> dict[str, MachineState]:
        return {name: self._observed(name, instance) for name, instance in self._instances.find_all().items()}

    def _state(self, name: str) -> MachineState:
        return self._observed(name, self._instances.require(name))

    def _observed(self, name: str, instance: Instance) -> MachineState:
        state = config.machine_state(instance)
        if state.power is PowerState.STOPPED:
            self._instances.forget_stop(name)
        elif state.power is PowerState.RUNNING and self._instances.was_asked_to_stop(name):
            if self._instances.is_stopping(name):
                return config.machine_state(instance, is_stopping=True)
            # The waiting ended after ``instance`` was read: by the guest's stop, or because it never obeyed.
            state = config.machine_state(self._instances.find(name) or instance)
            if state.power is PowerState.RUNNING:
                self._watcher.forget(name)  # what it does from now on is its own doing
        return state


def _check_kept(spec: MachineSpec, current: Instance) -> bool:
    """Return whether ``current`` is what ``spec`` wants, False when its root disk must be replaced.

    Raises:
        PermanentError: it is another kind, newer than wanted, or not stopped.
    """
    state = config.machine_state(current)
    if state.kind is not MachineKind.CONTAINER:
        raise PermanentError("a machine with this id is there and is a virtual machine")
    if state.generation == spec.generation:
        return True
    if state.generation > spec.generation:
        raise PermanentError(f"the machine has root disk {state.generation} already, newer than {spec.generation}")
    if state.power is not PowerState.STOPPED:
        raise PermanentError("only a stopped machine can be rebuilt")
    return False


def _has_global_address(seen: Mapping[str, Any]) -> bool:
    interfaces = (seen.get("network") or {}).values()
    addresses = (address for interface in interfaces for address in interface.get("addresses") or ())
    return any(address["family"] == "inet" and address["scope"] == "global" for address in addresses)
