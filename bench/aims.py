"""What the figures are to be, and which of them are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench import compare

Results = dict[str, Any]

AT_MOST, AT_LEAST = "at most", "at least"

# Group, path in its results, text, direction, value.
AIMS: tuple[tuple[str, str, str, str, float], ...] = (
    ("start", "answer_s", "first answer after a first start, s", AT_MOST, 1.0),
    ("start", "pss_mib", "memory after a first start, MiB", AT_MOST, 90.0),
    ("native", "eight_clients.running_per_s", "instances to running a second, 8 clients", AT_LEAST, 400.0),
    ("native", "eight_clients.accept_p99_ms", "p99 of a create, 8 clients, ms", AT_MOST, 50.0),
    ("native", "one_client.accept_p99_ms", "p99 of a create, one client, ms", AT_MOST, 10.0),
    ("native", "batch.accepted_per_s", "instances a second in batches", AT_LEAST, 5000.0),
    ("million", "1000000.page_p50_ms", "first page of a million, ms", AT_MOST, 50.0),
    ("million", "1000000.middle_page_p50_ms", "page in the middle of a million, ms", AT_MOST, 50.0),
    ("million", "1000000.last_page_p50_ms", "last page of a million, ms", AT_MOST, 50.0),
    ("churn", "growth.pss_mib", "memory after 100,000 creates and deletes over half-way", AT_MOST, 1.15),
    ("churn", "growth.files_mib", "files after 100,000 creates and deletes over half-way", AT_MOST, 1.15),
    ("churn", "growth.fds", "open files after 100,000 creates and deletes over half-way", AT_MOST, 1.15),
    ("real", "container.ratio", "container from POST to running over lxc", AT_MOST, 1.2),
    ("real", "vm.ratio", "VM from POST to running over virsh", AT_MOST, 1.2),
    ("networks", "reachability.total_s", "oracle against packets, 100 VPCs and 5,000 pairs, s", AT_MOST, 60.0),
    ("networks", "reachability.disagreements", "pairs in which oracle and packets differ", AT_MOST, 0.0),
)
# What must not grow with the rows, over what it was at the smaller size; by processor time where there is any.
FLAT: tuple[tuple[str, str, str, float], ...] = (
    ("rare_label", "100", "100000", 1.2),
    ("common_label", "1000", "100000", 1.2),
    ("get", "1000", "1000000", 1.2),
    ("page", "1000", "1000000", 1.2),
    ("total", "1000", "1000000", 1.2),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One aim, with its figure, and whether it was met."""

    text: str
    is_met: bool


def judge(results: Results) -> Iterator[Verdict]:
    """Yield a verdict on every aim that something was measured for."""
    for group, path, text, direction, limit in AIMS:
        value = _value(results.get(group), path)
        if value is not None:
            is_met = value <= limit if direction == AT_MOST else value >= limit
            yield Verdict(f"{text}: {value:,.2f} ({direction} {limit:g})", is_met)
    yield from _flatness(results.get("million") or {})
    yield from _comparison(results.get("others") or {})


def _value(found: Any, path: str) -> float | None:
    for name in path.split("."):
        if not isinstance(found, dict) or name not in found:
            return None
        found = found[name]
    return float(found)


def _flatness(rows: Results) -> Iterator[Verdict]:
    for name, small, large, limit in FLAT:
        figure = f"{name}_cpu_ms" if rows.get(small, {}).get(f"{name}_cpu_ms") else f"{name}_p50_ms"
        before, after = _value(rows, f"{small}.{figure}"), _value(rows, f"{large}.{figure}")
        if before and after:
            text = f"{name} with {int(large):,} instances over {int(small):,}: {after / before:.2f} (at most {limit:g})"
            yield Verdict(text, after / before <= limit)
    before, after = _value(rows, "1000.pss_mib"), _value(rows, "1000000.pss_mib")
    if before and after:
        yield Verdict(f"memory with 1,000,000 over 1,000: {after / before:.2f} (at most 1.2)", after / before <= 1.2)


def _comparison(found: Results) -> Iterator[Verdict]:
    for other in ("moto", "ministack"):
        for figure, text in compare.FIGURES.items():
            ours, theirs = _value(found, f"ours.{figure}"), _value(found, f"{other}.{figure}")
            if ours and theirs:
                times = compare.ratio(figure, ours, theirs)
                yield Verdict(f"{text}: {times:.2f} times as good as {other} (at least 1)", times >= 1)
