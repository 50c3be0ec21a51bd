"""Simulated machines of one kind."""

from __future__ import annotations

import posixpath
import sqlite3
from collections.abc import Collection, Mapping, Sequence

from iaas.drivers.interface import (
    ComputeCapability,
    ExecResult,
    GuestFile,
    GuestUnavailableError,
    MachineKind,
    MachineSpec,
    MachineState,
    NICSpec,
    NoCapacityError,
    NotFoundError,
    PermanentError,
    PowerState,
    TransientError,
    UnsupportedError,
)
from iaas.drivers.interface.compute import NICS_PER_MACHINE, LifecycleListener
from iaas.drivers.sim import console, nics, passages
from iaas.drivers.sim.guest import Guest
from iaas.drivers.sim.guest_facts import read_facts
from iaas.drivers.sim.guest_files import GuestFileError
from iaas.drivers.sim.latency import Delay
from iaas.drivers.sim.machines import (
    COLUMNS,
    Machine,
    delete_machine,
    find_machine,
    insert_machine,
    rebuild_machine,
)
from iaas.drivers.sim.world import SimWorld, page_of

_COMMON = frozenset(
    {
        ComputeCapability.EXEC,
        ComputeCapability.CONSOLE,
        ComputeCapability.FILE_PUSH,
        ComputeCapability.GRACEFUL_STOP,
        ComputeCapability.NIC_HOTPLUG,
    }
)
CAPABILITIES = {
    MachineKind.VM: _COMMON,
    MachineKind.CONTAINER: _COMMON | {ComputeCapability.PRIVILEGED, ComputeCapability.NESTING},
}


