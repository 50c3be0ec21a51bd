"""The life of one ``scripts/run``: a server of its own, the demonstration, then service until Ctrl-C; nothing stays.

The server is a process of its own session, so that Ctrl-C reaches this one alone and everything ends in order. A
run that was killed leaves its server and its folder; the next run on the same folder finds both by the run file
beside the folder, which a living run keeps locked.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from demo import Demonstration
from rich.console import Console

from iaas.client import Client, IaasError

START_TIMEOUT_S = {"sim": 60.0, "real": 240.0}
READY_TIMEOUT_S = {"sim": 60.0, "real": 900.0}  # emulated, on a busy machine, the image built first
STOP_TIMEOUT_S = 120.0
POLL_S = 0.1
IAAS = str(Path(sys.executable).with_name("iaas"))  # not resolved: a venv's python is a link out of it

# A log file has no width: what is written there must not be folded at 80 columns.
console = Console(width=None if sys.stdout.isatty() else 160)


class CannotRunError(Exception):
    """One line for the person who started it."""


class Ended(BaseException):
    """SIGINT, SIGTERM or SIGHUP came; no ``except Exception`` may swallow it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    backend: str
    listen: str
    state: Path
    default_state: Path
    virt_type: str
    once: bool

    @property
    def is_kept(self) -> bool:
        """Whether the folder stays: a simulated cloud in a folder that the user chose."""
        return self.backend == "sim" and self.state != self.default_state

    @property
    def run_file(self) -> Path:
        return self.state.with_name(f"{self.state.name}.run")


def main() -> int:
    settings = _read_arguments()
    is_serving = False
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        with _run_file(settings) as run_file:
            _remove_leftovers(settings, run_file)
            try:
                server = _start(settings, run_file)
                try:
                    endpoint = _await_ready(server, settings)
                    works = _demonstrate(settings)
                    if settings.once:
                        return 0 if works else 1
                    _show_what_to_try(settings, endpoint)
                    is_serving = works
                    status = server.wait()
                    raise CannotRunError(f"the server has ended by itself, with status {status}")
                finally:
                    _ignore_signals()  # the second Ctrl-C of an impatient user would leave things half removed
                    _stop(server.pid, server)
            finally:
                _ignore_signals()
                _remove_leftovers(settings, run_file)
                _forget(settings)
    except Ended:
        return 0 if is_serving else 130
    except (CannotRunError, IaasError) as error:
        sys.stderr.write(f"run: {error}\n")
        return 1


