"""What container machines on a real LXD must do beyond the contract: limits, isolation, LXD's own death."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from iaas.drivers.interface import BackendDownError, MachineSpec, PowerState
from iaas.drivers.linux import names
from iaas.drivers.linux.processes import find_processes
from iaas.kernel.units import MIB
from tests.contract.subjects import ComputeSubject
from tests.real_host import RealHost

# The contract suite's own subject, so that it is not made twice.
pytestmark = [pytest.mark.real, pytest.mark.parametrize("subject", ["lxd"], indirect=True, scope="session")]
CGROUPS = Path("/sys/fs/cgroup")
MEMORY_LIMIT_FILES = ("memory.limit_in_bytes", "memory.max")  # of cgroup v1 and v2


def started(subject: ComputeSubject, **changes: object) -> MachineSpec:
    spec = subject.new_spec(**changes)
    subject.driver.ensure_machine(spec)
    assert subject.driver.start_machine(spec.machine_id).power is PowerState.RUNNING
    return spec


def output_of(subject: ComputeSubject, spec: MachineSpec, *argv: str) -> str:
    result = subject.driver.execute(spec.machine_id, argv, timeout_s=20)
    assert result.exit_code == 0, result
    return result.stdout.decode()


def test_the_memory_limit_is_the_kernels(subject: ComputeSubject, real_host: RealHost) -> None:
    spec = started(subject, memory_mib=192)
    folder = f"lxc.payload.{names.machine(real_host.tag, spec.machine_id)}"
    limits = [path.read_text() for name in MEMORY_LIMIT_FILES for path in CGROUPS.glob(f"**/{folder}/{name}")]
    assert [int(limit) for limit in limits] == [192 * MIB]
    subject.driver.remove_machine(spec.machine_id)


def test_more_processors_than_the_host_has_are_all_of_them(subject: ComputeSubject) -> None:
    spec = started(subject, vcpus=512)
    state = subject.driver.inspect_machine(spec.machine_id)
    assert state is not None
    assert state.vcpus == 512
    subject.driver.remove_machine(spec.machine_id)


@pytest.mark.parametrize("privileged", [False, True])
def test_root_of_a_machine_is_root_of_the_host_only_if_asked(subject: ComputeSubject, privileged: bool) -> None:
    spec = started(subject, privileged=privileged, nesting=True)
    inside, outside, _ = output_of(subject, spec, "cat", "/proc/self/uid_map").split()[:3]
    assert inside == "0"
    assert (outside == "0") is privileged
    subject.driver.remove_machine(spec.machine_id)


def test_machines_outlive_lxd_and_their_changes_meanwhile_are_told(
    subject: ComputeSubject, real_host: RealHost
) -> None:
    heard: list[tuple[str, PowerState]] = []
    subject.driver.on_lifecycle(lambda machine_id, power: heard.append((machine_id, power)))
    survivor, victim = started(subject), started(subject)
    output_of(subject, survivor, "sh", "-c", "echo kept > /tmp/kept")
    # The guest ends while LXD is away; it may not before, or LXD would see it.
    subject.driver.execute(victim.machine_id, ["sh", "-c", "(sleep 2; poweroff) > /dev/null 2>&1 &"], timeout_s=20)
    (daemon,) = find_processes(lambda each: each.program == "lxd" and str(real_host.state_dir) in " ".join(each.argv))
    os.kill(daemon.pid, signal.SIGKILL)
    subject.wait_for(lambda: not is_available(subject), 10, "LXD to be gone")
    with pytest.raises(BackendDownError):
        subject.driver.inspect_machine(survivor.machine_id)
    cgroups = f"**/lxc.payload.{names.machine(real_host.tag, victim.machine_id)}/cgroup.procs"
    subject.wait_for(lambda: not any(path.read_text() for path in CGROUPS.glob(cgroups)), 20, "the guest's end")
    assert heard == []
    real_host.daemons.ensure()
    subject.driver.check_available()
    assert output_of(subject, survivor, "cat", "/tmp/kept") == "kept\n"
    subject.wait_for(lambda: heard == [(victim.machine_id, PowerState.STOPPED)], 10, "the news")
    assert subject.driver.start_machine(victim.machine_id).power is PowerState.RUNNING
    for spec in (survivor, victim):
        subject.driver.remove_machine(spec.machine_id)


def is_available(subject: ComputeSubject) -> bool:
    try:
        subject.driver.check_available()
    except BackendDownError:
        return False
    return True
