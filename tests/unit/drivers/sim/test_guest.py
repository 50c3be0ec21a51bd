from __future__ import annotations

from dataclasses import replace

import pytest

from iaas.drivers.interface import ExecResult, GuestFile, MachineSpec, PermanentError
from iaas.drivers.sim.compute import SimComputeDriver
from iaas.kernel.clock import CloudClock
from tests.unit.drivers.sim.conftest import VM_ID


def run(driver: SimComputeDriver, *argv: str, stdin: bytes = b"", timeout_s: float = 10) -> ExecResult:
    return driver.execute(VM_ID, argv, timeout_s=timeout_s, stdin=stdin)


def sh(driver: SimComputeDriver, script: str, *, stdin: bytes = b"") -> tuple[int, str]:
    result = run(driver, "sh", "-c", script, stdin=stdin)
    return result.exit_code, (result.stdout + result.stderr).decode()


@pytest.mark.parametrize(
    ("argv", "output"),
    [
        (["echo", "a", "b"], "a b\n"),
        (["echo", "-n", "a"], "a"),
        (["printf", "%s-%d\\n", "a", "1"], "a-1\n"),
        (["hostname"], "web-1\n"),
        (["uname"], "Linux\n"),
        (["uname", "-r"], "sim\n"),
        (["uname", "-n"], "web-1\n"),
        (["id"], "uid=0(root) gid=0(root) groups=0(root)\n"),
        (["id", "-u"], "0\n"),
        (["whoami"], "root\n"),
        (["nproc"], "2\n"),
        (["pwd"], "/\n"),
        (["cat", "/etc/hostname"], "web-1\n"),
        (["cat", "/etc/qingcloud/instance-id"], VM_ID),
        (["/bin/cat", "/etc/../etc/hostname"], "web-1\n"),
        (["ls", "/etc/qingcloud"], "instance-id\n"),
        (["ls", "/var"], "log\nwww\n"),
        (["grep", "-c", "processor", "/proc/cpuinfo"], "2\n"),
        (["grep", "MemTotal", "/proc/meminfo"], "MemTotal:         524288 kB\n"),
        (["head", "-c", "3", "/dev/zero"], "\0\0\0"),
        (["wc", "-c", "/etc/hostname"], "6\n"),
        (["sync"], ""),
        (["date", "+%Y"], None),
    ],
)
def test_commands_answer_as_in_a_real_guest(ready_vm: SimComputeDriver, argv: list[str], output: str | None) -> None:
    result = run(ready_vm, *argv)
    assert (result.exit_code, result.stderr) == (0, b"")
    if output is not None:
        assert result.stdout.decode() == output


def test_the_guest_sees_its_nic_with_mac_and_address(ready_vm: SimComputeDriver) -> None:
    text = run(ready_vm, "ip", "addr").stdout.decode()
    assert "link/ether 52:54:00:00:00:01" in text
    assert "inet 10.0.0.10/24" in text
    assert "10.0.0.10" not in run(ready_vm, "ip", "link").stdout.decode()
    assert run(ready_vm, "ip", "tunnel").exit_code == 1


@pytest.mark.parametrize(
    ("script", "code", "output"),
    [
        ("echo a; echo b", 0, "a\nb\n"),
        ("true && echo yes || echo no", 0, "yes\n"),
        ("false && echo yes || echo no", 0, "no\n"),
        ("false; echo $?", 0, "1\n"),
        ("! false", 0, ""),
        ("exit 7; echo never", 7, ""),
        ("echo 'a;  b' \"c && d\" e\\ f", 0, "a;  b c && d e f\n"),
        ("A=1; echo $A ${A}2 '$A' \"$A\" [$NOPE]", 0, "1 12 $A 1 []\n"),
        ("A=x env | grep ^A=; echo [$A]", 0, "A=x\n[]\n"),
        ("export B=2; env | grep ^B=", 0, "B=2\n"),
        ("echo $(hostname)-$(echo $(echo deep))", 0, "web-1-deep\n"),
        ("echo one > /tmp/f; echo two >> /tmp/f; cat /tmp/f", 0, "one\ntwo\n"),
        ("cat < /etc/hostname", 0, "web-1\n"),
        ("echo a | cat | wc -l", 0, "1\n"),
        ("printf 'b\\na\\n' | grep a", 0, "a\n"),
        ("cat /none 2>/dev/null || echo gone", 0, "gone\n"),
        ("cat /none > /tmp/all 2>&1; wc -l /tmp/all", 0, "1\n"),
        ("echo oops >&2", 0, "oops\n"),
        ("test -e /etc/hostname && [ -d /etc ] && [ ! -e /none ] && echo ok", 0, "ok\n"),
        ("[ 3 -gt 2 ] && [ a != b ] && test -n x && test -z '' && echo ok", 0, "ok\n"),
        ("mkdir -p /srv/a/b && touch /srv/a/b/c && ls /srv/a/b", 0, "c\n"),
        ("echo x > /tmp/x; rm /tmp/x; test -e /tmp/x", 1, ""),
        ("rm -rf /etc/qingcloud; ls /etc/qingcloud 2>/dev/null", 1, ""),
        ("cd /etc; pwd; cat hostname", 0, "/etc\nweb-1\n"),
        ("# only a comment", 0, ""),
        ("echo a # and a comment", 0, "a\n"),
        ("echo a#b", 0, "a#b\n"),
        ("hostname other; hostname", 0, "other\n"),
        ("echo hi | tee /tmp/t | cat; cat /tmp/t", 0, "hi\nhi\n"),
        ("echo 1\necho 2\n\n", 0, "1\n2\n"),
        ("no-such-thing", 127, "exec: no-such-thing: not found\n"),
        ("true &&\n\necho joined", 0, "joined\n"),
        ("false ||\n echo other;\n", 0, "other\n"),
        ("", 0, ""),
    ],
)
def test_the_shell_runs_simple_scripts(ready_vm: SimComputeDriver, script: str, code: int, output: str) -> None:
    assert sh(ready_vm, script) == (code, output)


