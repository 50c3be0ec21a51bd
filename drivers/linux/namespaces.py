"""Network namespaces by name: make them, enter them with one thread, run programs in them.

Entering is a matter of the calling *thread*: sockets and processes made meanwhile belong to the namespace
for good, all other threads stay where they are. Never keep one entered across a callback or an ``await``.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from iaas.drivers.interface import NotFoundError, PermanentError, TransientError
from iaas.drivers.linux.programs import run_program

if TYPE_CHECKING:
    from pyroute2 import IPRoute

NAMESPACE_DIR = Path("/run/netns")
CLONE_NEWNET = 0x40000000  # Source: linux/sched.h


def namespace_path(namespace: str) -> Path:
    """Return where a named network namespace is bound. Source: ip-netns(8)."""
    return NAMESPACE_DIR / namespace


def is_namespace_file(path: Path) -> bool:
    """Return whether ``path`` holds a living namespace: after a reboot or ``umount`` only an empty file is left."""
    try:
        return path.stat().st_dev == Path("/proc/self/ns/net").stat().st_dev
    except FileNotFoundError:
        return False


def namespace_exists(namespace: str) -> bool:
    """Return whether there is a living network namespace of this name."""
    return is_namespace_file(namespace_path(namespace))


def is_machine_namespace(namespace: str) -> bool:
    """Return whether the name stands for the very namespace that this process (its main thread) lives in."""
    try:
        return namespace_path(namespace).samefile("/proc/self/ns/net")
    except FileNotFoundError:
        return False


def list_namespaces(prefix: str) -> list[str]:
    """Return the names (also of dead ones) that begin with ``prefix``."""
    try:
        return sorted(name for name in os.listdir(NAMESPACE_DIR) if name.startswith(prefix))
    except FileNotFoundError:
        return []


def create_namespace(namespace: str) -> None:
    """Make a network namespace with ``lo`` up and without IPv6. Already there is success.

    Raises:
        PermanentError: the name stands for the machine's own namespace, which is not ours to change.
    """
    if is_machine_namespace(namespace):
        raise PermanentError(f"{namespace} is a name of the machine's own network namespace")
    if not namespace_exists(namespace):
        remove_namespace(namespace)
        run_program(["ip", "netns", "add", namespace])
    with netlink(namespace) as handle:
        handle.link("set", index=handle.link_lookup(ifname="lo")[0], state="up")
    # Else every bridge and veth takes a link-local address and speaks on the guests' wire.
    for scope in ("all", "default"):
        write_sysctl(namespace, f"net/ipv6/conf/{scope}/disable_ipv6", "1", required=False)


def remove_namespace(namespace: str) -> bool:
    """Take the namespace's name away; it ends with its last process and socket. Returns whether there was one."""
    path = namespace_path(namespace)
    if namespace_exists(namespace):
        run_program(["ip", "netns", "delete", namespace])
        return True
    if path.exists():
        path.unlink()
        return True
    return False


@contextmanager
def entered(namespace: str) -> Iterator[None]:
    """Run the block with the calling thread inside a named network namespace.

    Raises:
        NotFoundError: there is no such namespace. The block did not run.
    """
    if not namespace_exists(namespace):
        raise NotFoundError(f"network namespace {namespace} does not exist")
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        target = os.open(namespace_path(namespace), os.O_RDONLY | os.O_CLOEXEC)
        try:
            _set_network_namespace(target)
        finally:
            os.close(target)
        try:
            yield
        finally:
            _set_network_namespace(home)
    finally:
        os.close(home)


def _set_network_namespace(handle: int) -> None:
    # os.setns came with Python 3.12, and pyroute2's setns makes a missing namespace by forking this process.
    if ctypes.CDLL(None, use_errno=True).setns(handle, CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"setns: {os.strerror(error)}")


def run_inside(
    namespace: str,
    argv: Sequence[str],
    *,
    timeout_s: float = 30,
    env: Mapping[str, str] | None = None,
    input_text: str | None = None,
) -> str:
    """Run a program in a network namespace to its end and return its standard output.

    A program that turns itself into a daemon goes on in the namespace. Raises as ``run_program`` does.
    """
    with entered(namespace):
        return run_program(argv, timeout_s=timeout_s, env=env, input_text=input_text)


@contextmanager
def netlink(namespace: str) -> Iterator[IPRoute]:
    """Run the block inside the namespace with a netlink handle of it.

    Not pyroute2's NetNS: that forks this process, which has threads, for each handle.

    Raises:
        NotFoundError: there is no such namespace.
        TransientError: the kernel refused what the block asked for; mostly because something came or went meanwhile.
    """
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with entered(namespace), IPRoute() as handle:
            yield handle
    except NetlinkError as exc:
        raise TransientError(f"the kernel refused a change of links: {exc}") from exc


def write_sysctl(namespace: str, key: str, value: str, *, required: bool = True) -> None:
    """Set a sysctl (``net/ipv4/ip_forward``) of a network namespace; one the kernel lacks is an error if required."""
    with entered(namespace):
        try:
            # /proc/sys/net shows the namespace of the thread that opens the file.
            (Path("/proc/sys") / key).write_text(value)
        except FileNotFoundError:
            if required:
                raise
