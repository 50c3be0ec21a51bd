"""Measure, print a table with what is aimed at, and write the same as JSON.

    python -m bench [GROUP ...] [--quick] [--json FILE]

Groups: start, native, million, churn (simulated), others (moto's server and MiniStack beside ours), real and
networks (need root and the real backend's programs; left out with a word where they are missing). All of them when
none is named.
Absolute numbers belong to the machine they were measured on, and to what else it did; medians, and ratios taken
side by side in one run, are what can be compared. Status 1 when an aim is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import aims, churn, compare, million, native, reachability, real
from bench.start import measure_starts

Results = dict[str, Any]
SIZES = (100, 1000, 10_000, 100_000, 1_000_000)


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much of everything; ``quick`` shows that it works, and little more."""

    quick: bool

    def of(self, usual: int, quick: int) -> int:
        return quick if self.quick else usual


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; all when none is named")
    parser.add_argument("--quick", action="store_true", help="a small part of everything, no million")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"), help="where the figures go")
    options = parser.parse_args()
    if unknown := set(options.groups) - set(GROUPS):
        parser.error(f"no such group: {', '.join(sorted(unknown))}")
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores")
    results: Results = {}
    for name in options.groups or GROUPS:
        print(f"\n{name} (load average {os.getloadavg()[0]:.1f}: what else runs here is part of every figure)")
        began = time.monotonic()
        results[name] = GROUPS[name](Amounts(options.quick))
        SHOWS[name](results[name])
        print(f"  took {time.monotonic() - began:.0f} s")
        _write(options.json, results)
    print("\naims")
    verdicts = list(aims.judge(results))
    for verdict in verdicts:
        print(f"  {'met   ' if verdict.is_met else 'MISSED'} {verdict.text}")
    _write(options.json, {**results, "aims": [verdict.text for verdict in verdicts if not verdict.is_met]})
    return 0 if all(verdict.is_met for verdict in verdicts) else 1


def _write(path: Path, results: Results) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")


def _measure_start(amounts: Amounts) -> Results:
    return measure_starts(amounts.of(7, 3))


def _measure_native(amounts: Amounts) -> Results:
    with native.instant_server() as server:
        return {
            "eight_clients": native.creations(server, count=amounts.of(4000, 400), clients=8),
            "one_client": native.creations(server, count=amounts.of(1000, 200), clients=1),
            "small_batch": native.batches(server, count=amounts.of(10_000, 1000)),
            "batch": native.batches(server, count=amounts.of(10_000, 2000), size=native.LARGEST_BATCH),
            "reading": native.reading(server, count=amounts.of(1000, 200)),
        }


def _measure_million(amounts: Amounts) -> Results:
    sizes = [size for size in SIZES if size <= amounts.of(SIZES[-1], 10_000)]
    return million.measure(sizes, count=amounts.of(100, 20))


def _measure_churn(amounts: Amounts) -> Results:
    with native.instant_server() as server:
        samples = churn.churn(server, count=amounts.of(100_000, 4000), clients=8, samples=20, report=_show_sample)
    return {"samples": samples, "growth": churn.growth(samples)}


def _measure_others(amounts: Amounts) -> Results:
    return compare.measure(count=amounts.of(2000, 200), rounds=amounts.of(3, 1))


def _measure_real(amounts: Amounts) -> Results:
    reasons = real.reasons_against()
    return {"left_out": reasons} if reasons else real.measure(amounts.of(real.TURNS, 3))


def _measure_networks(amounts: Amounts) -> Results:
    reasons = reachability.reasons_against()
    if reasons:
        return {"left_out": reasons}
    return {"reachability": reachability.measure(vpcs=amounts.of(100, 5), pairs=amounts.of(5000, 200))}


def _show_flat(found: Results) -> None:
    for name, value in found.items():
        if isinstance(value, dict):
            for figure, number in value.items():
                print(f"  {name:16} {figure:20} {number:12.2f}")
        else:
            print(f"  {name:16} {value:12.2f}")


def _show_million(found: Results) -> None:
    print("  one client; medians in ms as it sees them, and the server's processor time in brackets")
    sizes = list(found)
    print(f"  {'':16}" + "".join(f"{int(size):>18,}" for size in sizes))
    rows = found[sizes[0]]
    for name in [each.removesuffix("_p50_ms") for each in rows if each.endswith("_p50_ms")]:
        cells = (f"{found[size][f'{name}_p50_ms']:.2f} ({found[size][f'{name}_cpu_ms']:.1f})" for size in sizes)
        print(f"  {name:16}" + "".join(f"{cell:>18}" for cell in cells))
    for name in ("pss_mib", "files_mib", "restart_s"):
        print(f"  {name:16}" + "".join(f"{found[size][name]:18.2f}" for size in sizes if name in found[size]))


def _show_sample(sample: Results) -> None:
    print("  " + "  ".join(f"{name} {value:,.0f}" for name, value in sample.items()), flush=True)


def _show_churn(found: Results) -> None:
    for name, times in found["growth"].items():
        print(f"  {name:16} {times:12.2f} times what it was half-way")


def _show_others(found: Results) -> None:
    print(f"  {'':42}{'ours':>10}{'moto':>10}{'ratio':>8}{'MiniStack':>11}{'ratio':>8}   (above 1: ours is ahead)")
    for figure, text in compare.FIGURES.items():
        if figure not in found["ours"]:
            continue
        ours = found["ours"][figure]
        line = f"  {text:42}{ours:10.2f}"
        for name, width in (("moto", 10), ("ministack", 11)):
            theirs = found[name][figure]
            line += f"{theirs:{width}.2f}{compare.ratio(figure, ours, theirs):8.2f}"
        print(line)
    pages = {name: f"{figures['items_of_1000']:.0f}" for name, figures in found.items()}
    print(f"  instances in an answer to the page of 100 where there are 1,000: {pages}")


def _show_real(found: Results) -> None:
    if "left_out" in found:
        print(f"  left out: {'; '.join(found['left_out'])}")
        return
    for kind, row in found.items():
        print(
            f"  {kind:10} POST to running {row['ours_ms']:8.0f} ms   by hand {row['by_hand_ms']:8.0f} ms"
            f"   ratio {row['ratio']:.2f}"
        )


def _show_networks(found: Results) -> None:
    if "left_out" in found:
        print(f"  left out: {'; '.join(found['left_out'])}")
    else:
        _show_flat(found)


GROUPS: dict[str, Callable[[Amounts], Results]] = {
    "start": _measure_start,
    "native": _measure_native,
    "million": _measure_million,
    "churn": _measure_churn,
    "others": _measure_others,
    "real": _measure_real,
    "networks": _measure_networks,
}
SHOWS: dict[str, Callable[[Results], None]] = {
    "start": _show_flat,
    "native": _show_flat,
    "million": _show_million,
    "churn": _show_churn,
    "others": _show_others,
    "real": _show_real,
    "networks": _show_networks,
}


if __name__ == "__main__":
    sys.exit(main())
