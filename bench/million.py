"""The same questions with more and more instances in one database, up to a million (see :mod:`bench.rows`)."""

from __future__ import annotations

import statistics
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path

from bench.native import WISH, Server, server_on
from bench.rows import LABEL, RARE, RARE_ROWS, fill
from bench.start import cpu_ms, pss_mib
from iaas.db.repositories.query import cursor_at
from iaas.resources.common import Page

PAGE = "/v1/instances?limit=100"
PARTS = 4
Row = dict[str, float]


def measure(sizes: list[int], *, count: int) -> dict[str, Row]:
    """Return what ``count`` questions each took, and the server's memory, by the number of instances.

    Of a question there is the median as the client sees it, and the processor time of the server, which is the same
    whatever else the machine does.
    """
    found: dict[str, Row] = {}
    have = 0
    with tempfile.TemporaryDirectory(prefix="iaas-bench-") as folder:
        state = Path(folder) / "state"
        with server_on(state, "--no-doctor") as server:
            template = server.json("POST", "/v1/instances", {**WISH, "name": "template"})["instance"]["id"]
            server.wait_until_idle()
            for size in sizes:
                fill(state, template, have=have, want=size)
                have = size
                found[str(size)] = _ask(server, template, size, count)
        began = time.perf_counter()
        with server_on(state, "--no-doctor") as server:
            found[str(have)]["restart_s"] = time.perf_counter() - began
    return found


def _ask(server: Server, template: str, size: int, count: int) -> Row:
    made_at = datetime.fromisoformat(server.json("GET", f"/v1/instances/{template}")["created_at"])

    def page_from(number: int) -> str:
        """Return the page that begins with that copy; each is a minute older than the one before."""
        at = (made_at - timedelta(minutes=number)).replace(microsecond=0)
        return f"{PAGE}&cursor={cursor_at(Page(), at, f'i-{number:08d}')}"

    (last,) = server.json("GET", f"{page_from(size - 1)}")["items"]
    assert last["name"] == f"copy-{size:08d}"
    assert len(server.json("GET", page_from(size // 2))["items"]) == min(100, size - size // 2)
    assert len(server.json("GET", f"{PAGE}&label_selector={LABEL}%3D{RARE}")["items"]) == min(RARE_ROWS, size)
    used = {each["resource"]: each["used"] for each in server.json("GET", "/v1/quotas")["items"]}
    assert used["instances"] == size + 1
    paths = {
        "get": f"/v1/instances/i-{size // 2:08d}",
        "get_by_name": f"/v1/instances/copy-{size // 2:08d}",
        "page": PAGE,
        "middle_page": page_from(size // 2),
        "last_page": page_from(max(0, size - 100)),
        "rare_label": f"{PAGE}&label_selector={LABEL}%3D{RARE}",
        "common_label": f"{PAGE}&label_selector={LABEL}%3Dcommon",
        "by_status": f"{PAGE}&status=running",
        "by_name": f"{PAGE}&name=copy-{size // 2:08d}",
        "total": "/v1/quotas",
    }
    row: Row = {}
    for name, path in paths.items():
        server.target.run([("GET", path, None)] * 5)
        part = [("GET", path, None)] * max(1, count // PARTS)
        p50_ms, used_ms = [], []
        for _ in range(PARTS):
            before_ms = cpu_ms(server.pid)
            p50_ms.append(server.target.run(part).percentile_ms(50))
            used_ms.append((cpu_ms(server.pid) - before_ms) / len(part))
        row[f"{name}_p50_ms"] = statistics.median(p50_ms)
        row[f"{name}_cpu_ms"] = min(used_ms)  # on a processor that is shared, neighbours only add to it
    memory = pss_mib(server.pid)
    files = sum(each.stat().st_size for each in server.state.glob("*.db*"))
    return {**row, "files_mib": files / 2**20, **({"pss_mib": memory} if memory is not None else {})}