class SimComputeDriver:
    """Machines of one kind in a simulated world. Implements ComputeDriver.

    ``next_change_at`` of a state is when its passage ends; for a running machine whose guest still boots it
    is when the guest will be ready.
    """

    def __init__(self, kind: MachineKind, world: SimWorld) -> None:
        self.kind = kind
        self.capabilities = CAPABILITIES[kind]
        self.world = world
        self._listeners: list[LifecycleListener] = []

    def check_available(self) -> None:
        """Return while the world is open.

        Raises:
            BackendDownError: it was closed (or a fault says so).
        """
        with self.world.read("check_available"):
            pass

    def ensure_machine(self, spec: MachineSpec) -> MachineState:
        """Make the machine, stopped; or give it the disk of a newer generation; or return what is there.

        Raises:
            NotFoundError: the image is not in this world.
            PermanentError: the id belongs to a machine of another kind, or a rebuild meets one that is not stopped.
            NoCapacityError: more NICs than NICS_PER_MACHINE.
            UnsupportedError: nesting or privileged for a kind without it.
        """
        if spec.kind is not self.kind:
            raise PermanentError(f"this driver makes machines of kind {self.kind.value}, not {spec.kind.value}")
        for flag, capability in (
            (spec.nesting, ComputeCapability.NESTING),
            (spec.privileged, ComputeCapability.PRIVILEGED),
        ):
            if flag and capability not in self.capabilities:
                raise UnsupportedError(f"machines of kind {self.kind.value} cannot be {capability.value}")
        with self.world.write("ensure_machine", spec.machine_id) as connection:
            now_us = self.world.now_us()
            present = find_machine(connection, spec.machine_id)
            if present is None:
                if len(spec.nics) > NICS_PER_MACHINE:
                    raise NoCapacityError(
                        f"machine {spec.machine_id} has no room for more than {NICS_PER_MACHINE} NICs"
                    )
                self._check_image(connection, spec.image_id)
                made_us = now_us + self._delay_us(Delay.CREATE, spec.machine_id)
                insert_machine(connection, spec, busy_until_us=made_us)
            elif present.kind != self.kind.value:
                raise PermanentError(f"machine {spec.machine_id} exists as {present.kind}")
            elif spec.generation > present.generation:
                if present.power(now_us) not in {PowerState.STOPPED, PowerState.CRASHED}:
                    raise PermanentError(f"machine {spec.machine_id} must be stopped to be rebuilt")
                self._check_image(connection, spec.image_id)
                made_us = now_us + self._delay_us(Delay.REBUILD, spec.machine_id)
                rebuild_machine(connection, spec, busy_until_us=made_us)
            else:
                return present.state(now_us)
            return self._get(connection, spec.machine_id).state(now_us)

    def resize_machine(self, machine_id: str, *, vcpus: int, memory_mib: int) -> MachineState:
        """Change the shape of a stopped machine.

        Raises:
            NotFoundError: there is no such machine.
            PermanentError: it is not stopped.
        """
        with self.world.write("resize_machine", machine_id) as connection:
            now_us = self.world.now_us()
            machine = self._get(connection, machine_id)
            if machine.power(now_us) not in {PowerState.STOPPED, PowerState.CRASHED}:
                raise PermanentError(f"machine {machine_id} must be stopped to be resized")
            if (machine.vcpus, machine.memory_mib) != (vcpus, memory_mib):
                connection.execute(
                    "UPDATE machines SET vcpus = ?, memory_mib = ?, busy_until_us = max(busy_until_us, ?)"
                    " WHERE machine_id = ?",
                    (vcpus, memory_mib, now_us + self._delay_us(Delay.RESIZE, machine_id), machine_id),
                )
            return self._get(connection, machine_id).state(now_us)

    def set_macs(self, machine_id: str, macs: Mapping[str, str]) -> None:
        """Give NICs of a stopped machine these MACs.

        Raises:
            NotFoundError: there is no such machine.
            PermanentError: it is not stopped, or has no such NIC.
        """
        with self.world.write("set_macs", machine_id) as connection:
            machine = self._get(connection, machine_id)
            if machine.power(self.world.now_us()) not in {PowerState.STOPPED, PowerState.CRASHED}:
                raise PermanentError(f"machine {machine_id} must be stopped to be given other MACs")
            for nic_id, mac in macs.items():
                changed = connection.execute(
                    "UPDATE nics SET mac = ? WHERE machine_id = ? AND nic_id = ?", (mac, machine_id, nic_id)
                )
                if not changed.rowcount:
                    raise PermanentError(f"machine {machine_id} has no NIC {nic_id}")

    def attach_nic(self, machine_id: str, nic: NICSpec) -> None:
        """Give the machine one more NIC; a running guest has brought it up ``nic_up_s`` later.

        Raises:
            NotFoundError: there is no such machine.
            PermanentError: another NIC has the device index, or the NIC is plugged in elsewhere.
            NoCapacityError: the machine has NICS_PER_MACHINE of them.
        """
        with self.world.write("attach_nic", machine_id) as connection:
            nics.attach(self.world, connection, self._get(connection, machine_id), nic, self.world.now_us())

    def detach_nic(self, machine_id: str, nic_id: str) -> None:
        """Take a NIC away. The machine does not have it, or is absent: success.

        Raises:
            TransientError: the guest has not let go of it yet, as it needs ``nic_gone_s``, or (a VM's) boots.
        """
        with self.world.write("detach_nic", machine_id) as connection:
            machine = self._find(connection, machine_id)
            gone = machine is None or nics.detach(self.world, connection, machine, nic_id, self.world.now_us())
        if not gone:  # after the commit: that the guest was asked must stay known
            raise TransientError(f"the guest of machine {machine_id} has not let go of NIC {nic_id} yet")

    def replug_nic(self, machine_id: str, nic_id: str) -> bool:
        """Plug a NIC again whose link died with a namespace of the guest; False when it is fine or none of it."""
        with self.world.write("replug_nic", machine_id) as connection:
            machine = self._find(connection, machine_id)
            if machine is None:
                return False
            return nics.replug(self.world, connection, machine, nic_id, self.world.now_us())

    def start_machine(self, machine_id: str) -> MachineState:
        """Start the machine; it is STARTING until ``next_change_at``. Running or starting already is success.

        Raises:
            NotFoundError: there is no such machine.
            TransientError: it is still stopping.
        """
        with self.world.write("start_machine", machine_id) as connection:
            now_us = self.world.now_us()
            machine = self._get(connection, machine_id)
            power = machine.power(now_us)
            if power in {PowerState.RUNNING, PowerState.STARTING}:
                return machine.state(now_us)
            if power is PowerState.STOPPING:
                raise TransientError(f"machine {machine_id} is still stopping")
            return passages.start(self.world, connection, machine, now_us).state(now_us)

    def stop_machine(self, machine_id: str, *, force: bool) -> MachineState:
        """Ask the guest to stop, or cut the power; STOPPING until ``next_change_at``.

        A guest that still boots obeys a graceful stop once it is ready.

        Raises:
            NotFoundError: there is no such machine.
        """
        with self.world.write("stop_machine", machine_id) as connection:
            now_us = self.world.now_us()
            machine = self._get(connection, machine_id)
            power = machine.power(now_us)
            if power is PowerState.STOPPED:
                return machine.state(now_us)
            if force:
                return passages.cut_power(self.world, connection, machine, now_us).state(now_us)
            if power is PowerState.STOPPING or self.world.faults.is_deaf(machine_id):
                return machine.state(now_us)
            if power is PowerState.CRASHED:  # nobody is there to ask
                return passages.stop_at(connection, machine, now_us).state(now_us)
            return passages.shut_down(self.world, connection, machine, now_us, announce=False).state(now_us)

    def remove_machine(self, machine_id: str) -> None:
        """Remove the machine with its files and console, running or not, at once. Already absent is success."""
        with self.world.write("remove_machine", machine_id) as connection:
            if self._find(connection, machine_id) is not None:
                delete_machine(connection, machine_id)

    def inspect_machine(self, machine_id: str) -> MachineState | None:
        """Return what there is at this moment of the cloud clock, None when there is nothing."""
        with self.world.read("inspect_machine", machine_id) as connection:
            machine = self._find(connection, machine_id)
            return None if machine is None else machine.state(self.world.now_us())

    def inventory(
        self, *, only: Collection[str] | None = None, after: str = "", limit: int | None = None
    ) -> list[MachineState]:
        """Return machines of this kind by id; see ``ComputeDriver.inventory``. Without a limit, the whole world."""
        part, values = page_of("machine_id", only=only, after=after, limit=limit)
        with self.world.read("inventory") as connection:
            now_us = self.world.now_us()
            rows = connection.execute(
                f"SELECT {COLUMNS} FROM machines WHERE kind = ? AND {part}",  # noqa: S608 - all of it is ours
                (self.kind.value, *values),
            )
            return [Machine._make(row).state(now_us) for row in rows]

    def is_guest_ready(self, machine_id: str) -> bool:
        """Return whether the boot is through. False for machines that do not run, or are not there."""
        with self.world.read("is_guest_ready", machine_id) as connection:
            machine = self._find(connection, machine_id)
            return machine is not None and machine.is_ready(self.world.now_us())

    def read_console(self, machine_id: str, *, tail_bytes: int) -> bytes:
        """Return the end of what the console has shown by now.

        Raises:
            NotFoundError: there is no such machine.
        """
        with self.world.read("read_console", machine_id) as connection:
            self._get(connection, machine_id)
            return console.tail(connection, machine_id, self.kind, now_us=self.world.now_us(), tail_bytes=tail_bytes)

    def execute(self, machine_id: str, argv: Sequence[str], *, timeout_s: float, stdin: bytes = b"") -> ExecResult:
        """Let the scripted guest run a command; it takes no time, and ``sleep`` only counts.

        Raises:
            NotFoundError: there is no such machine.
            GuestUnavailableError: it does not run, or its guest is not ready.
        """
        with self.world.write("execute", machine_id) as connection:
            now_us = self.world.now_us()
            machine = self._get(connection, machine_id)
            if not machine.is_ready(now_us):
                raise GuestUnavailableError(f"nothing answers in machine {machine_id}")
            guest = Guest(connection, read_facts(connection, machine_id, now_us))
            result = guest.execute(argv, timeout_s=timeout_s, stdin=stdin)
            stopped = None
            if guest.power_request == "poweroff":
                stopped = passages.shut_down(self.world, connection, machine, now_us, announce=True)
            elif guest.power_request == "reboot":
                passages.reboot(self.world, connection, machine, now_us)
        self.world.report_lost(guest.lost_nic_ids)
        if stopped is not None:  # after the commit: a listener that looks must see it
            self.world.expect_announcement(self.kind, machine_id, stopped.due_us)
        return result

    def push_file(self, machine_id: str, file: GuestFile) -> None:
        """Write one file into the guest, running or not; missing folders are made.

        Raises:
            NotFoundError: there is no such machine.
            PermanentError: the path is not absolute, is a folder, or leads through a file.
        """
        with self.world.write("push_file", machine_id) as connection:
            self._get(connection, machine_id)
            if not file.path.startswith("/"):
                raise PermanentError(f"{file.path}: the path must be absolute")
            files = Guest(connection, read_facts(connection, machine_id, self.world.now_us())).files
            path = files.absolute(file.path)
            try:
                files.make_folder(posixpath.dirname(path), parents=True)
                files.write(path, file.content, mode=file.mode & 0o7777)
            except GuestFileError as exc:
                raise PermanentError(f"{file.path}: {exc}") from exc

    def on_lifecycle(self, listener: LifecycleListener) -> None:
        """Tell ``listener`` of machines that change by themselves, when the cloud clock reaches that moment."""
        self._listeners.append(listener)
        self.world.listen(self.kind, listener)

    def crash_machine(self, machine_id: str) -> None:
        """Let a running machine crash now, as a kernel panic would; the listeners hear of it.

        Raises:
            NotFoundError: there is no such machine.
            PermanentError: it does not run.
        """
        with self.world.write("crash_machine", machine_id) as connection:
            now_us = self.world.now_us()
            machine = self._get(connection, machine_id)
            if machine.power(now_us) is not PowerState.RUNNING:
                raise PermanentError(f"machine {machine_id} does not run")
            passages.crash(connection, machine, now_us)
        self.world.expect_announcement(self.kind, machine_id, now_us)

    def close(self) -> None:
        """Let go of the listeners. The world is closed by who opened it; its machines stay."""
        for listener in self._listeners:
            self.world.unlisten(self.kind, listener)
        self._listeners.clear()

    # --- rows -----------------------------------------------------------------------------------------------

    def _find(self, connection: sqlite3.Connection, machine_id: str) -> Machine | None:
        machine = find_machine(connection, machine_id)
        # A machine of the other kind is the other driver's: for this one it is not there.
        return machine if machine is not None and machine.kind == self.kind.value else None

    def _get(self, connection: sqlite3.Connection, machine_id: str) -> Machine:
        machine = self._find(connection, machine_id)
        if machine is None:
            raise NotFoundError(f"there is no machine {machine_id}")
        return machine

    def _check_image(self, connection: sqlite3.Connection, image_id: str) -> None:
        found = connection.execute(
            "SELECT 1 FROM images WHERE image_id = ? AND kind = ?", (image_id, self.kind.value)
        ).fetchone()
        if found is None:
            raise NotFoundError(f"there is no image {image_id} for kind {self.kind.value}")

    def _delay_us(self, delay: Delay, machine_id: str) -> int:
        return self.world.latency.microseconds(self.kind, delay, machine_id)
