"""The commands that simulated guests know, but for those of the network."""

from __future__ import annotations

import hashlib
import re
import stat
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from iaas.drivers.sim.command_table import USAGE, CommandTable, encoded, options_of, wrong
from iaas.drivers.sim.guest_files import GuestFileError
from iaas.drivers.sim.shell import Outcome

if TYPE_CHECKING:
    from iaas.drivers.sim.guest import Guest

COMMANDS = CommandTable()
_ESCAPES = {"\\n": "\n", "\\t": "\t", "\\r": "\r", "\\\\": "\\", "\\0": "\0"}


def _read_all(guest: Guest, name: str, paths: list[str], stdin: bytes) -> Outcome:
    """Return the joined content of ``paths`` (``stdin`` without any), with an error for each that fails."""
    if not paths:
        return Outcome(0, stdin)
    out, err = b"", b""
    for path in paths:
        try:
            out += stdin if path == "-" else guest.files.read(guest.files.absolute(path, guest.folder))
        except GuestFileError as exc:
            err += encoded(f"{name}: {path}: {exc}\n")
    return Outcome(1 if err else 0, out, err)


@COMMANDS.add("true", "sync", ":")
def _true(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    return Outcome(0)


@COMMANDS.add("false")
def _false(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    return Outcome(1)


@COMMANDS.add("echo")
def _echo(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    newline = "\n"
    if arguments[:1] == ["-n"]:
        arguments, newline = arguments[1:], ""
    return Outcome(0, encoded(" ".join(arguments) + newline))


@COMMANDS.add("printf")
def _printf(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    if not arguments:
        return wrong("printf", "a format is missing")
    template = re.sub(r"\\[ntr0\\]", lambda match: _ESCAPES[match[0]], arguments[0])
    values = iter(arguments[1:])
    return Outcome(0, encoded(re.sub(r"%[sd%]", lambda m: "%" if m[0] == "%%" else next(values, ""), template)))


@COMMANDS.add("cat")
def _cat(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    return _read_all(guest, "cat", arguments, stdin)


@COMMANDS.add("head")
def _head(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    return _part(guest, "head", arguments, stdin)


@COMMANDS.add("tail")
def _tail(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    return _part(guest, "tail", arguments, stdin)


def _part(guest: Guest, name: str, arguments: list[str], stdin: bytes) -> Outcome:
    unit, count = "-n", 10
    if arguments[:1] in (["-n"], ["-c"]):
        if len(arguments) < 2 or not arguments[1].isdecimal():
            return wrong(name, "invalid number")
        unit, count, arguments = arguments[0], int(arguments[1]), arguments[2:]
    if name == "head" and unit == "-c" and len(arguments) == 1:
        # The one way to read from a device that never ends.
        path = guest.files.absolute(arguments[0], guest.folder)
        return Outcome(0, guest.files.read(path, limit_bytes=count))
    outcome = _read_all(guest, name, arguments, stdin)
    units = outcome.stdout.splitlines(keepends=True) if unit == "-n" else None
    if units is None:
        part = outcome.stdout[:count] if name == "head" else outcome.stdout[len(outcome.stdout) - count :]
    else:
        part = b"".join(units[:count] if name == "head" else units[max(len(units) - count, 0) :])
    return outcome._replace(stdout=part)


@COMMANDS.add("wc")
def _wc(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    parsed = options_of(arguments, "lwc")
    if parsed is None:
        return wrong("wc", "option not simulated")
    outcome = _read_all(guest, "wc", parsed[1], stdin)
    counts = {
        "l": outcome.stdout.count(b"\n"),
        "w": len(outcome.stdout.split()),
        "c": len(outcome.stdout),
    }
    shown = " ".join(str(counts[each]) for each in "lwc" if not parsed[0] or each in parsed[0])
    return outcome._replace(stdout=encoded(shown + "\n"))


@COMMANDS.add("grep")
def _grep(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    parsed = options_of(arguments, "qivcEF")
    if parsed is None or not parsed[1]:
        return wrong("grep", "usage: grep [-qivcEF] PATTERN [FILE]...")
    options, (pattern, *paths) = parsed
    try:
        wanted = re.compile(
            encoded(re.escape(pattern) if "F" in options else pattern), re.IGNORECASE if "i" in options else 0
        )
    except re.error as exc:
        return wrong("grep", f"bad pattern: {exc}")
    source = _read_all(guest, "grep", paths, stdin)
    lines = [line for line in source.stdout.splitlines() if (wanted.search(line) is None) == ("v" in options)]
    out = b"".join(line + b"\n" for line in lines)
    if "c" in options:
        out = encoded(f"{len(lines)}\n")
    code = USAGE if source.exit_code else int(not lines)
    return Outcome(code, b"" if "q" in options else out, source.stderr)


@COMMANDS.add("sha256sum")
def _sha256sum(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    out = ""
    for path in arguments or ["-"]:
        content = stdin if path == "-" else guest.files.read(guest.files.absolute(path, guest.folder))
        out += f"{hashlib.sha256(content).hexdigest()}  {path}\n"
    return Outcome(0, encoded(out))


@COMMANDS.add("ls")
def _ls(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    parsed = options_of(arguments, "la1d")
    if parsed is None:
        return wrong("ls", "option not simulated")
    options, paths = parsed
    out, err = "", ""
    for shown in paths or ["."]:
        path = guest.files.absolute(shown, guest.folder)
        if guest.files.mode(path) is None:
            err += f"ls: {shown}: No such file or directory\n"
            continue
        folder = guest.files.is_folder(path) and "d" not in options
        for name in guest.files.names(path) if folder else [shown]:
            each = guest.files.absolute(name, path) if folder else path
            out += (_long(guest, each, name) if "l" in options else name) + "\n"
    return Outcome(1 if err else 0, encoded(out), encoded(err))


def _long(guest: Guest, path: str, name: str) -> str:
    mode = guest.files.mode(path) or 0
    size = len(guest.files.read(path)) if stat.S_ISREG(mode) else 0
    return f"{stat.filemode(mode)}    1 root     root     {size:>9} Jan  1 00:00 {name}"


@COMMANDS.add("mkdir")
def _mkdir(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    parsed = options_of(arguments, "p")
    if parsed is None or not parsed[1]:
        return wrong("mkdir", "usage: mkdir [-p] FOLDER...")
    for path in parsed[1]:
        guest.files.make_folder(guest.files.absolute(path, guest.folder), parents="p" in parsed[0])
    return Outcome(0)


@COMMANDS.add("rm")
def _rm(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    parsed = options_of(arguments, "rf")
    if parsed is None:
        return wrong("rm", "option not simulated")
    options, paths = parsed
    for shown in paths:
        path = guest.files.absolute(shown, guest.folder)
        if guest.files.mode(path) is not None or "f" not in options:
            guest.files.remove(path, recursive="r" in options)
    return Outcome(0)


@COMMANDS.add("touch")
def _touch(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    for path in arguments:
        guest.files.write(guest.files.absolute(path, guest.folder), b"", append=True)
    return Outcome(0)


@COMMANDS.add("tee")
def _tee(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    append = arguments[:1] == ["-a"]
    for path in arguments[1:] if append else arguments:
        guest.files.write(guest.files.absolute(path, guest.folder), stdin, append=append)
    return Outcome(0, stdin)


@COMMANDS.add("chmod")
def _chmod(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    if len(arguments) < 2 or not re.fullmatch(r"[0-7]{1,4}|\+x", arguments[0]):
        return wrong("chmod", "usage: chmod OCTAL|+x FILE...")
    for shown in arguments[1:]:
        path = guest.files.absolute(shown, guest.folder)
        bits = (guest.files.mode(path) or 0) & 0o7777 | 0o111 if arguments[0] == "+x" else int(arguments[0], 8)
        guest.files.change_mode(path, bits)
    return Outcome(0)


@COMMANDS.add("test", "[")
def _test(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    if arguments[-1:] == ["]"]:
        arguments = arguments[:-1]
    negated = False
    while len(arguments) > 1 and arguments[0] == "!":
        negated, arguments = not negated, arguments[1:]
    match arguments:
        case []:
            holds = False
        case [text]:
            holds = text != ""
        case ["-n", text]:
            holds = text != ""
        case ["-z", text]:
            holds = text == ""
        case [("-e" | "-f" | "-d" | "-s" | "-x" | "-r" | "-w") as operator, path]:
            holds = _is(guest, operator, guest.files.absolute(path, guest.folder))
        case [left, "=" | "==", right]:
            holds = left == right
        case [left, "!=", right]:
            holds = left != right
        case [left, ("-eq" | "-ne" | "-lt" | "-le" | "-gt" | "-ge") as operator, right]:
            try:
                difference = int(left) - int(right)
            except ValueError:
                return wrong("test", "a number was expected")
            holds = {
                "-eq": difference == 0,
                "-ne": difference != 0,
                "-lt": difference < 0,
                "-le": difference <= 0,
                "-gt": difference > 0,
                "-ge": difference >= 0,
            }[operator]
        case _:
            return wrong("test", "expression not simulated")
    return Outcome(int(holds == negated))


def _is(guest: Guest, operator: str, path: str) -> bool:
    mode = guest.files.mode(path)
    if mode is None:
        return False
    return {
        "-e": True,
        "-r": True,
        "-w": True,
        "-f": stat.S_ISREG(mode),
        "-d": stat.S_ISDIR(mode),
        "-s": stat.S_ISREG(mode) and guest.files.read(path, limit_bytes=1) != b"",
        "-x": bool(mode & 0o111),
    }[operator]


@COMMANDS.add("sleep")
def _sleep(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    try:
        seconds = sum(float(each) for each in arguments)
    except ValueError:
        return wrong("sleep", "invalid number", 1)
    guest.spend(max(seconds, 0.0))
    return Outcome(0)


@COMMANDS.add("hostname")
def _hostname(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    if arguments and not arguments[0].startswith("-"):
        guest.files.write("/etc/hostname", encoded(arguments[0] + "\n"))
        return Outcome(0)
    return Outcome(0, encoded(guest.hostname + "\n"))


@COMMANDS.add("uname")
def _uname(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    parsed = options_of(arguments, "asnrvm")
    if parsed is None:
        return wrong("uname", "option not simulated")
    wanted = set("snrvm") if "a" in parsed[0] else parsed[0] or {"s"}
    values = {"s": "Linux", "n": guest.hostname, "r": "sim", "v": "#1", "m": "x86_64"}
    return Outcome(0, encoded(" ".join(value for letter, value in values.items() if letter in wanted) + "\n"))


@COMMANDS.add("id")
def _id(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    if set(arguments) & {"-n", "-un", "-gn"}:
        return Outcome(0, b"root\n")
    return Outcome(0, b"0\n" if arguments else b"uid=0(root) gid=0(root) groups=0(root)\n")


@COMMANDS.add("whoami")
def _whoami(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    return Outcome(0, b"root\n")


@COMMANDS.add("env")
def _env(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    return Outcome(0, encoded("".join(f"{name}={value}\n" for name, value in guest.env.items())))


@COMMANDS.add("pwd")
def _pwd(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    return Outcome(0, encoded(guest.folder + "\n"))


@COMMANDS.add("nproc")
def _nproc(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    return Outcome(0, encoded(f"{guest.facts.vcpus}\n"))


@COMMANDS.add("date")
def _date(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    now = datetime.fromtimestamp(guest.facts.now_us / 1e6, UTC)
    wanted = next((each for each in arguments if each.startswith("+")), "+%a %b %e %H:%M:%S UTC %Y")
    return Outcome(0, encoded(now.strftime(wanted[1:]) + "\n"))


@COMMANDS.add("sh", "ash", "bash")
def _sh(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    if arguments[:1] == ["-l"]:
        arguments = arguments[1:]
    match arguments:
        case []:
            return guest.shell(stdin.decode(errors="surrogateescape"), b"")
        case ["-c" | "-lc", script, *_]:
            return guest.shell(script, stdin)
        case [path, *_] if not path.startswith("-"):
            script = guest.files.read(guest.files.absolute(path, guest.folder)).decode(errors="surrogateescape")
            return guest.shell(script, stdin)
        case _:
            return wrong("sh", "option not simulated")


@COMMANDS.add("poweroff", "halt")
def _poweroff(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    guest.power_request = "poweroff"
    return Outcome(0)


@COMMANDS.add("reboot")
def _reboot(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    guest.power_request = "reboot"
    return Outcome(0)
