"""Failures as data: what the simulated world is told to fail, before or after the effect."""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass
from typing import Literal

from iaas.drivers.interface import DriverError

When = Literal["before", "after"]

# Named as the methods of the driver protocols, so that a fault reads as the call that it hits.
OPERATIONS = frozenset(
    {
        "check_available",
        "ensure_machine",
        "resize_machine",
        "set_macs",
        "attach_nic",
        "detach_nic",
        "replug_nic",
        "start_machine",
        "stop_machine",
        "remove_machine",
        "inspect_machine",
        "inventory",
        "is_guest_ready",
        "read_console",
        "execute",
        "push_file",
        "ensure_vpc",
        "remove_vpc",
        "ensure_subnet",
        "remove_subnet",
        "ensure_port",
        "remove_port",
        "vpcs",
        "subnets",
        "ports",
        "statistics",
        "dial",
        "ensure_image",
        "remove_image",
    }
)


@dataclass(slots=True)
class _Fault:
    error: DriverError
    left: int
    resource_id: str | None
    when: When


class Faults:
    """The failures that wait for their call. Kept in memory: a restarted world has none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, list[_Fault]] = {}
        self._deaf: set[str] = set()

    def fail_next(
        self,
        operation: str,
        error: DriverError,
        *,
        count: int = 1,
        resource_id: str | None = None,
        when: When = "before",
    ) -> None:
        """Let the next ``count`` calls of ``operation`` raise ``error``.

        Args:
            operation: a method of a driver protocol: ``ensure_machine``, ``dial``.
            error: what to raise; each call gets a copy of its own.
            resource_id: only calls for this machine, VPC, subnet, NIC or image; any call when absent.
            when: ``before`` the effect, so that nothing happened; or ``after`` it, as when the answer of a
                backend is lost.

        Raises:
            ValueError: no such operation, or a count below 1.
        """
        if operation not in OPERATIONS:
            raise ValueError(f"no such operation: {operation!r} (known: {', '.join(sorted(OPERATIONS))})")
        if count < 1:
            raise ValueError("count must be at least 1")
        with self._lock:
            self._waiting.setdefault(operation, []).append(_Fault(error, count, resource_id, when))

    def ignore_shutdown(self, machine_id: str) -> None:
        """Make the guest deaf to a graceful stop until :meth:`clear`: only cutting its power helps."""
        with self._lock:
            self._deaf.add(machine_id)

    def is_deaf(self, machine_id: str) -> bool:
        """Return whether the guest ignores a graceful stop."""
        return machine_id in self._deaf

    def clear(self) -> None:
        """Forget all faults that have not struck yet, and let deaf guests hear again."""
        with self._lock:
            self._waiting.clear()
            self._deaf.clear()

    def waiting(self) -> int:
        """Return how many failures have not struck yet; a test asserts 0 to know that it hit its call."""
        with self._lock:
            return sum(fault.left for faults in self._waiting.values() for fault in faults)

    def strike(self, operation: str, resource_id: str | None, when: When) -> None:
        """Raise the fault that waits for this call, if one does."""
        if not self._waiting:  # the common path costs one look at an empty dict
            return
        with self._lock:
            faults = self._waiting.get(operation, [])
            for fault in faults:
                if fault.when == when and fault.resource_id in (None, resource_id):
                    fault.left -= 1
                    if fault.left == 0:
                        faults.remove(fault)
                        if not faults:
                            del self._waiting[operation]
                    # A copy: an exception that is raised twice would carry the traceback of the first time.
                    raise copy.copy(fault.error)