def _read_arguments() -> Settings:
    parser = argparse.ArgumentParser(description="Use scripts/run.")
    parser.add_argument("--backend", choices=("sim", "real"), required=True)
    parser.add_argument("--listen", required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--default-state", type=Path, required=True)
    parser.add_argument("--virt-type", required=True)
    parser.add_argument("--once", action="store_true")
    given = parser.parse_args()
    return Settings(
        backend=given.backend,
        listen=given.listen,
        state=Path(os.path.normpath(given.state)),
        default_state=given.default_state,
        virt_type=given.virt_type,
        once=given.once,
    )


def _end(_number: int, _frame: FrameType | None) -> None:
    raise Ended


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def _run_file(settings: Settings) -> Iterator[Path]:
    """Hold the run file of this folder: locked while the run lives, with the server's process id in it.

    Raises:
        CannotRunError: another run has it, or the folder is somebody else's.
    """
    path = settings.run_file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotRunError(f"the folder {path.parent} cannot be used: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotRunError(f"a run with {settings.state} is going on already; STATE=DIR takes another") from None
        if is_new and not settings.is_kept and settings.state.exists() and settings.state != settings.default_state:
            path.unlink()
            raise CannotRunError(f"{settings.state} is there already and was not made by scripts/run")
        yield path
    finally:
        os.close(handle)


def _remove_leftovers(settings: Settings, run_file: Path) -> None:
    """Remove what this run, or a killed one before it, has on the machine."""
    left = run_file.read_text().strip()
    if left.isdecimal() and _is_our_server(int(left), settings):
        console.print("Ending the server that a killed run has left.")
        _stop(int(left))
    run_file.write_text("")
    if settings.is_kept or not settings.state.exists():
        return
    if settings.backend == "real":
        done = subprocess.run(
            [IAAS, "host", "remove", "--state", str(settings.state)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        if done.returncode != 0:
            raise CannotRunError(f"what is in {settings.state} could not be removed")
    # A start that failed early has a folder and no deployment in it yet.
    shutil.rmtree(settings.state, ignore_errors=True)


def _forget(settings: Settings) -> None:
    """Remove the run file. It stays where something could not be removed: the next run then knows whose that is."""
    settings.run_file.unlink(missing_ok=True)
    if settings.backend == "sim" and settings.state == settings.default_state:
        with contextlib.suppress(OSError):  # other things are in it
            settings.run_file.parent.rmdir()


def _is_our_server(pid: int, settings: Settings) -> bool:
    """Whether the process is a server on our folder: the number may belong to another program by now."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        if sys.platform == "linux":
            return False
        done = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True)
        arguments = f"{done.stdout.strip()} "
    return " serve " in arguments and f"--state {settings.state} " in arguments


def _start(settings: Settings, run_file: Path) -> subprocess.Popen[str]:
    console.print(f"Starting a {'simulated' if settings.backend == 'sim' else 'real'} cloud in {settings.state}")
    command = [
        IAAS,
        "serve",
        "--backend",
        settings.backend,
        "--listen",
        settings.listen,
        "--state",
        str(settings.state),
    ]
    if settings.backend == "real":
        command += ["--virt-type", settings.virt_type, "--remove-on-exit"]
    server = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    run_file.write_text(f"{server.pid}\n")
    return server


def _await_ready(server: subprocess.Popen[str], settings: Settings) -> str:
    """Return the URL that the server announces.

    Raises:
        CannotRunError: it ended, or took too long.
    """
    began = time.monotonic()
    timeout_s = START_TIMEOUT_S[settings.backend]
    is_late = threading.Event()

    def give_up() -> None:
        is_late.set()
        server.terminate()

    timer = threading.Timer(timeout_s, give_up)
    timer.daemon = True
    timer.start()
    try:
        line = server.stdout.readline() if server.stdout else ""
    finally:
        timer.cancel()
    word, _, url = line.strip().partition(" ")
    if word != "ready":
        raise CannotRunError(
            f"the server was not ready within {timeout_s:.0f} s" if is_late.is_set() else "the server did not start"
        )
    console.print(f"Ready at {url} after {time.monotonic() - began:.1f} s\n", highlight=False)
    return url


def _credentials(settings: Settings) -> Path:
    return settings.state / "credentials.json"


def _demonstrate(settings: Settings) -> bool:
    # Both given: IAAS_ENDPOINT and IAAS_TOKEN of the user's may name another cloud.
    found = json.loads(_credentials(settings).read_text())
    with Client(found["endpoint"], found["api_token"]) as client:
        shown = Demonstration(client, console, time.sleep, READY_TIMEOUT_S[settings.backend])
        works = shown.run()
    console.print("Both machines are ready and answer.\n" if works else "NOT all is well, see above.\n")
    return works


def _show_what_to_try(settings: Settings, endpoint: str) -> None:
    iaas = os.path.relpath(IAAS)
    text = f"""\
Endpoint     {endpoint}
API page     {endpoint}/v1/docs/
Credentials  {_credentials(settings)}

To try, in another terminal, in {Path.cwd()}:

  export IAAS_CREDENTIALS={_credentials(settings)}
  {iaas} instance list
  {iaas} instance exec demo-vm -- cat /proc/meminfo
  {iaas} instance create --kind container --image tiny --name mine --wait --ready
  {iaas} instance forward demo-container 8080:80      # then http://127.0.0.1:8080/

Ctrl-C ends this cloud{"" if settings.is_kept else " and removes all that it made"}."""
    console.print(text, markup=False, highlight=False)


def _stop(pid: int, server: subprocess.Popen[str] | None = None) -> None:
    """Tell a server to end, wait until it has, and kill it if it will not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while time.monotonic() < deadline:
            if not _is_alive(pid, server):
                return
            time.sleep(POLL_S)


def _is_alive(pid: int, server: subprocess.Popen[str] | None) -> bool:
    if server is not None:
        return server.poll() is None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
