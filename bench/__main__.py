"""Measure a simulated cloud, print a table, and write the same as JSON.

    python -m bench [--quick] [--no-others] [--rows 1000000] [--json FILE]

Absolute numbers belong to the machine they were measured on; medians and the ratios at the end, taken side by
side in one run, are what can be compared. Status 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import native, others
from bench.start import Start, measure_start

Results = dict[str, Any]

# name of a figure: (at most or at least, value)
TARGETS: dict[str, tuple[str, float]] = {
    "start.answer_s": ("most", 1.0),
    "start.pss_mib": ("most", 90.0),
    "eight_clients.running_per_s": ("least", 400.0),
    "eight_clients.accept_p99_ms": ("most", 50.0),
    "one_client.accept_p99_ms": ("most", 10.0),
    "batch.accepted_per_s": ("least", 5000.0),
}
PAGE_OF_A_MILLION_MS = 50.0
LABEL_GROWTH = 1.2


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of everything, no million rows")
    parser.add_argument("--no-others", action="store_true", help="without moto's server and MiniStack")
    parser.add_argument("--rows", type=int, default=1_000_000, help="the largest database to list")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"), help="where the figures go")
    options = parser.parse_args()
    share = 10 if options.quick else 1
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores")
    print(f"load average {os.getloadavg()[0]:.1f}: what else runs here is part of every figure\n")
    results: Results = {"start": _starts(5 if share == 1 else 3)}
    with native.instant_server() as server:
        results["eight_clients"] = native.creations(server, count=4000 // share, clients=8)
        results["one_client"] = native.creations(server, count=1000 // share, clients=1)
        results["batch"] = native.batches(server, count=10_000 // share)
        results["reading"] = native.reading(server, count=1000 // share)
    sizes = [100, 10_000, 100_000, *([options.rows] if options.rows > 100_000 and not options.quick else [])]
    with native.instant_server() as server:
        results["rows"] = native.growth(server, sizes, count=100 // (2 if options.quick else 1))
    if not options.no_others:
        results["others"] = {
            name: others.measure(name, count=1000 // share, clients=8) for name in ("moto", "ministack")
        }
    _show(results)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=2) + "\n")
    misses = list(_misses(results))
    for miss in misses:
        print(f"MISSED: {miss}")
    return 1 if misses else 0


def _starts(count: int) -> dict[str, float]:
    """Medians of first starts, each on a fresh state folder."""
    with tempfile.TemporaryDirectory(prefix="iaas-bench-") as folder:
        starts: list[Start] = [measure_start(Path(folder) / f"fresh-{number}") for number in range(count)]
    found = {"answer_s": statistics.median(each.answer_s for each in starts)}
    sizes = [each.pss_mib for each in starts if each.pss_mib is not None]
    return {**found, "pss_mib": statistics.median(sizes)} if sizes else found


def _show(results: Results) -> None:
    for group in ("start", "eight_clients", "one_client", "batch", "reading"):
        for name, value in results[group].items():
            kind, limit = TARGETS.get(f"{group}.{name}", ("", 0.0))
            print(f"{group:16} {name:20} {value:12.2f}{f'   (at {kind} {limit:g})' if kind else ''}")
    print("\nrows in the database (copied into it), one client, medians in ms")
    names = list(next(iter(results["rows"].values())))
    print(f"{'':12}" + "".join(f"{name.removesuffix('_p50_ms'):>16}" for name in names))
    for size, row in results["rows"].items():
        print(f"{int(size):12,}" + "".join(f"{row[name]:16.2f}" for name in names))
    if "others" in results:
        _show_ratios(results)


def _show_ratios(results: Results) -> None:
    """Print ours beside the others'; a ratio above 1 is in our favour."""
    ours = {
        "accepted_per_s": results["eight_clients"]["running_per_s"],  # theirs are running when they answer
        "get_p50_ms": results["reading"]["get_p50_ms"],
        "page_p50_ms": results["reading"]["page_p50_ms"],
    }
    print("\nthe same work elsewhere (EC2: RunInstances by 8 clients, DescribeInstances by id, a page of 100)")
    for name, figures in results["others"].items():
        for figure, value in ours.items():
            theirs = figures[figure]
            ratio = value / theirs if figure.endswith("_per_s") else theirs / value
            figures[f"ratio_{figure}"] = ratio
            print(f"{name:16} {figure:20} theirs {theirs:10.2f}   ours {value:10.2f}   ratio {ratio:6.1f}")


def _misses(results: Results) -> list[str]:
    found: list[str] = []
    compare: dict[str, Callable[[float, float], bool]] = {"most": float.__gt__, "least": float.__lt__}
    for name, (kind, limit) in TARGETS.items():
        group, _, figure = name.partition(".")
        value = results[group].get(figure)
        if value is not None and compare[kind](float(value), float(limit)):
            found.append(f"{name} is {value:.2f}, to be at {kind} {limit:g}")
    rows = results["rows"]
    first, largest = rows["100"], rows[max(rows, key=int)]
    if largest["page_p50_ms"] > PAGE_OF_A_MILLION_MS:
        found.append(f"a page of 100 takes {largest['page_p50_ms']:.1f} ms in the largest database")
    if rows["100000"]["rare_label_p50_ms"] > first["rare_label_p50_ms"] * LABEL_GROWTH:
        found.append("a filter by label takes longer in a larger database")
    return found


if __name__ == "__main__":
    sys.exit(main())
