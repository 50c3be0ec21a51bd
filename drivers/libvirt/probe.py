"""Whether hardware virtualization truly works here. See ADR 0005.

A device node proves nothing: nested hosts offer /dev/kvm on which a guest hangs at its first page fault, and
libvirt's QEMU may have no right to open a node that we, as root, can open. So a kernel is booted.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import stat
import subprocess
import threading
from enum import StrEnum
from pathlib import Path

from iaas.drivers.libvirt.domain_config import VirtType

logger = logging.getLogger(__name__)

BOOT_TIMEOUT_S = 10.0
# What a kernel without a root disk ends with: it came through all of its own start.
BOOTED_SIGN = b"Kernel panic - not syncing: VFS"


class VirtTypeChoice(StrEnum):
    """What an operator can ask for."""

    QEMU = "qemu"
    KVM = "kvm"
    AUTO = "auto"  # kvm when the probe boots a kernel, qemu otherwise


def can_others_open(device: Path) -> bool:
    """Return whether QEMU's unprivileged user can open the device, by its group or as anybody."""
    try:
        status = device.stat()
    except FileNotFoundError:
        return False
    if not stat.S_ISCHR(status.st_mode):
        return False
    if os.geteuid() != 0:  # then QEMU runs as ourselves
        return os.access(device, os.R_OK | os.W_OK)
    by_group = status.st_mode & 0o060 == 0o060 and status.st_gid != 0
    return by_group or status.st_mode & 0o006 == 0o006


def boots_under_kvm(kernel: Path, *, timeout_s: float = BOOT_TIMEOUT_S) -> bool:
    """Return whether a guest runs through the start of ``kernel`` with hardware virtualization in time."""
    argv = [
        "qemu-system-x86_64", "-machine", "pc,accel=kvm", "-cpu", "host", "-m", "256", "-nodefaults",
        "-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", str(kernel),
        "-append", "console=ttyS0 panic=-1",
    ]  # fmt: skip
    try:
        done = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=timeout_s, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return BOOTED_SIGN in done.stdout


class VirtTypeProbe:
    """The decision for ``auto``, made once for a host kernel and kept in ``state_dir``."""

    def __init__(self, state_dir: Path, *, device: Path = Path("/dev/kvm")) -> None:
        self._record = state_dir / "virt-type.json"
        self._device = device
        self._lock = threading.Lock()

    def decide(self, kernel: Path | None) -> VirtType:
        """Return what VMs run with; boots ``kernel`` when that is not known yet (ten seconds at most).

        Without a kernel to try, the answer is emulation and is not kept.
        """
        with self._lock:
            if not can_others_open(self._device):
                return VirtType.QEMU
            known = self._read()
            if known is not None or kernel is None:
                return known or VirtType.QEMU
            decided = VirtType.KVM if boots_under_kvm(kernel) else VirtType.QEMU
            logger.info("probe of hardware virtualization: VMs will run with %s", decided)
            text = json.dumps({"virt_type": decided, "host_kernel": platform.release()}) + "\n"
            self._record.write_text(text)
            return decided

    def _read(self) -> VirtType | None:
        try:
            record = json.loads(self._record.read_text())
            return VirtType(record["virt_type"]) if record["host_kernel"] == platform.release() else None
        except (OSError, ValueError, KeyError, TypeError):
            return None
