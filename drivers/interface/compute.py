"""Machines of either kind: one protocol, chosen by ``MachineSpec.kind``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

NICS_PER_MACHINE = 24
"""More are refused with NoCapacityError; device indexes are below it."""


class MachineKind(StrEnum):
    VM = "vm"
    CONTAINER = "container"


class PowerState(StrEnum):
    """What the backend says of a machine. STARTING and STOPPING are states of a passage, not of rest."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    SUSPENDED = "suspended"
    CRASHED = "crashed"


class ComputeCapability(StrEnum):
    """What a compute driver can do beyond the common part."""

    EXEC = "exec"
    CONSOLE = "console"
    FILE_PUSH = "file_push"
    GRACEFUL_STOP = "graceful_stop"
    PRIVILEGED = "privileged"
    NESTING = "nesting"
    NIC_HOTPLUG = "nic_hotplug"  # NICs come and go while the machine runs


@dataclass(frozen=True, slots=True, kw_only=True)
class NICSpec:
    """One network interface. The driver derives the name of the host's end of its link from ``nic_id``.

    In a container the link is called eth<device_index>. A VM numbers its links itself: by device index when it
    boots, in the order of their coming later; our own image gives them the containers' names.
    """

    nic_id: str
    subnet_id: str
    mac: str
    device_index: int = 0
    mtu: int = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpec:
    """What we want of one machine: all a driver needs, and no database row."""

    machine_id: str  # our instance id ("i-4kq0ygtz"); the driver derives its own names from it
    kind: MachineKind
    hostname: str
    vcpus: int
    memory_mib: int
    root_disk_gib: int
    image_id: str
    nics: tuple[NICSpec, ...] = ()
    nesting: bool = False
    privileged: bool = False
    generation: int = 0  # grows with each rebuild: the root disk of another generation is not the same disk
    host_id: str | None = None  # where the scheduler placed it; noted with the machine when it is made


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineState:
    """What a backend has. ``next_change_at`` (cloud clock) is when a passage will end, where that is known."""

    machine_id: str
    kind: MachineKind
    power: PowerState
    vcpus: int
    memory_mib: int
    generation: int = 0
    next_change_at: datetime | None = None
    host_id: str | None = None  # as noted when it was made; None when nothing was
    nic_ids: tuple[str, ...] = ()  # the NICs it has, in the order of their device indexes


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecResult:
    """Outcome of a command in a guest. Output beyond the driver's limit (1 MiB each) is cut and marked."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    truncated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestFile:
    """One file to put into a guest: absolute path, content, POSIX mode."""

    path: str
    content: bytes
    mode: int = 0o644


LifecycleListener = Callable[[str, PowerState], None]
"""Called with (machine_id, power) when a machine changed by itself; from any thread; must not block."""


class ComputeDriver(Protocol):
    """Machines of one kind on one host. A call that fails leaves nothing behind."""

    kind: MachineKind
    capabilities: frozenset[ComputeCapability]

    def check_available(self) -> None:
        """Return when the backend answers.

        Raises:
            BackendDownError: it does not.
        """
        ...

    def ensure_machine(self, spec: MachineSpec) -> MachineState:
        """Make the machine, stopped, with its root disk from the image; or return the one already made.

        A machine of an older ``generation`` (stopped) gets a new root disk in one step: after a failure
        it has either its old disk or the new one.

        Raises:
            NotFoundError: the image is not on this host.
            PermanentError: a machine with this id is there and is another kind.
            NoCapacityError: no room for the disk.
        """
        ...

    def resize_machine(self, machine_id: str, *, vcpus: int, memory_mib: int) -> MachineState:
        """Change the shape of a stopped machine.

        Raises:
            NotFoundError: there is no such machine.
            PermanentError: it is not stopped.
        """
        ...

    def set_macs(self, machine_id: str, macs: Mapping[str, str]) -> None:
        """Give NICs of a stopped machine these MACs, by NIC id; its other NICs keep theirs. Repeating does no harm.

        Raises:
            NotFoundError: there is no such machine.
            PermanentError: it is not stopped, or has no such NIC.
        """
        ...

    def attach_nic(self, machine_id: str, nic: NICSpec) -> None:
        """Give the machine one more NIC, at once where it runs; the same one again is success.

        The machine keeps it across stops and starts. Its guest may take a moment to bring it up.

        Raises:
            NotFoundError: there is no such machine.
            PermanentError: another NIC has the device index.
            NoCapacityError: the machine has no room for another NIC.
            TransientError: the guest is not ready for it (it boots); to be tried again.
        """
        ...

    def detach_nic(self, machine_id: str, nic_id: str) -> None:
        """Take a NIC away and return when it is gone. The machine does not have it, or is absent: success.

        Raises:
            TransientError: the guest has not let go of it yet; to be tried again.
        """
        ...

    def replug_nic(self, machine_id: str, nic_id: str) -> bool:
        """Plug a NIC again whose link died inside the running machine; False when it is fine or none of it.

        Raises:
            TransientError: to be tried again.
        """
        ...

    def start_machine(self, machine_id: str) -> MachineState:
        """Ask for the machine to run. Already running is success. May return while it is STARTING.

        Raises:
            NotFoundError: there is no such machine.
        """
        ...

    def stop_machine(self, machine_id: str, *, force: bool) -> MachineState:
        """Ask the guest to stop (``force=False``), or cut its power. Returns at once, perhaps STOPPING.

        Absent machine: raises NotFoundError. Already stopped is success.
        """
        ...

    def remove_machine(self, machine_id: str) -> None:
        """Remove the machine, running or not, with its root disk and console log. Already absent is success."""
        ...

    def inspect_machine(self, machine_id: str) -> MachineState | None:
        """Return what there is, None when there is nothing."""
        ...

    def inventory(
        self, *, only: Collection[str] | None = None, after: str = "", limit: int | None = None
    ) -> list[MachineState]:
        """Return the machines of this kind and deployment, nobody else's, in the order of their ids.

        Args:
            only: these ids; all when absent.
            after: those with a greater id (as Python compares text): the last one of the page before.
            limit: at most so many.
        """
        ...

    def is_guest_ready(self, machine_id: str) -> bool:
        """Return whether the guest has answered: its boot is through. False for machines that do not run."""
        ...

    def read_console(self, machine_id: str, *, tail_bytes: int) -> bytes:
        """Return the end of the console log; empty before the first start.

        Raises:
            NotFoundError: there is no such machine.
        """
        ...

    def execute(self, machine_id: str, argv: Sequence[str], *, timeout_s: float, stdin: bytes = b"") -> ExecResult:
        """Run a command as root in the guest, without a shell, and wait for its end.

        A command that cannot be found ends with exit code 127, one that is not executable with 126, one
        that ran out of time with 124 (the conventions of shells and of timeout(1)).

        Raises:
            NotFoundError: there is no such machine.
            GuestUnavailableError: nothing answers in it.
            UnsupportedError: not in ``capabilities``.
        """
        ...

    def push_file(self, machine_id: str, file: GuestFile) -> None:
        """Write one file into the guest (running, or stopped where the driver can)."""
        ...

    def on_lifecycle(self, listener: LifecycleListener) -> None:
        """Tell ``listener`` of machines that change by themselves (a guest that powers itself off)."""
        ...

    def close(self) -> None:
        """Let go of connections and threads; machines are left as they are."""
        ...
