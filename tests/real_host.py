"""The real backend for tests: a deployment of its own per session, removed without a trace at the end."""

from __future__ import annotations

import fcntl
import os
import random
import re
import string
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from iaas.drivers.linux.cleanup import leftovers, remove_deployment
from iaas.drivers.linux.daemons import PrivateDaemons
from iaas.drivers.linux.deployment import DeploymentLiveError, DeploymentLock
from iaas.drivers.linux.fabric import Fabric
from iaas.drivers.linux.host_check import check_host
from iaas.drivers.linux.network import LinuxNetworkDriver

PARENT = Path("/var/lib/iaas")
TEST_FOLDER = re.compile(r"^test-(t[a-z0-9]{3})$")


@dataclass(frozen=True)
class RealHost:
    """Fabric, daemons and networks of this test session, up and running."""

    tag: str
    state_dir: Path
    fabric: Fabric
    daemons: PrivateDaemons
    networks: LinuxNetworkDriver
    lock: DeploymentLock

    @property
    def libvirt_uri(self) -> str:
        return self.daemons.libvirt_uri

    @property
    def lxd_endpoint(self) -> str:
        return self.daemons.lxd_endpoint

    @property
    def lxd_pool(self) -> str:
        return self.daemons.lxd_pool


def new_test_folder() -> tuple[str, Path]:
    """Return a tag and a state folder that no other test run has (not made yet)."""
    # Not the seeded generator of a test: two runs side by side must differ.
    tag = "t" + "".join(random.SystemRandom().choices(string.ascii_lowercase + string.digits, k=3))
    folder = PARENT / f"test-{tag}"
    return new_test_folder() if folder.exists() else (tag, folder)


def reasons_against() -> list[str]:
    """Return why the real backend cannot run on this host; empty when it can."""
    if sys.platform != "linux":
        return ["the real backend needs Linux"]
    return [f"{finding.message} ({finding.remedy})" for finding in check_host() if finding.blocks]


def require_real_host() -> None:
    """Skip the test where the real backend cannot run; fail it there if IAAS_REQUIRE_REAL=1 (as on CI)."""
    if reasons := reasons_against():
        text = "no real backend on this host: " + "; ".join(reasons)
        if os.environ.get("IAAS_REQUIRE_REAL") == "1":
            pytest.fail(text)
        pytest.skip(text)


def remove_killed_runs() -> list[str]:
    """Remove what test runs that were killed have left; those still running are not touched."""
    removed = []
    for folder in sorted(PARENT.glob("test-*")):
        if match := TEST_FOLDER.match(folder.name):
            try:
                removed += remove_deployment(match[1], folder)
            except DeploymentLiveError:
                continue
    return removed


@contextmanager
def _no_other_run_starting() -> Iterator[None]:
    """Keep other test runs waiting: between making a folder and locking it, it looks like a killed run's."""
    PARENT.mkdir(mode=0o755, parents=True, exist_ok=True)
    handle = os.open(PARENT, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def open_real_host() -> RealHost:
    """Start a deployment: namespaces, private daemons. The caller closes it."""
    with _no_other_run_starting():
        remove_killed_runs()
        tag, state_dir = new_test_folder()
        state_dir.mkdir(mode=0o711)
        lock = DeploymentLock(state_dir)
    fabric = Fabric(tag, state_dir)
    daemons = PrivateDaemons(fabric)
    host = RealHost(tag, state_dir, fabric, daemons, LinuxNetworkDriver(fabric, tag, state_dir), lock)
    try:
        daemons.ensure()
    except BaseException:  # even on Ctrl-C nothing may stay
        close_real_host(host)
        raise
    return host


def close_real_host(host: RealHost) -> None:
    """Remove the deployment, and fail when anything of it is left."""
    host.networks.close()
    host.lock.release()
    remove_deployment(host.tag, host.state_dir)
    left = leftovers(host.tag, host.state_dir)
    assert left == [], f"the tests left on this host: {left}"
