"""NICs of a domain that come and go, in what it has now and in what it will have at its next start."""

from __future__ import annotations

import logging
from collections.abc import Callable

import libvirt

from iaas.drivers.interface import NoCapacityError, PermanentError, TransientError
from iaas.drivers.interface.compute import NICS_PER_MACHINE
from iaas.drivers.libvirt.domain import Domain
from iaas.drivers.libvirt.errors import translated
from iaas.drivers.libvirt.interfaces import InterfaceConfig, InterfaceFacts
from iaas.drivers.linux.waiting import wait_until

# A guest early in its boot does not hear the request, so it is repeated; QEMU takes the next one after a second.
REPEAT_S = 2.0
LET_GO_TIMEOUT_S = 10.0
# Source: QEMU, qmp_device_del(): the request before is still under way.
UNDER_WAY = "already in the process of unplug"
ALREADY_GONE = frozenset({libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_DEVICE_MISSING})

logger = logging.getLogger(__name__)


def check_count(count: int) -> None:
    """Return when a machine can have ``count`` NICs.

    Raises:
        NoCapacityError: those are too many.
    """
    if count > NICS_PER_MACHINE:
        raise NoCapacityError(f"a machine has room for {NICS_PER_MACHINE} NICs")


def attach(domain: Domain, nic: InterfaceConfig) -> None:
    """Plug the NIC wherever it is not yet. Raises as ``ComputeDriver.attach_nic``."""
    kept, live = domain.interfaces()
    flags = 0
    if not _has(kept, nic):
        flags |= libvirt.VIR_DOMAIN_AFFECT_CONFIG
    if live is not None and not _has(live, nic):
        flags |= libvirt.VIR_DOMAIN_AFFECT_LIVE
    if flags:
        # Both in one call: libvirt keeps neither when one of them fails.
        with translated("attach the NIC"):
            domain.handle.attachDeviceFlags(nic.to_xml(), flags)


def _has(present: list[InterfaceFacts], nic: InterfaceConfig) -> bool:
    for other in present:
        if other.tap == nic.tap:
            if (other.mac, other.device_index) != (nic.mac, nic.device_index):
                raise PermanentError("the machine has this NIC with another MAC or device index")
            return True
    if any(other.device_index == nic.device_index for other in present):
        raise PermanentError(f"another NIC of the machine has the device index {nic.device_index}")
    check_count(len(present) + 1)
    return False


def ask_to_detach(domain: Domain, tap: str) -> bool:
    """Take the NIC out of what the machine will have, and ask the guest to let go of it; return whether it has yet to.

    May be called again while it has not.
    """
    kept, live = domain.interfaces()
    for nic in kept:
        if nic.tap == tap:
            with translated("detach the NIC"):
                domain.handle.detachDeviceAlias(nic.alias, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    for nic in live or ():
        if nic.tap == tap:
            with translated("detach the NIC"):
                try:
                    domain.handle.detachDeviceAlias(nic.alias, libvirt.VIR_DOMAIN_AFFECT_LIVE)
                except libvirt.libvirtError as exc:
                    if exc.get_error_code() not in ALREADY_GONE and UNDER_WAY not in (exc.get_error_message() or ""):
                        raise
                    logger.debug("%s was asked before to let go of %s: %s", domain.name, tap, exc)
            return True
    return False


def is_plugged(domain: Domain, tap: str) -> bool:
    """Return whether the running machine has the NIC."""
    _, live = domain.interfaces()
    return any(nic.tap == tap for nic in live or ())


def detach(ask: Callable[[], bool], is_gone: Callable[[], bool]) -> None:
    """Ask until the NIC is gone.

    Args:
        ask: as :func:`ask_to_detach`.
        is_gone: whether the running machine does not have the NIC any more.

    Raises:
        TransientError: the guest has not let go of it in ten seconds.
    """
    for _ in range(round(LET_GO_TIMEOUT_S / REPEAT_S)):
        if not ask():
            return
        wait_until(is_gone, timeout_s=REPEAT_S)
    if ask():
        raise TransientError("the guest has not let go of the NIC yet")
