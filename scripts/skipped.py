"""Print which tests were skipped and why: one line per reason, from the JUnit reports named as arguments."""

from __future__ import annotations

import sys
from collections import Counter
from xml.etree import ElementTree


def skips(paths: list[str]) -> Counter[str]:
    """Return how many tests were skipped, by reason."""
    reasons: Counter[str] = Counter()
    for path in paths:
        for case in ElementTree.parse(path).iter("testcase"):  # noqa: S314 - pytest wrote it just now
            for skip in case.iter("skipped"):
                reasons[skip.get("message") or "no reason given"] += 1
    return reasons


if __name__ == "__main__":
    found = skips(sys.argv[1:])
    print("Skipped: nothing." if not found else f"Skipped: {found.total()} tests.")
    for reason, count in found.most_common():
        print(f"  {count:4}  {reason}")
