"""Starts many at the same moment and counts how they fared."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from iaas.cloud import Cloud
from iaas.drivers.interface import HostReport
from iaas.kernel.errors import CloudError

RACERS = 8
ROUNDS = 3
HOSTS = tuple(
    HostReport(name=f"host-{number}", zone="zone-1", vcpus=3, memory_mib=65_536, disk_gib=1000) for number in (1, 2)
)

Entry = Callable[[Cloud], object]


def race(clouds: Sequence[Cloud], entries: Sequence[Entry]) -> Counter[str]:
    """Run all entries at the same time, spread over the servers; return how often each outcome came."""
    return Counter(outcomes(clouds, entries))


def outcomes(clouds: Sequence[Cloud], entries: Sequence[Entry]) -> list[str]:
    """As :func:`race`, in the order of the entries: ``won``, or the name of the error."""
    start = threading.Barrier(len(entries))

    def run(number: int) -> str:
        start.wait(20)
        try:
            entries[number](clouds[number % len(clouds)])
        except CloudError as error:
            return type(error).__name__
        return "won"

    with ThreadPoolExecutor(len(entries)) as pool:
        return list(pool.map(run, range(len(entries)), timeout=60))
