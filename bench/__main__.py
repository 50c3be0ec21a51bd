"""Print how soon a server answers, what memory it takes then, and how fast it creates simulated machines.

    python -m bench [--starts 5] [--creations 500] [--clients 4]

Status 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
from pathlib import Path

from bench.creation import measure_creations
from bench.start import Start, measure_start

TARGET_ANSWER_S = 1.0
TARGET_PSS_MIB = 90.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--creations", type=int, default=500)
    parser.add_argument("--clients", type=int, default=4)
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}\n")
    with tempfile.TemporaryDirectory(prefix="iaas-bench-") as folder:
        place = Path(folder)
        first = [measure_start(place / f"fresh-{number}") for number in range(options.starts)]
        later = [measure_start(place / "fresh-0") for _ in range(options.starts)]
        misses = [*_show("first start, fresh state", first), *_show("later start", later)]
        created = measure_creations(place / "creations", count=options.creations, clients=options.clients)
    print(f"{'simulated creations':28} {created.count} by {created.clients} clients at once")
    print(f"{'  accepted':28} p50 {created.accept_p50_ms:.1f} ms, p99 {created.accept_p99_ms:.1f} ms")
    print(f"{'  accepted per second':28} {created.accepted_per_s:.0f}")
    print(f"{'  jobs done per second':28} {created.jobs_per_s:.0f} (from the first request to the last job's end)")
    for miss in misses:
        print(f"MISSED: {miss}")
    return 1 if misses else 0


def _show(name: str, starts: list[Start]) -> list[str]:
    """Print one line, and return which targets were missed, by the median."""
    answer_s = statistics.median(each.answer_s for each in starts)
    spread = f"{min(each.answer_s for each in starts):.2f} to {max(each.answer_s for each in starts):.2f}"
    print(f"{name:28} first answer after {answer_s:.2f} s ({spread}; target {TARGET_ANSWER_S})")
    misses = [f"{name}: first answer after {answer_s:.2f} s"] if answer_s > TARGET_ANSWER_S else []
    sizes = [each.pss_mib for each in starts if each.pss_mib is not None]
    if not sizes:
        print(f"{'':28} memory: not measured, this system has no /proc/PID/smaps_rollup")
        return misses
    pss_mib = statistics.median(sizes)
    print(f"{'':28} PSS of its processes then {pss_mib:.1f} MiB (target {TARGET_PSS_MIB})")
    return [*misses, f"{name}: {pss_mib:.1f} MiB"] if pss_mib > TARGET_PSS_MIB else misses


if __name__ == "__main__":
    sys.exit(main())
