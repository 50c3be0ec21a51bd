"""The contract of every compute driver: simulated, libvirt, LXD. See README.md beside this file.

Tests that need a booted guest take ``running`` and share one machine. Boots are what costs time on a host
that emulates the processor, so a test that stops the machine leaves it to the next one to start it again.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from iaas.drivers.interface import (
    ComputeCapability,
    GuestFile,
    GuestUnavailableError,
    MachineKind,
    NotFoundError,
    PermanentError,
    PowerState,
    TransientError,
    UnsupportedError,
)
from iaas.kernel import ids
from tests.contract.shared_machine import SharedMachine
from tests.contract.subjects import ComputeSubject

OUTPUT_LIMIT_BYTES = 1024 * 1024
UNKNOWN = "i-zzzz9999"


def requires(subject: ComputeSubject, capability: ComputeCapability) -> None:
    """Skip unless the driver declares ``capability``; that it is then refused is a test of its own."""
    if capability not in subject.driver.capabilities:
        pytest.skip(f"not in capabilities: {capability.value}")


# --- making, finding, removing: no guest is booted ---------------------------------------------------------


def test_the_backend_answers(subject: ComputeSubject) -> None:
    subject.driver.check_available()


def test_a_new_machine_rests_stopped_in_the_shape_asked_for(subject: ComputeSubject) -> None:
    spec = subject.new_spec(vcpus=2)
    state = subject.driver.ensure_machine(spec)
    assert state.machine_id == spec.machine_id
    assert state.kind is subject.kind
    assert state.power is PowerState.STOPPED
    assert (state.vcpus, state.memory_mib, state.generation) == (2, spec.memory_mib, 0)
    assert subject.driver.inspect_machine(spec.machine_id) == state


def test_a_machine_knows_the_host_that_it_was_placed_on(subject: ComputeSubject) -> None:
    spec = subject.new_spec(host_id="host-abcd1234")
    assert subject.driver.ensure_machine(spec).host_id == "host-abcd1234"
    subject.driver.resize_machine(spec.machine_id, vcpus=2, memory_mib=spec.memory_mib)
    subject.driver.ensure_machine(replace(spec, generation=1))
    [state] = [each for each in subject.driver.inventory() if each.machine_id == spec.machine_id]
    assert (state.host_id, state.generation) == ("host-abcd1234", 1)


def test_ensure_again_returns_the_same_machine(subject: ComputeSubject) -> None:
    spec = subject.new_spec()
    first = subject.driver.ensure_machine(spec)
    assert subject.driver.ensure_machine(spec) == first
    assert [state.machine_id for state in subject.driver.inventory()].count(spec.machine_id) == 1


def test_inspect_of_an_unknown_machine_returns_none(subject: ComputeSubject) -> None:
    assert subject.driver.inspect_machine(UNKNOWN) is None


def test_a_removed_machine_is_gone(subject: ComputeSubject) -> None:
    spec = subject.new_spec()
    subject.driver.ensure_machine(spec)
    subject.driver.remove_machine(spec.machine_id)
    assert subject.driver.inspect_machine(spec.machine_id) is None
    assert spec.machine_id not in [state.machine_id for state in subject.driver.inventory()]
    with pytest.raises(NotFoundError):
        subject.driver.read_console(spec.machine_id, tail_bytes=100)


def test_remove_twice_and_remove_of_an_unknown_machine_succeed(subject: ComputeSubject) -> None:
    spec = subject.new_spec()
    subject.driver.ensure_machine(spec)
    subject.driver.remove_machine(spec.machine_id)
    subject.driver.remove_machine(spec.machine_id)
    subject.driver.remove_machine(UNKNOWN)


def test_an_id_can_be_used_again_after_removal(subject: ComputeSubject) -> None:
    spec = subject.new_spec()
    subject.driver.ensure_machine(spec)
    subject.driver.remove_machine(spec.machine_id)
    assert subject.driver.ensure_machine(spec).power is PowerState.STOPPED


def test_an_unknown_image_is_not_found_and_leaves_nothing(subject: ComputeSubject) -> None:
    spec = subject.new_spec(image_id="img-zzzz9999")
    with pytest.raises(NotFoundError):
        subject.driver.ensure_machine(spec)
    assert subject.driver.inspect_machine(spec.machine_id) is None
    assert spec.machine_id not in [state.machine_id for state in subject.driver.inventory()]


def test_a_failed_ensure_does_not_spoil_the_next_one(subject: ComputeSubject) -> None:
    good = subject.new_spec()
    with pytest.raises(NotFoundError):
        subject.driver.ensure_machine(replace(good, image_id="img-zzzz9999"))
    assert subject.driver.ensure_machine(good).power is PowerState.STOPPED


def test_a_machine_of_the_other_kind_is_refused(subject: ComputeSubject) -> None:
    other = MachineKind.CONTAINER if subject.kind is MachineKind.VM else MachineKind.VM
    spec = subject.new_spec(kind=other)
    with pytest.raises(PermanentError):
        subject.driver.ensure_machine(spec)
    assert subject.driver.inspect_machine(spec.machine_id) is None


def test_verbs_on_an_unknown_machine_raise_not_found(subject: ComputeSubject) -> None:
    driver = subject.driver
    with pytest.raises(NotFoundError):
        driver.start_machine(UNKNOWN)
    with pytest.raises(NotFoundError):
        driver.stop_machine(UNKNOWN, force=True)
    with pytest.raises(NotFoundError):
        driver.stop_machine(UNKNOWN, force=False)
    with pytest.raises(NotFoundError):
        driver.resize_machine(UNKNOWN, vcpus=1, memory_mib=128)
    with pytest.raises(NotFoundError):
        driver.set_macs(UNKNOWN, {})
    if ComputeCapability.CONSOLE in driver.capabilities:
        with pytest.raises(NotFoundError):
            driver.read_console(UNKNOWN, tail_bytes=10)
    if ComputeCapability.EXEC in driver.capabilities:
        with pytest.raises(NotFoundError):
            driver.execute(UNKNOWN, ["true"], timeout_s=5)
    if ComputeCapability.FILE_PUSH in driver.capabilities:
        with pytest.raises(NotFoundError):
            driver.push_file(UNKNOWN, GuestFile(path="/tmp/x", content=b""))
    assert not driver.is_guest_ready(UNKNOWN)
    assert driver.inspect_machine(UNKNOWN) is None


def test_stop_of_a_stopped_machine_succeeds(subject: ComputeSubject) -> None:
    spec = subject.new_spec()
    subject.driver.ensure_machine(spec)
    assert subject.driver.stop_machine(spec.machine_id, force=False).power is PowerState.STOPPED
    assert subject.driver.stop_machine(spec.machine_id, force=True).power is PowerState.STOPPED


def test_a_machine_that_was_never_started_has_no_console_text_and_no_guest(subject: ComputeSubject) -> None:
    spec = subject.new_spec()
    subject.driver.ensure_machine(spec)
    if ComputeCapability.CONSOLE in subject.driver.capabilities:
        assert subject.driver.read_console(spec.machine_id, tail_bytes=4096) == b""
    assert not subject.driver.is_guest_ready(spec.machine_id)
    if ComputeCapability.EXEC in subject.driver.capabilities:
        with pytest.raises(GuestUnavailableError):
            subject.driver.execute(spec.machine_id, ["true"], timeout_s=5)


def test_resize_changes_a_stopped_machine_and_may_be_repeated(subject: ComputeSubject) -> None:
    spec = subject.new_spec()
    subject.driver.ensure_machine(spec)
    for _ in range(2):
        state = subject.driver.resize_machine(spec.machine_id, vcpus=2, memory_mib=192)
        assert (state.vcpus, state.memory_mib, state.power) == (2, 192, PowerState.STOPPED)
    assert subject.driver.inspect_machine(spec.machine_id) == state


def test_a_stopped_machine_takes_other_macs_and_may_be_told_again(subject: ComputeSubject) -> None:
    spec = subject.new_spec()
    subject.driver.ensure_machine(spec)
    [nic] = spec.nics
    for _ in range(2):
        subject.driver.set_macs(spec.machine_id, {nic.nic_id: "52:54:00:12:34:56"})
    subject.driver.set_macs(spec.machine_id, {})
    with pytest.raises(PermanentError):
        subject.driver.set_macs(spec.machine_id, {"nic-unknown0": "52:54:00:12:34:57"})
    assert subject.driver.inspect_machine(spec.machine_id) == subject.driver.ensure_machine(spec)


def test_ensure_after_a_resize_does_not_undo_it(subject: ComputeSubject) -> None:
    spec = subject.new_spec()
    subject.driver.ensure_machine(spec)
    subject.driver.resize_machine(spec.machine_id, vcpus=2, memory_mib=192)
    state = subject.driver.ensure_machine(replace(spec, vcpus=2, memory_mib=192))
    assert (state.vcpus, state.memory_mib) == (2, 192)


def test_rebuild_keeps_the_id_and_shows_the_new_generation(subject: ComputeSubject) -> None:
    spec = subject.new_spec()
    subject.driver.ensure_machine(spec)
    for _ in range(2):
        state = subject.driver.ensure_machine(replace(spec, generation=1))
        assert (state.machine_id, state.generation, state.power) == (spec.machine_id, 1, PowerState.STOPPED)
    assert [state.machine_id for state in subject.driver.inventory()].count(spec.machine_id) == 1


def test_a_rebuild_from_an_unknown_image_leaves_the_old_disk(subject: ComputeSubject) -> None:
    spec = subject.new_spec()
    before = subject.driver.ensure_machine(spec)
    with pytest.raises(NotFoundError):
        subject.driver.ensure_machine(replace(spec, generation=1, image_id="img-zzzz9999"))
    assert subject.driver.inspect_machine(spec.machine_id) == before


def test_an_inventory_can_be_had_in_parts(subject: ComputeSubject) -> None:
    made = sorted(subject.driver.ensure_machine(subject.new_spec()).machine_id for _ in range(3))
    paged, after = [], ""
    while page := subject.driver.inventory(after=after, limit=2):
        assert len(page) <= 2
        after = page[-1].machine_id
        paged += page
    everything = subject.driver.inventory()
    assert [state.machine_id for state in everything] == sorted(state.machine_id for state in everything)
    assert paged == everything
    chosen = subject.driver.inventory(only={made[0], made[2], UNKNOWN})
    assert [state.machine_id for state in chosen] == [made[0], made[2]]
    assert [state.machine_id for state in subject.driver.inventory(only=made, after=made[0], limit=1)] == [made[1]]
    assert subject.driver.inventory(only=[]) == []


def test_inventory_lists_exactly_what_was_made(subject: ComputeSubject) -> None:
    before = {state.machine_id for state in subject.driver.inventory()}
    specs = [subject.new_spec() for _ in range(2)]
    for spec in specs:
        subject.driver.ensure_machine(spec)
    after = {state.machine_id for state in subject.driver.inventory()}
    assert after - before == {spec.machine_id for spec in specs}
    assert before <= after


def test_calls_may_come_from_many_threads(subject: ComputeSubject) -> None:
    driver, specs = subject.driver, [subject.new_spec() for _ in range(4)]
    with ThreadPoolExecutor(len(specs)) as pool:
        states = list(pool.map(driver.ensure_machine, specs))
        assert [state.machine_id for state in states] == [spec.machine_id for spec in specs]
        assert {spec.machine_id for spec in specs} <= {state.machine_id for state in driver.inventory()}
        list(pool.map(driver.remove_machine, [spec.machine_id for spec in specs]))
        assert list(pool.map(driver.inspect_machine, [spec.machine_id for spec in specs])) == [None] * len(specs)


def test_another_deployment_sees_and_touches_nothing_of_ours(subject: ComputeSubject) -> None:
    stranger = subject.open_stranger()
    if stranger is None:
        pytest.skip("this subject has no second deployment")
    try:
        spec = subject.new_spec()
        subject.driver.ensure_machine(spec)
        assert stranger.inventory() == []
        assert stranger.inspect_machine(spec.machine_id) is None
        stranger.remove_machine(spec.machine_id)
        assert subject.driver.inspect_machine(spec.machine_id) is not None
    finally:
        stranger.close()


# --- what a driver does not declare it refuses -------------------------------------------------------------


@pytest.mark.parametrize("flag", ["privileged", "nesting"])
def test_flags_of_containers_work_or_are_refused_as_declared(subject: ComputeSubject, flag: str) -> None:
    spec = subject.new_spec(**{flag: True})
    if ComputeCapability(flag) in subject.driver.capabilities:
        assert subject.driver.ensure_machine(spec).power is PowerState.STOPPED
        return
    with pytest.raises(UnsupportedError):
        subject.driver.ensure_machine(spec)
    assert subject.driver.inspect_machine(spec.machine_id) is None


def test_what_is_not_in_capabilities_is_refused(subject: ComputeSubject) -> None:
    driver, spec = subject.driver, subject.new_spec()
    driver.ensure_machine(spec)
    if ComputeCapability.EXEC not in driver.capabilities:
        with pytest.raises(UnsupportedError):
            driver.execute(spec.machine_id, ["true"], timeout_s=5)
    if ComputeCapability.CONSOLE not in driver.capabilities:
        with pytest.raises(UnsupportedError):
            driver.read_console(spec.machine_id, tail_bytes=10)
    if ComputeCapability.FILE_PUSH not in driver.capabilities:
        with pytest.raises(UnsupportedError):
            driver.push_file(spec.machine_id, GuestFile(path="/tmp/x", content=b""))


# --- a running guest ---------------------------------------------------------------------------------------


def test_a_started_machine_runs_and_its_guest_becomes_ready(running: SharedMachine) -> None:
    assert running.state().power is PowerState.RUNNING
    assert running.driver.is_guest_ready(running.machine_id)
    assert running.machine_id in [s.machine_id for s in running.driver.inventory() if s.power is PowerState.RUNNING]


def test_start_and_ensure_of_a_running_machine_change_nothing(running: SharedMachine) -> None:
    before = running.state()
    assert running.driver.start_machine(running.machine_id).power is PowerState.RUNNING
    assert running.driver.ensure_machine(running.spec).power is PowerState.RUNNING
    assert running.state() == before
    assert running.driver.is_guest_ready(running.machine_id)


def test_a_running_machine_is_neither_resized_nor_rebuilt_nor_given_other_macs(running: SharedMachine) -> None:
    before = running.state()
    with pytest.raises(PermanentError):
        running.driver.resize_machine(running.machine_id, vcpus=2, memory_mib=256)
    with pytest.raises(PermanentError):
        running.driver.ensure_machine(replace(running.spec, generation=running.spec.generation + 1))
    with pytest.raises(PermanentError):
        running.driver.set_macs(running.machine_id, {running.spec.nics[0].nic_id: "52:54:00:12:34:56"})
    assert running.state() == before


def test_exec_returns_exit_code_and_both_outputs(running: SharedMachine) -> None:
    requires(running.subject, ComputeCapability.EXEC)
    result = running.run("sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.exit_code, result.stdout, result.stderr) == (7, b"out\n", b"err\n")
    assert not result.truncated
    assert running.run("true").exit_code == 0
    assert running.run("false").exit_code == 1


def test_exec_uses_no_shell_and_keeps_arguments_apart(running: SharedMachine) -> None:
    requires(running.subject, ComputeCapability.EXEC)
    arguments = ["a  b", "$HOME; exit 3", "'quoted'", "*", "grüße"]
    assert running.output_of(["echo", *arguments]) == " ".join(arguments) + "\n"


def test_exec_runs_as_root(running: SharedMachine) -> None:
    requires(running.subject, ComputeCapability.EXEC)
    assert running.output_of(["id", "-u"]).strip() == "0"


def test_exec_feeds_standard_input_byte_for_byte(running: SharedMachine) -> None:
    requires(running.subject, ComputeCapability.EXEC)
    data = bytes(range(256)) * 8
    assert running.run("cat", stdin=data).stdout == data


def test_exec_takes_much_input(running: SharedMachine) -> None:
    requires(running.subject, ComputeCapability.EXEC)
    result = running.run("wc", "-c", stdin=b"x" * 65_536)
    assert (result.exit_code, result.stdout.strip()) == (0, b"65536")


def test_exec_without_input_reads_an_empty_one(running: SharedMachine) -> None:
    requires(running.subject, ComputeCapability.EXEC)
    result = running.run("cat")
    assert (result.exit_code, result.stdout) == (0, b"")


def test_exec_of_an_unknown_command_ends_with_127(running: SharedMachine) -> None:
    requires(running.subject, ComputeCapability.EXEC)
    assert running.run("no-such-command").exit_code == 127
    assert running.run("/no/such/file").exit_code == 127


def test_exec_of_something_not_executable_ends_with_126(running: SharedMachine) -> None:
    requires(running.subject, ComputeCapability.EXEC)
    assert running.run("/etc/passwd").exit_code == 126


def test_exec_that_runs_out_of_time_ends_with_124(running: SharedMachine) -> None:
    requires(running.subject, ComputeCapability.EXEC)
    assert running.run("sleep", "100", timeout_s=1).exit_code == 124
    assert running.output_of(["echo", "still there"]) == "still there\n"


def test_exec_cuts_output_at_the_limit_and_says_so(running: SharedMachine) -> None:
    requires(running.subject, ComputeCapability.EXEC)
    result = running.run("head", "-c", str(OUTPUT_LIMIT_BYTES + 5000), "/dev/zero")
    assert result.exit_code == 0
    assert result.truncated
    assert result.stdout == bytes(OUTPUT_LIMIT_BYTES)


def test_a_pushed_file_arrives_with_content_and_mode(running: SharedMachine) -> None:
    requires(running.subject, ComputeCapability.FILE_PUSH)
    content = bytes(range(256)) + b"no newline at the end"
    running.driver.push_file(running.machine_id, GuestFile(path="/root/pushed", content=content, mode=0o750))
    if ComputeCapability.EXEC in running.driver.capabilities:
        assert running.run("cat", "/root/pushed").stdout == content
        assert running.output_of(["ls", "-l", "/root/pushed"]).startswith("-rwxr-x---")
    running.driver.push_file(running.machine_id, GuestFile(path="/root/pushed", content=b"short"))
    if ComputeCapability.EXEC in running.driver.capabilities:
        assert running.run("cat", "/root/pushed").stdout == b"short"


def test_the_guest_knows_who_it_is(running: SharedMachine) -> None:
    requires(running.subject, ComputeCapability.EXEC)
    if not running.subject.serves_metadata:
        pytest.skip("this subject's guests are told nothing")
    assert running.output_of(["hostname"]).strip() == running.spec.hostname
    # Compared exactly: readers of this file do not strip a newline.
    assert running.output_of(["cat", "/etc/qingcloud/instance-id"]) == running.machine_id


def test_the_guest_has_the_shape_and_the_nic_asked_for(running: SharedMachine) -> None:
    requires(running.subject, ComputeCapability.EXEC)
    assert running.spec.nics[0].mac in running.output_of(["ip", "addr"])
    if running.subject.kind is MachineKind.VM:  # a container may see the host's processors
        assert int(running.output_of(["nproc"])) == running.state().vcpus


def test_the_console_shows_the_boot_and_its_tail_is_cut(running: SharedMachine) -> None:
    requires(running.subject, ComputeCapability.CONSOLE)
    text = running.driver.read_console(running.machine_id, tail_bytes=1_000_000)
    assert len(text) > 10  # a container machine may say no more than "READY i-..."
    assert running.driver.read_console(running.machine_id, tail_bytes=10) == text[-10:]


def test_what_the_guest_writes_to_its_console_can_be_read(running: SharedMachine) -> None:
    requires(running.subject, ComputeCapability.CONSOLE)
    requires(running.subject, ComputeCapability.EXEC)
    running.output_of(["sh", "-c", "echo marker-4711 > /dev/console"])
    running.subject.wait_for(
        lambda: b"marker-4711" in running.driver.read_console(running.machine_id, tail_bytes=4096), 10, "the marker"
    )


def test_a_reopened_driver_finds_the_same_machines(running: SharedMachine) -> None:
    before = sorted(running.driver.inventory(), key=lambda state: state.machine_id)
    old = running.driver
    running.subject.reopen()
    assert running.driver is not old
    assert sorted(running.driver.inventory(), key=lambda state: state.machine_id) == before
    assert running.driver.is_guest_ready(running.machine_id)
    assert running.driver.ensure_machine(running.spec).power is PowerState.RUNNING


# --- stopping, and what survives it: each of these costs the next test a boot -------------------------------


def test_a_guest_asked_to_stop_does_so(running: SharedMachine) -> None:
    requires(running.subject, ComputeCapability.GRACEFUL_STOP)
    state = running.driver.stop_machine(running.machine_id, force=False)
    assert state.power in {PowerState.RUNNING, PowerState.STOPPING, PowerState.STOPPED}
    # Asking again while it stops is allowed: a request sent during the boot is lost on real guests.
    running.driver.stop_machine(running.machine_id, force=False)
    running.wait_for_power(PowerState.STOPPED)
    assert not running.driver.is_guest_ready(running.machine_id)
    assert running.driver.stop_machine(running.machine_id, force=False).power is PowerState.STOPPED


def test_disk_and_new_shape_are_there_after_a_restart(running: SharedMachine) -> None:
    requires(running.subject, ComputeCapability.EXEC)
    running.output_of(["sh", "-c", "echo kept > /root/kept; sync"])  # synced, since its power is cut
    running.bring_down()
    assert not running.driver.is_guest_ready(running.machine_id)
    with pytest.raises(GuestUnavailableError):
        running.run("true")
    running.driver.resize_machine(running.machine_id, vcpus=2, memory_mib=running.spec.memory_mib)
    running.spec = replace(running.spec, vcpus=2)
    running.bring_up()
    assert running.output_of(["cat", "/root/kept"]) == "kept\n"
    if running.subject.kind is MachineKind.VM:
        assert running.output_of(["nproc"]).strip() == "2"
    if ComputeCapability.CONSOLE in running.driver.capabilities:
        assert len(running.driver.read_console(running.machine_id, tail_bytes=1_000_000)) > 20


def test_a_rebuilt_machine_has_a_fresh_disk_and_its_old_identity(running: SharedMachine) -> None:
    requires(running.subject, ComputeCapability.EXEC)
    mac = running.spec.nics[0].mac
    running.output_of(["sh", "-c", "echo old > /root/old; sync"])
    running.bring_down()
    state = running.rebuild()
    assert (state.machine_id, state.generation) == (running.machine_id, running.spec.generation)
    assert state.power is PowerState.STOPPED
    running.bring_up()
    assert running.run("cat", "/root/old").exit_code != 0
    assert mac in running.output_of(["ip", "addr"])
    if running.subject.serves_metadata:
        assert running.output_of(["cat", "/etc/qingcloud/instance-id"]) == running.machine_id


def test_a_guest_that_powers_itself_off_shows_as_stopped_and_is_heard_of(running: SharedMachine) -> None:
    requires(running.subject, ComputeCapability.EXEC)
    heard: list[tuple[str, PowerState]] = []
    running.driver.on_lifecycle(lambda machine_id, power: heard.append((machine_id, power)))
    with contextlib.suppress(TransientError):  # the agent may die before it can answer
        running.run("poweroff")
    running.wait_for_power(PowerState.STOPPED)
    running.subject.wait_for(
        lambda: (running.machine_id, PowerState.STOPPED) in heard, running.subject.stop_timeout_s, "the listener"
    )
    assert not running.driver.is_guest_ready(running.machine_id)


def test_a_file_pushed_into_a_stopped_machine_is_there_after_its_start_or_refused(stopped: SharedMachine) -> None:
    requires(stopped.subject, ComputeCapability.FILE_PUSH)
    file = GuestFile(path="/root/early", content=ids.suffix(stopped.machine_id).encode())
    try:
        stopped.driver.push_file(stopped.machine_id, file)
    except GuestUnavailableError:
        return  # this driver reaches running guests only
    stopped.bring_up()
    assert stopped.run("cat", "/root/early").stdout == file.content


def test_a_forced_stop_is_over_soon_and_removal_does_not_wait_for_a_stop(subject: ComputeSubject) -> None:
    driver, spec = subject.driver, subject.new_spec()

    def power() -> PowerState | None:
        state = driver.inspect_machine(spec.machine_id)
        return state.power if state else None

    driver.ensure_machine(spec)
    driver.start_machine(spec.machine_id)
    subject.wait_for(lambda: power() is PowerState.RUNNING, subject.boot_timeout_s, "power running")
    driver.stop_machine(spec.machine_id, force=True)  # long before the guest could obey
    subject.wait_for(lambda: power() is PowerState.STOPPED, 10, "the power to be cut")
    driver.start_machine(spec.machine_id)
    driver.remove_machine(spec.machine_id)
    assert driver.inspect_machine(spec.machine_id) is None
    assert spec.machine_id not in [state.machine_id for state in driver.inventory()]
    assert not driver.is_guest_ready(spec.machine_id)
