"""Remove all that one deployment has on the machine, even when its server and daemons were killed.

By its tag, its namespaces and its state folder only; nothing is asked of a daemon. Everything is looked up
from the kernel, so what a crash forgot to write down is found as well.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from iaas.drivers.interface import NotFoundError, PermanentError, TransientError
from iaas.drivers.linux.deployment import (
    LOCK_NAME,
    RECORD_NAME,
    Deployment,
    DeploymentLiveError,
    DeploymentLock,
    find_deployments,
    is_live,
)
from iaas.drivers.linux.filters import remove_filters
from iaas.drivers.linux.mounts import mount_points_under, unmount_all
from iaas.drivers.linux.names import (
    BRIDGE,
    CONTAINER_VETH,
    ROUTER_VETH,
    TAP,
    check_tag,
    fabric_namespace,
    filter_table,
)
from iaas.drivers.linux.namespaces import (
    is_machine_namespace,
    is_namespace_file,
    list_namespaces,
    namespace_exists,
    namespace_path,
    netlink,
    remove_namespace,
)
from iaas.drivers.linux.processes import (
    Process,
    descendants,
    end_processes,
    find_processes,
    namespace_inode,
    read_process,
)
from iaas.drivers.linux.programs import run_program
from iaas.drivers.linux.records import read_record
from iaas.drivers.linux.waiting import wait_until

__all__ = ["Deployment", "DeploymentLiveError", "find_deployments", "is_live", "leftovers", "remove_deployment"]

LINK_KINDS = frozenset({BRIDGE, TAP, CONTAINER_VETH, ROUTER_VETH})
CGROUP_ROOT = Path("/sys/fs/cgroup")
MONITOR_GRACE_S = 5
RELEASE_TIMEOUT_S = 10

logger = logging.getLogger(__name__)


def remove_deployment(tag: str, state_dir: Path) -> list[str]:
    """Destroy the deployment's machines, daemons, networks, mounts and files.

    Args:
        tag: the deployment's tag.
        state_dir: its state folder; all of it is removed.

    Returns:
        What was removed, one sentence part each; empty when there was nothing.

    Raises:
        DeploymentLiveError: its server is running. Nothing was touched.
        PermanentError: the folder belongs to another tag. Nothing was touched.
        TransientError: something did not go; what could be removed was.
    """
    check_tag(tag)
    record = read_record(state_dir / RECORD_NAME)
    if record is not None and record["tag"] != tag:
        raise PermanentError(
            f"the state folder {state_dir} belongs to the deployment {record['tag']!r}, not to {tag!r}"
        )
    lock = DeploymentLock(state_dir) if state_dir.is_dir() else None
    removed: list[str] = []
    try:
        _end_machines_and_daemons(tag, state_dir, removed.append)
        _remove_cgroups(tag, removed.append)
        _remove_namespaces(tag, removed.append)
        removed += [f"mount {point}" for point in unmount_all(state_dir)]
        _detach_loop_devices(state_dir, removed.append)
        if state_dir.is_dir():
            _remove_files(state_dir)
            removed.append(f"folder {state_dir}")
    finally:
        if lock is not None:
            lock.release()
    if left := leftovers(tag, state_dir):
        raise TransientError(f"deployment {tag} could not be removed completely: {', '.join(left)}")
    logger.info("deployment %s: removed %d things", tag, len(removed))
    return removed


def leftovers(tag: str, state_dir: Path) -> list[str]:
    """Return all that the deployment has on the machine right now: nothing when it was removed well."""
    left = [f"process {process.pid} {process.title}" for process in _own_processes(tag, state_dir)]
    left += [f"network namespace {name}" for name in _namespaces(tag)]
    left += [f"mount {point}" for point in mount_points_under(state_dir)]
    left += [f"loop device {device}" for device in _loop_devices(state_dir)]
    left += [f"control group {folder}" for folder in _cgroups(tag)]
    left += [f"link {name}" for name in os.listdir("/sys/class/net") if _is_own_link(tag, name)]
    left += [f"nftables table {name}" for name in _tables_of_the_machine() if name == filter_table(tag)]
    return left + ([f"folder {state_dir}"] if state_dir.exists() else [])


def _namespaces(tag: str) -> list[str]:
    fabric = fabric_namespace(tag)
    return [name for name in list_namespaces(fabric) if name == fabric or name.startswith(f"{fabric}-")]


def _own_processes(tag: str, state_dir: Path) -> list[Process]:
    """Return the processes that live in the deployment's namespaces, or say by their arguments that they are its.

    Never this process, which may have a thread in there.
    """
    private = [name for name in _namespaces(tag) if namespace_exists(name) and not is_machine_namespace(name)]
    networks = {namespace_path(name).stat().st_ino for name in private}
    mount_file = state_dir / "ns" / "mnt"
    mounts = {mount_file.stat().st_ino} if is_namespace_file(mount_file) else set()
    domain = f"guest=iaas-{tag}-"
    files = (f"{state_dir}/", f"--conf-file={state_dir}/")
    monitor = f"[lxc monitor] {state_dir}/"
    daemons = {"libvirtd", "lxd", "dnsmasq"}

    def is_own(process: Process) -> bool:
        if process.pid == os.getpid():
            return False
        if namespace_inode(process.pid, "net") in networks or namespace_inode(process.pid, "mnt") in mounts:
            return True
        if process.program in daemons:
            return any(argument.startswith(files) for argument in process.argv)
        if process.program.startswith("qemu-system"):
            return any(argument.startswith(domain) for argument in process.argv)
        return process.argv[0].startswith(monitor)

    return find_processes(is_own)


def _end_machines_and_daemons(tag: str, state_dir: Path, removed: Callable[[str], None]) -> None:
    own = _own_processes(tag, state_dir)
    daemons = [process for process in own if process.program in {"libvirtd", "lxd"}]
    monitors = [process for process in own if process.argv[0].startswith("[lxc monitor]")]
    # Daemons first: they would see their machines die and start to tidy up, or to start them again.
    end_processes(daemons, grace_s=0)
    machines = [process for pid in descendants(each.pid for each in monitors) if (process := read_process(pid))]
    end_processes(machines, grace_s=0)
    # A monitor whose container has ended removes its control groups and leaves.
    wait_until(lambda: all(read_process(each.pid) != each for each in monitors), timeout_s=MONITOR_GRACE_S)
    # More than once: what forks while it is looked at is seen the next time.
    wait_until(lambda: _end_round(tag, state_dir), timeout_s=RELEASE_TIMEOUT_S)
    for process in own:
        removed(f"process {process.title}")


def _end_round(tag: str, state_dir: Path) -> bool:
    end_processes(_own_processes(tag, state_dir), grace_s=0)
    return not _own_processes(tag, state_dir)


def _cgroups(tag: str) -> list[Path]:
    """Return the control groups of the deployment's containers, deepest first. LXC names them after the container."""
    tops: list[Path] = []
    for pattern in ("lxc.*", "*/lxc.*"):  # version 2 has one tree, version 1 one below each controller
        tops += [top for top in CGROUP_ROOT.glob(pattern) if f".iaas-{tag}-" in top.name and top.is_dir()]
    return [Path(folder) for top in tops for folder, _, _ in os.walk(top, topdown=False)]


