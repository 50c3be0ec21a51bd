"""What container machines on a real LXD must do beyond the contract: limits, isolation, LXD's own death."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from iaas.drivers.interface import BackendDownError, MachineSpec, PowerState
from iaas.drivers.linux import names
from iaas.drivers.linux.processes import find_processes
from iaas.kernel.units import MIB
from tests.contract.subjects import StandardSubject
from tests.real_host import RealHost

pytestmark = pytest.mark.real
CGROUPS = Path("/sys/fs/cgroup")
MEMORY_LIMIT_FILES = ("memory.limit_in_bytes", "memory.max")  # of cgroup v1 and v2


@pytest.fixture(scope="module")
def lxd(request: pytest.FixtureRequest) -> Iterator[StandardSubject]:
    request.getfixturevalue("real_host")  # skips before anything of LXD's libraries is imported
    from tests.contract.subjects_lxd import make_subject

    subject = make_subject(request)
    yield subject
    subject.close()


def started(lxd: StandardSubject, **changes: object) -> MachineSpec:
    spec = lxd.new_spec(**changes)
    lxd.driver.ensure_machine(spec)
    assert lxd.driver.start_machine(spec.machine_id).power is PowerState.RUNNING
    return spec


def output_of(lxd: StandardSubject, spec: MachineSpec, *argv: str) -> str:
    result = lxd.driver.execute(spec.machine_id, argv, timeout_s=20)
    assert result.exit_code == 0, result
    return result.stdout.decode()


def test_the_memory_limit_is_the_kernels(lxd: StandardSubject, real_host: RealHost) -> None:
    spec = started(lxd, memory_mib=192)
    folder = f"lxc.payload.{names.machine(real_host.tag, spec.machine_id)}"
    limits = [path.read_text() for name in MEMORY_LIMIT_FILES for path in CGROUPS.glob(f"**/{folder}/{name}")]
    assert [int(limit) for limit in limits] == [192 * MIB]
    lxd.driver.remove_machine(spec.machine_id)


def test_more_processors_than_the_host_has_are_all_of_them(lxd: StandardSubject) -> None:
    spec = started(lxd, vcpus=512)
    state = lxd.driver.inspect_machine(spec.machine_id)
    assert state is not None
    assert state.vcpus == 512
    lxd.driver.remove_machine(spec.machine_id)


@pytest.mark.parametrize("privileged", [False, True])
def test_root_of_a_machine_is_root_of_the_host_only_if_asked(lxd: StandardSubject, privileged: bool) -> None:
    spec = started(lxd, privileged=privileged, nesting=True)
    inside, outside, _ = output_of(lxd, spec, "cat", "/proc/self/uid_map").split()[:3]
    assert inside == "0"
    assert (outside == "0") is privileged
    lxd.driver.remove_machine(spec.machine_id)


def test_machines_outlive_lxd_and_their_changes_meanwhile_are_told(lxd: StandardSubject, real_host: RealHost) -> None:
    heard: list[tuple[str, PowerState]] = []
    lxd.driver.on_lifecycle(lambda machine_id, power: heard.append((machine_id, power)))
    survivor, victim = started(lxd), started(lxd)
    output_of(lxd, survivor, "sh", "-c", "echo kept > /tmp/kept")
    # The guest ends while LXD is away; it may not before, or LXD would see it.
    lxd.driver.execute(victim.machine_id, ["sh", "-c", "(sleep 2; poweroff) > /dev/null 2>&1 &"], timeout_s=20)
    (daemon,) = find_processes(lambda each: each.program == "lxd" and str(real_host.state_dir) in " ".join(each.argv))
    os.kill(daemon.pid, signal.SIGKILL)
    lxd.wait_for(lambda: not is_available(lxd), 10, "LXD to be gone")
    with pytest.raises(BackendDownError):
        lxd.driver.inspect_machine(survivor.machine_id)
    cgroups = f"**/lxc.payload.{names.machine(real_host.tag, victim.machine_id)}/cgroup.procs"
    lxd.wait_for(lambda: not any(path.read_text() for path in CGROUPS.glob(cgroups)), 20, "the guest's end")
    assert heard == []
    real_host.daemons.ensure()
    lxd.driver.check_available()
    assert output_of(lxd, survivor, "cat", "/tmp/kept") == "kept\n"
    lxd.wait_for(lambda: heard == [(victim.machine_id, PowerState.STOPPED)], 10, "the news")
    assert lxd.driver.start_machine(victim.machine_id).power is PowerState.RUNNING
    for spec in (survivor, victim):
        lxd.driver.remove_machine(spec.machine_id)


def is_available(lxd: StandardSubject) -> bool:
    try:
        lxd.driver.check_available()
    except BackendDownError:
        return False
    return True
