"""The scripted guest: what answers ``exec`` in a simulated machine.

No processor is emulated. A small command set works on a remembered file tree, in no time at all: a
``sleep`` only counts, so that a command runs out of its time without anybody waiting.
"""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Sequence
from typing import Literal

from iaas.drivers.interface import ExecResult
from iaas.drivers.sim import commands, console, ip_command, traffic_commands
from iaas.drivers.sim.command_table import OutOfTimeError
from iaas.drivers.sim.guest_facts import KERNEL, GuestFacts, read_facts
from iaas.drivers.sim.guest_files import COMMAND_FOLDERS, EndlessReadError, GuestFileError, GuestFiles
from iaas.drivers.sim.shell import Outcome, Shell
from iaas.kernel.units import KIB, MIB

OUTPUT_LIMIT_BYTES = MIB
NOT_EXECUTABLE = 126
NOT_FOUND = 127
OUT_OF_TIME = 124
_PATH = ":".join(reversed(COMMAND_FOLDERS))
_COMMANDS = {**commands.COMMANDS, **ip_command.COMMANDS, **traffic_commands.COMMANDS}
_PROGRAMS = frozenset(f"/bin/{name}" for name in _COMMANDS)


class Guest:
    """One machine's guest, for the length of one driver call. Its files are in the world's database."""

    def __init__(self, connection: sqlite3.Connection, facts: GuestFacts) -> None:
        self.connection = connection
        self.facts = facts
        self.namespace = ""  # of the network, that commands run in
        self.lost_nic_ids: list[str] = []  # whose links died by what the commands did
        self.files = open_files(connection, facts, self.namespace)
        self.env = {"PATH": _PATH, "HOME": "/root", "USER": "root"}
        self.folder = "/"
        self.power_request: Literal["", "poweroff", "reboot"] = ""
        self._left_s = float("inf")
        self._depth = 0

    @property
    def hostname(self) -> str:
        """The host name as the guest has it, changed or not."""
        if not self.files.is_file("/etc/hostname"):
            return self.facts.hostname
        return self.files.read("/etc/hostname").decode(errors="replace").strip()

    def enter(self, namespace: str) -> None:
        """Let further commands run in a network namespace of the guest ("" is the first one)."""
        self.namespace = namespace
        self.refresh()

    def refresh(self) -> None:
        """Look at the world again, after a command has changed what the guest knows of it."""
        self.facts = read_facts(self.connection, self.facts.machine_id, self.facts.now_us)
        self.files = open_files(self.connection, self.facts, self.namespace)

    def peer(self, machine_id: str) -> Guest:
        """Return the guest of another machine, at the same moment."""
        return Guest(self.connection, read_facts(self.connection, machine_id, self.facts.now_us))

    def execute(self, argv: Sequence[str], *, timeout_s: float, stdin: bytes) -> ExecResult:
        """Run a command to its end, or to the end of its time, without any time passing."""
        self._left_s = timeout_s
        try:
            # Lone surrogates can come in by way of JSON, and are no text that could be stored.
            outcome = self.command([each.encode(errors="replace").decode() for each in argv], stdin)
        except (OutOfTimeError, EndlessReadError):
            outcome = Outcome(OUT_OF_TIME)
        return ExecResult(
            exit_code=outcome.exit_code,
            stdout=outcome.stdout[:OUTPUT_LIMIT_BYTES],
            stderr=outcome.stderr[:OUTPUT_LIMIT_BYTES],
            truncated=max(len(outcome.stdout), len(outcome.stderr)) > OUTPUT_LIMIT_BYTES,
        )

    def spend(self, seconds: float) -> None:
        """Let the command take ``seconds`` of its time.

        Raises:
            OutOfTimeError: it has no more.
        """
        self._left_s -= seconds
        if self._left_s < 0:
            raise OutOfTimeError

    def command(self, argv: list[str], stdin: bytes) -> Outcome:
        """Run one program: of the command set, or a script among the guest's files."""
        if not argv or not argv[0]:
            return Outcome(NOT_FOUND, b"", b"exec: a command is missing\n")
        name = argv[0]
        if "/" in name:
            path = self.files.absolute(name, self.folder)
            mode = self.files.mode(path)
            if mode is None:
                return Outcome(NOT_FOUND, b"", f"exec: {name}: not found\n".encode())
            if not stat.S_ISREG(mode) or not mode & 0o111:
                return Outcome(NOT_EXECUTABLE, b"", f"exec: {name}: Permission denied\n".encode())
            if path not in _PROGRAMS:
                return self._script(path, argv, stdin)
            name = path.rpartition("/")[2]
        program = _COMMANDS.get(name)
        if program is None:
            return Outcome(NOT_FOUND, b"", f"exec: {name}: not found\n".encode())
        try:
            return program(self, argv[1:], stdin)
        except GuestFileError as exc:
            return Outcome(1, b"", f"{name}: {exc}\n".encode())

    def shell(self, script: str, stdin: bytes) -> Outcome:
        """Run a shell script in this guest."""
        if self._depth >= 20:  # a script that runs itself must not take the emulator down
            return Outcome(2, b"", b"sh: too many shells inside each other\n")
        self._depth += 1
        try:
            return Shell(self).run(script, stdin)
        finally:
            self._depth -= 1

    def _script(self, path: str, argv: list[str], stdin: bytes) -> Outcome:
        text = self.files.read(path).decode(errors="surrogateescape")
        first, _, rest = text.partition("\n")
        if not first.startswith("#!"):
            return self.shell(text, stdin)
        if first[2:].split()[:1] not in (["/bin/sh"], ["/bin/bash"], ["/bin/ash"]):
            return Outcome(NOT_FOUND, b"", f"exec: {argv[0]}: {first[2:].strip()} is not simulated\n".encode())
        return self.shell(rest, stdin)


