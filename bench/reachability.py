"""The reachability oracle against packets, at the size of a cloud: so many VPCs stand at once, so many pairs are asked.

The same random clouds, wires and probes as in ``tests/contract/test_oracle.py``, and the real network driver. Needs
root, and everything that ``iaas host check`` wants; leaves nothing behind.
"""

from __future__ import annotations

import time
from typing import Any

SEED = 2024


def reasons_against() -> list[str]:
    """Return why it cannot be measured here; empty when it can."""
    from tests import real_host

    return real_host.reasons_against()


def measure(*, vpcs: int, pairs: int) -> dict[str, Any]:
    """Return how long the cloud took to make, to ask and to remove (s), and how many pairs differ from the oracle.

    Args:
        vpcs: of the cloud.
        pairs: to be asked; some of them are left to chance by their nature and not counted.
    """
    from iaas.drivers.linux.network import LinuxNetworkDriver
    from tests.reachability.proof import answered, disagreements
    from tests.reachability.wires import wired
    from tests.reachability.worlds import random_world
    from tests.real_host import close_real_host, open_real_host

    world = random_world(SEED, vpcs=vpcs, questions=pairs)
    began = time.perf_counter()
    verdicts = answered(world.topology, world.questions)
    oracle_s = time.perf_counter() - began
    host = open_real_host()
    driver = LinuxNetworkDriver(host.fabric, host.tag, host.state_dir)
    try:
        began = time.perf_counter()
        with wired(host, driver, world.topology, removes_networks=False) as wires:
            made = time.perf_counter()
            found = disagreements(world.topology, wires, verdicts)
            asked = time.perf_counter()
    finally:
        driver.close()
        close_real_host(host)
    removed = time.perf_counter()
    for each in found:
        print(each)
    return {
        "vpcs": len(world.topology.vpcs),
        "guests": len(wires.namespaces),
        "pairs": len(verdicts),
        "reachable": sum(verdict.reachable for verdict in verdicts.values()),
        "disagreements": len(found),
        "oracle_pairs_per_s": len(verdicts) / oracle_s,
        "packet_pairs_per_s": len(verdicts) / (asked - made),
        "made_s": made - began,
        "asked_s": asked - made,
        "removed_s": removed - asked,
        "total_s": asked - began,
    }