def _remove_cgroups(tag: str, removed: Callable[[str], None]) -> None:
    for folder in _cgroups(tag):
        with contextlib.suppress(FileNotFoundError):  # one hierarchy may be mounted at several places
            folder.rmdir()
            removed(f"control group {folder}")


def _remove_namespaces(tag: str, removed: Callable[[str], None]) -> None:
    for name in reversed(_namespaces(tag)):
        # A socket that somebody still holds would keep the namespace alive, and its links with it.
        with contextlib.suppress(NotFoundError):
            _delete_links(tag, name)
            if is_machine_namespace(name):  # it stays; in all others the table goes with the namespace
                remove_filters(name, tag)
        if remove_namespace(name):
            removed(f"network namespace {name}")


def _delete_links(tag: str, namespace: str) -> None:
    """Delete the deployment's links, by name: the namespace may be the machine's own (see HostFabric)."""
    if not namespace_exists(namespace):
        return
    with netlink(namespace) as handle:
        for name in [link.get_attr("IFLA_IFNAME") for link in handle.get_links()]:
            if _is_own_link(tag, name):
                for index in handle.link_lookup(ifname=name):  # the other end of a pair is gone with the first
                    handle.link("del", index=index)


def _tables_of_the_machine() -> list[str]:
    """Return the names of the bridge family's nftables tables in the machine's own network namespace."""
    try:
        listed = run_program(["nft", "list", "tables", "bridge"])
    except PermanentError:  # no nft, or a kernel without this family: there can be none
        return []
    return [line.split()[-1] for line in listed.splitlines() if line.strip()]


def _is_own_link(tag: str, name: str) -> bool:
    return name[:2] in LINK_KINDS and name[2:6] == tag and len(name) == 14


def _loop_devices(state_dir: Path) -> list[Path]:
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(FileNotFoundError):
            name = backing.read_text().strip().removesuffix(" (deleted)")
            if state_dir in Path(name).parents:
                found.append(Path("/dev") / backing.parts[3])
    return sorted(found)


def _detach_loop_devices(state_dir: Path, removed: Callable[[str], None]) -> None:
    # Those of the storage pool go by themselves with the last mount of the mount namespace, a moment later.
    wait_until(lambda: not _loop_devices(state_dir), timeout_s=2)
    for device in _loop_devices(state_dir):
        run_program(["losetup", "--detach", str(device)])
        removed(f"loop device {device}")
    wait_until(lambda: not _loop_devices(state_dir), timeout_s=RELEASE_TIMEOUT_S)


def _remove_files(state_dir: Path) -> None:
    """Remove the folder; what names its owner goes last, so that a removal cut short can be repeated."""
    if points := mount_points_under(state_dir):
        raise TransientError(f"{points[0]} is still mounted")
    for entry in state_dir.iterdir():
        if entry.name in {LOCK_NAME, RECORD_NAME}:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    for name in (RECORD_NAME, LOCK_NAME):
        (state_dir / name).unlink(missing_ok=True)
    state_dir.rmdir()