def open_files(connection: sqlite3.Connection, facts: GuestFacts, namespace: str) -> GuestFiles:
    """Return the file tree of a guest, as a command in that network namespace sees it."""

    def write_console(content: bytes) -> None:
        console.record(
            connection,
            facts.machine_id,
            console.ConsoleEvent.TEXT,
            at_us=facts.now_us,
            text=content.decode(errors="replace").replace("\x00", ""),
        )

    return GuestFiles(
        connection,
        facts.machine_id,
        base=_base_files(facts, namespace),
        programs=_PROGRAMS,
        on_console=write_console,
    )


def _base_files(facts: GuestFacts, namespace: str) -> dict[str, bytes]:
    total_kib = facts.memory_mib * MIB // KIB
    texts = {
        "/etc/hostname": f"{facts.hostname}\n",
        "/etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {facts.hostname}\n",
        "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
        "/etc/group": "root:x:0:\n",
        "/etc/os-release": 'ID=tiny\nNAME="tiny"\nPRETTY_NAME="tiny (simulated)"\n',
        # Exactly the id: its readers do not strip a newline.
        "/etc/qingcloud/instance-id": facts.machine_id,
        "/proc/cpuinfo": "\n".join(f"processor\t: {n}\nmodel name\t: simulated\n" for n in range(facts.vcpus)),
        "/proc/meminfo": "".join(
            f"{name + ':':<16}{value:>8} kB\n"
            for name, value in (
                ("MemTotal", total_kib),
                ("MemFree", total_kib * 3 // 4),
                ("MemAvailable", total_kib * 3 // 4),
            )
        ),
        "/proc/uptime": f"{facts.uptime_s:.2f} {facts.uptime_s * facts.vcpus:.2f}\n",
        "/proc/version": f"Linux version {KERNEL}\n",
        "/run/iaas-ready": "",
    }
    texts |= _network_files(facts, namespace)
    return {path: text.encode() for path, text in texts.items()}


def _network_files(facts: GuestFacts, namespace: str) -> dict[str, str]:
    texts = {"/etc/resolv.conf": ""}
    if facts.dns_domain:
        texts["/etc/resolv.conf"] = f"search {facts.dns_domain}\n"
    texts["/etc/resolv.conf"] += "".join(f"nameserver {server}\n" for server in facts.dns_servers)
    links = [("lo", "00:00:00:00:00:00", 65536, 1)]
    links += [(nic.name, nic.mac, nic.mtu, nic.device_index + 2) for nic in facts.nics if nic.namespace == namespace]
    for name, mac, mtu, number in links:
        folder = f"/sys/class/net/{name}"
        texts[f"{folder}/address"] = f"{mac}\n"
        texts[f"{folder}/mtu"] = f"{mtu}\n"
        texts[f"{folder}/ifindex"] = f"{number}\n"
        texts[f"{folder}/operstate"] = "unknown\n" if name == "lo" else "up\n"
    return texts
