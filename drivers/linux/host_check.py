"""What this host lacks for the real backend, or what will be slow on it, and how to mend it."""

from __future__ import annotations

import grp
import importlib.util
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from iaas.drivers.interface import DriverError
from iaas.drivers.linux.deployment import closed_folders
from iaas.drivers.linux.filters import check_rules
from iaas.drivers.linux.namespaces import create_namespace, netlink, remove_namespace
from iaas.drivers.linux.programs import environment
from iaas.kernel.units import GIB, MIB

DEFAULT_STATE_DIR = Path("/var/lib/iaas")
SETUP = "run scripts/setup-host as root"

# program -> Debian package, in the order of the report
PROGRAMS = {
    "libvirtd": "libvirt-daemon-system",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "lxd": "lxd",
    "dnsmasq": "dnsmasq-base",
    "nft": "nftables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setsid": "util-linux",
    "losetup": "mount",
    "mke2fs": "e2fsprogs",
    "dpkg-deb": "dpkg",
    "apt-get": "apt",
}
USEFUL_PROGRAMS = {
    "mkfs.btrfs": ("btrfs-progs", "container machines are kept in plain folders: slower to make, no disk limit")
}
MODULES = {"libvirt": "libvirt-python", "pylxd": "pylxd", "pyroute2": "pyroute2"}
MIN_MEMORY_MIB = 1024
MIN_DISK_GIB = 4
MIN_SUBORDINATE_IDS = 65536
NEIGHBOUR_LIMIT = Path("/proc/sys/net/ipv4/neigh/default/gc_thresh3")  # Source: arp(7)
MIN_NEIGHBOURS = 16384


class Severity(StrEnum):
    """ERROR: the real backend cannot work. WARNING: it works, less well. INFO: good to know."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at: one line for people, and what to do where it is not as it should be."""

    name: str
    ok: bool
    severity: Severity
    message: str
    remedy: str = ""

    @property
    def blocks(self) -> bool:
        """Whether the real backend cannot work because of it."""
        return not self.ok and self.severity is Severity.ERROR


def check_host(state_dir: Path = DEFAULT_STATE_DIR) -> list[Finding]:
    """Look at everything the real backend needs of the host. Changes nothing; needs no root to look."""
    if sys.platform != "linux":
        return [
            _problem(
                "platform", Severity.ERROR, f"the real backend needs Linux, not {sys.platform}", "use --backend sim"
            )
        ]
    findings = [_check_root()]
    findings += _check_programs()
    findings += _check_modules()
    findings.append(_check_kvm())
    if os.geteuid() == 0 and shutil.which("ip", path=environment()["PATH"]) and _has_module("pyroute2"):
        findings.append(_check_kernel_links())
    findings.append(_check_memory_cgroup())
    findings.append(_check_neighbours())
    findings.append(_check_subordinate_ids())
    findings.append(_check_state_dir(state_dir))
    findings.append(_check_memory())
    findings.append(_check_disk(state_dir))
    return findings


def _good(name: str, message: str) -> Finding:
    return Finding(name=name, ok=True, severity=Severity.INFO, message=message)


def _problem(name: str, severity: Severity, message: str, remedy: str) -> Finding:
    return Finding(name=name, ok=False, severity=severity, message=message, remedy=remedy)


def _check_root() -> Finding:
    if os.geteuid() == 0:
        return _good("root", "running as root")
    return _problem("root", Severity.ERROR, "not running as root", "use sudo, or --backend sim")


def _check_programs() -> Iterator[Finding]:
    path = environment()["PATH"]
    missing = {program: package for program, package in PROGRAMS.items() if not shutil.which(program, path=path)}
    for program, package in missing.items():
        yield _problem(program, Severity.ERROR, f"{program} is not installed", f"{SETUP}, or install {package}")
    if not missing:
        yield _good("programs", "all programs are installed")
    for program, (package, effect) in USEFUL_PROGRAMS.items():
        if not shutil.which(program, path=path):
            yield _problem(program, Severity.WARNING, f"{program} is not installed: {effect}", f"install {package}")


