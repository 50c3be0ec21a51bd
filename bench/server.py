"""A server as ``iaas serve`` runs it, but nothing simulated takes any time and its hosts have room for a million.

    python -m bench.server STATE PORT [--no-doctor]

What a caller of the API waits for is then ours alone.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from iaas.api.server import ServeOptions, serve
from iaas.drivers.interface import Backend
from iaas.drivers.sim import backend as sim
from iaas.drivers.sim.latency import LatencyModel

_build = sim.build_sim_backend


def _instant_and_roomy(*args: Any, **options: Any) -> Backend:
    options.pop("hosts", None)
    options |= {"latency": LatencyModel.instant(), "vcpus": 10**7, "memory_mib": 10**9, "disk_gib": 10**8}
    return _build(*args, **options)


def main() -> None:
    state, port = Path(sys.argv[1]), int(sys.argv[2])
    sim.build_sim_backend = _instant_and_roomy
    # The doctor would report a database that was filled past the API, row by row.
    options = ServeOptions(backend="sim", host="127.0.0.1", port=port, state_dir=state)
    serve(replace(options, doctor_every_s=0.0) if "--no-doctor" in sys.argv else options)


if __name__ == "__main__":
    main()
