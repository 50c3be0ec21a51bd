"""One start of a server: how long until it answers, and what memory it takes then."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

IAAS = str(Path(sys.executable).with_name("iaas"))
TIMEOUT_S = 60.0
POLL_S = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """``answer_s``: from the start of the process to the end of its first answer. ``pss_mib`` is None off Linux."""

    answer_s: float
    pss_mib: float | None


def measure_start(state: Path) -> Start:
    """Start a simulated cloud in ``state``, ask it once, and end it."""
    began = time.monotonic()
    with running_server(state) as (process, port):
        wait_until_it_answers(process, port)
        return Start(answer_s=time.monotonic() - began, pss_mib=pss_mib(process.pid))


def measure_starts(count: int) -> dict[str, float]:
    """Return the medians of ``count`` first starts, each on a fresh state folder."""
    with tempfile.TemporaryDirectory(prefix="iaas-bench-") as folder:
        starts = [measure_start(Path(folder) / f"fresh-{number}") for number in range(count)]
    found = {"answer_s": statistics.median(each.answer_s for each in starts)}
    sizes = [each.pss_mib for each in starts if each.pss_mib is not None]
    return {**found, "pss_mib": statistics.median(sizes)} if sizes else found


@contextlib.contextmanager
def running_server(state: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Give a server's process, just started, and the port it will listen on; end it after the block."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [IAAS, "serve", "--listen", f"127.0.0.1:{port}", "--state", str(state), *options]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        yield process, port
    finally:
        process.terminate()
        process.communicate(timeout=TIMEOUT_S)


def wait_until_it_answers(process: subprocess.Popen[str], port: int) -> None:
    """Return once the server answers.

    Raises:
        RuntimeError: it ended, or took longer than a minute.
    """
    give_up_at = time.monotonic() + TIMEOUT_S
    while not _answers(port):
        if process.poll() is not None or time.monotonic() > give_up_at:
            raise RuntimeError(f"the server did not answer (status {process.poll()})")
        time.sleep(POLL_S)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/v1/capabilities")
        answer = connection.getresponse()
        answer.read()
    except OSError:  # it does not listen yet
        return False
    finally:
        connection.close()
    return answer.status == 200


def cpu_ms(pid: int) -> float:
    """Return the processor time that the present threads of a process have used; 0 off Linux.

    Source: Linux, Documentation/scheduler/sched-stats, /proc/<pid>/schedstat (nanoseconds on the processor).
    """
    total_ns = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
            total_ns += int(path.read_text().split()[0])
    return total_ns / 1e6


def pss_mib(pid: int) -> float | None:
    """Return the memory of a process and its descendants, shared pages counted in parts. Source: proc(5), Pss."""
    total_kib = 0
    for each in _family(pid):
        try:
            text = Path(f"/proc/{each}/smaps_rollup").read_text()
        except OSError:
            return None
        total_kib += int(re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)[1])  # type: ignore[index]  # always there
    return total_kib / 1024


def _family(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            yield from _family(int(child))