@pytest.mark.parametrize(
    "script",
    [
        "if true; then echo a; fi",
        "for a in b; do echo $a; done",
        "sleep 1 &",
        "(echo a)",
        "echo 'open",
        "echo $(a",
        ";;",
        "echo ${A:-b}",
        "echo >",
        "cat < /none",
        "&& echo a",
        "true &&",
        "a |",
    ],
)
def test_what_the_shell_cannot_do_it_says(ready_vm: SimComputeDriver, script: str) -> None:
    code, output = sh(ready_vm, script)
    assert code == 2
    assert output.startswith("sh: ")


def test_a_sleep_takes_no_time_and_still_runs_out_of_it(ready_vm: SimComputeDriver, clock: CloudClock) -> None:
    before = clock.now()
    assert run(ready_vm, "sleep", "100", timeout_s=1).exit_code == 124
    assert run(ready_vm, "sleep", "1", timeout_s=1).exit_code == 0
    assert run(ready_vm, "sh", "-c", "sleep 0.6; sleep 0.6", timeout_s=1).exit_code == 124
    assert run(ready_vm, "cat", "/dev/zero").exit_code == 124
    assert clock.now() == before


def test_what_was_done_before_time_ran_out_stays_done(ready_vm: SimComputeDriver) -> None:
    run(ready_vm, "sh", "-c", "echo a > /tmp/a; sleep 100", timeout_s=1)
    assert run(ready_vm, "cat", "/tmp/a").stdout == b"a\n"


def test_a_pushed_script_runs_when_it_may(ready_vm: SimComputeDriver) -> None:
    script = b"#!/bin/sh\necho from $(hostname)\nexit 3\n"
    ready_vm.push_file(VM_ID, GuestFile(path="/opt/tool/run", content=script))
    assert run(ready_vm, "/opt/tool/run").exit_code == 126
    assert run(ready_vm, "chmod", "+x", "/opt/tool/run").exit_code == 0
    result = run(ready_vm, "/opt/tool/run")
    assert (result.exit_code, result.stdout) == (3, b"from web-1\n")
    assert run(ready_vm, "sh", "/opt/tool/run").exit_code == 3


def test_a_script_that_calls_itself_ends(ready_vm: SimComputeDriver) -> None:
    ready_vm.push_file(VM_ID, GuestFile(path="/root/loop", content=b"#!/bin/sh\n/root/loop\n", mode=0o755))
    assert run(ready_vm, "/root/loop").exit_code == 2


def test_a_path_that_is_not_absolute_or_is_a_folder_is_refused(ready_vm: SimComputeDriver) -> None:
    for path in ("relative", "/etc", "/etc/hostname/below"):
        with pytest.raises(PermanentError):
            ready_vm.push_file(VM_ID, GuestFile(path=path, content=b""))


def test_files_last_until_the_rebuild(ready_vm: SimComputeDriver, spec: MachineSpec, clock: CloudClock) -> None:
    sh(ready_vm, "echo a > /root/a; rm /etc/os-release")
    ready_vm.stop_machine(VM_ID, force=True)
    clock.advance(1)
    ready_vm.ensure_machine(replace(spec, generation=1, hostname="web-2"))
    ready_vm.start_machine(VM_ID)
    clock.advance(10)
    assert sh(ready_vm, "ls /root; hostname; grep -c tiny /etc/os-release") == (0, "web-2\n3\n")


@pytest.mark.parametrize(
    "argv",
    [
        ["cat", "\ud800"],
        ["\udcff"],
        [""],
        [],
        ["echo", "\ud800"],
        ["sh", "-c", "echo $(cat /root/binary) > /dev/console; ls $(cat /root/binary); echo x > $(cat /root/binary)"],
        ["grep", "(", "/etc/hostname"],
        ["head", "-n", "x"],
        ["sleep", "soon"],
        ["test", "a", "-eq", "b"],
        ["sh", "--weird"],
        ["tail", "-c", "0", "/etc/hostname"],
        ["printf"],
        ["chmod", "9", "/etc/hostname"],
        ["sleep", "nan"],
        ["sleep", "1e999"],
        ["touch", "/none/here", "\0"],
        ["date", "+%\ud800"],
    ],
)
def test_odd_input_ends_the_command_and_nothing_else(ready_vm: SimComputeDriver, argv: list[str]) -> None:
    ready_vm.push_file(VM_ID, GuestFile(path="/root/binary", content=bytes(range(1, 256))))
    run(ready_vm, *argv)
    ready_vm.read_console(VM_ID, tail_bytes=10_000)
    assert ready_vm.is_guest_ready(VM_ID)