def _has_module(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _check_modules() -> Iterator[Finding]:
    missing = {module: package for module, package in MODULES.items() if not _has_module(module)}
    for module, package in missing.items():
        remedy = f"pip install 'iaas[real]' ({package})"
        yield _problem(module, Severity.ERROR, f"the Python module {module} is not installed", remedy)
    if not missing:
        yield _good("modules", "all Python modules are installed")


def _check_kvm() -> Finding:
    """Say what is known without a probe: only a guest that boots proves that KVM works."""
    device = Path("/dev/kvm")
    if not device.exists():
        return _problem(
            "kvm", Severity.INFO, "no /dev/kvm: VMs are emulated, slower and correct", "enable virtualization"
        )
    status = device.stat()
    try:
        kvm_group: int | None = grp.getgrnam("kvm").gr_gid
    except KeyError:
        kvm_group = None
    open_to_all = status.st_mode & 0o006 == 0o006
    if open_to_all or (status.st_gid == kvm_group and status.st_mode & 0o060 == 0o060):
        return _good("kvm", "/dev/kvm can be used; whether guests boot with it is known only after a probe")
    return _problem(
        "kvm",
        Severity.WARNING,
        "QEMU's user may not open /dev/kvm: libvirt then examines QEMU again at each start of a VM (60 s)",
        "chgrp kvm /dev/kvm && chmod 660 /dev/kvm (scripts/setup-host does it)",
    )


def _check_kernel_links() -> Finding:
    """Make each kind of link once in a namespace of its own, where nothing else can be touched."""
    from pyroute2.netlink.exceptions import NetlinkError

    namespace = f"iaas-check-{uuid.uuid4().hex[:8]}"
    lacking = []
    try:
        create_namespace(namespace)
        with netlink(namespace) as handle:
            for kind, options in (
                ("bridge", {}),
                ("veth", {"peer": {"ifname": "check1"}}),
                ("tuntap", {"mode": "tap"}),
            ):
                try:
                    handle.link("add", ifname="check0", kind=kind, **options)
                    handle.link("del", index=handle.link_lookup(ifname="check0")[0])
                except (NetlinkError, OSError) as exc:
                    lacking.append(f"{kind} links ({exc})")
            if shutil.which("nft", path=environment()["PATH"]):
                try:
                    check_rules(namespace)
                except DriverError as exc:
                    lacking.append(f"nf_tables with sets in the bridge family ({exc})")
    except (DriverError, OSError) as exc:
        lacking.append(f"network namespaces ({exc})")
    finally:
        remove_namespace(namespace)
    if not lacking:
        return _good("kernel", "network namespaces, bridges, veth, tap and nf_tables work")
    return _problem(
        "kernel",
        Severity.ERROR,
        f"the kernel lacks, or forbids: {', '.join(lacking)}",
        "load the modules bridge, veth, tun, nf_tables; in a container, run it privileged",
    )


def _check_memory_cgroup() -> Finding:
    version_2 = Path("/sys/fs/cgroup/cgroup.controllers")
    has_it = "memory" in version_2.read_text().split() if version_2.exists() else Path("/sys/fs/cgroup/memory").is_dir()
    if has_it:
        return _good("cgroup", "the memory controller is there")
    return _problem(
        "cgroup",
        Severity.WARNING,
        "no memory controller: container machines run without their memory limit",
        "boot with cgroup_enable=memory, or mount the controller",
    )


def _check_neighbours() -> Finding:
    """All routers and guests of this host share one table of neighbours, whatever namespace they are in."""
    limit = int(NEIGHBOUR_LIMIT.read_text())
    if limit >= MIN_NEIGHBOURS:
        return _good("neighbours", f"the kernel keeps {limit} neighbours")
    return _problem(
        "neighbours",
        Severity.INFO,
        f"the kernel keeps {limit} neighbours (ARP) of all guests together: beyond that, connections take seconds",
        f"for hundreds of guests: sysctl -w net.ipv4.neigh.default.gc_thresh3={MIN_NEIGHBOURS}",
    )


def _check_subordinate_ids() -> Finding:
    """LXD maps a container's users to ids that are root's to give. Source: subuid(5)."""
    for place in (Path("/etc/subuid"), Path("/etc/subgid")):
        entries = [line.split(":") for line in place.read_text().splitlines()] if place.exists() else []
        counts = [int(entry[2]) for entry in entries if len(entry) == 3 and entry[0] in {"root", "0"}]
        if max(counts, default=0) < MIN_SUBORDINATE_IDS:
            return _problem(
                "idmap",
                Severity.ERROR,
                f"{place} gives root fewer than {MIN_SUBORDINATE_IDS} ids: no unprivileged container machine can start",
                f"echo root:1000000:1000000000 >> {place} ({SETUP.split(' as')[0]} does it)",
            )
    return _good("idmap", "root has subordinate ids for container machines")


def _check_state_dir(state_dir: Path) -> Finding:
    closed = closed_folders(state_dir.parent)
    if not closed:
        return _good("state", f"QEMU's user can reach {state_dir}")
    return _problem(
        "state",
        Severity.ERROR,
        f"QEMU's user cannot reach {state_dir}: {closed[0]} is closed",
        f"chmod o+x {closed[0]}",
    )


def _check_memory() -> Finding:
    lines = Path("/proc/meminfo").read_text().splitlines()
    available_kib = next((int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), 0)
    available_mib = available_kib * 1024 // MIB
    if available_mib >= MIN_MEMORY_MIB:
        return _good("memory", f"{available_mib} MiB of memory are free")
    text = f"only {available_mib} MiB of memory are free: a small VM takes some 300 MiB"
    return _problem("memory", Severity.WARNING, text, "end other programs")


def _check_disk(state_dir: Path) -> Finding:
    place = next(folder for folder in (state_dir, *state_dir.parents) if folder.exists())
    free_gib = shutil.disk_usage(place).free // GIB
    if free_gib >= MIN_DISK_GIB:
        return _good("disk", f"{free_gib} GiB are free at {place}")
    return _problem(
        "disk",
        Severity.WARNING,
        f"only {free_gib} GiB are free at {place}",
        "free some space, or use --state elsewhere",
    )
