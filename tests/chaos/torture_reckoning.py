"""Holds what clients were told against what a server shows, and its database against itself."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from sqlalchemy import select

from iaas.cloud import Cloud
from iaas.config import CloudConfig
from iaas.db.models import IdempotencyRow
from iaas.db.store import Store
from iaas.drivers.sim.backend import build_sim_backend
from iaas.kernel.clock import CloudClock
from iaas.kernel.ids import IdSource
from tests.chaos.applied import unapplied
from tests.chaos.torture_client import UNFINISHED, Client
from tests.chaos.torture_networks import reckon_networks
from tests.factories import assert_consistent, wait_for

SETTLE_TIMEOUT_S = 300.0
REPLAYS = 400  # acknowledged requests that are sent once more at the end
ZONES = ("zone-1", "zone-2")


def reckon(clients: list[Client], seed: int) -> Counter[str]:
    """Hold the ledgers against the API of the server, which goes on to run; return what was counted.

    Raises:
        AssertionError: something was lost, doubled or left over.
    """
    asking = clients[0]
    wait_for(
        lambda: not any(_all(asking, f"/v1/jobs?status={status}") for status in UNFINISHED),
        timeout_s=SETTLE_TIMEOUT_S,
        what="the end of all jobs",
    )
    choices = random.Random(seed)  # noqa: S311 - repeatable choices, no secrets
    for client in clients:  # before the counting: a replay that did something would show there
        keys = sorted(client.ledger.keyed)
        for key in choices.sample(keys, min(len(keys), REPLAYS // len(clients))):
            client.send_again(key)
    _instances(clients)
    _jobs(clients)
    wired = reckon_networks(clients, lambda path: _all(asking, path))
    report = asking.ask("POST", "/v1/doctor/actions/check", {})
    assert report["findings"] == [], report
    assert report["unchecked"] == {}, report
    ledgers = [client.ledger for client in clients]
    actions = wired + Counter(action for ledger in ledgers for _, action in ledger.jobs.values())
    return Counter(
        acknowledged=sum(actions.values()),
        instances=sum(len(ledger.owned) for ledger in ledgers),
        keys=sum(len(ledger.keyed) for ledger in ledgers),
        repeated=sum(ledger.repeated for ledger in ledgers),
        unheard=sum(ledger.unheard for ledger in ledgers),
        **actions,
    )


def _instances(clients: list[Client]) -> None:
    """Every instance is there once, as its owner left it, and no other."""
    expected = {key: value for client in clients for key, value in client.ledger.owned.items()}
    living = _all(clients[0], "/v1/instances")
    shown = {each["id"]: each for each in living + _all(clients[0], "/v1/instances?deleted=true")}
    assert shown.keys() == expected.keys(), {
        "lost": sorted(expected.keys() - shown.keys()),
        "more than asked for": sorted(shown.keys() - expected.keys()),
    }
    for instance, owned in expected.items():
        row = shown[instance]
        status = row["status"]
        if status == "deleted" and row["purged_at"] is not None:
            status = "purged"
        assert (status, row["transition"], row["failure"]) == (owned.status, None, None), (row, owned)
        assert row["vcpus"] == owned.vcpus, (row, owned)
    for what in ("name", "address"):
        most = Counter(each[what] for each in living).most_common(1)
        assert not most or most[0][1] == 1, f"two have the same {what}: {most}"


def _jobs(clients: list[Client]) -> None:
    """Every acknowledged job has succeeded, and each action was done as often as it was accepted."""
    jobs = {job["id"]: job for job in _all(clients[0], "/v1/jobs")}
    done: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for job in jobs.values():
        if job["action"].startswith("instance.") and job["action"] != "instance.watch_guest":
            done[job["resources"][0]["id"]][job["action"]] += 1
    for client in clients:
        for job_id, (instance, action) in client.ledger.jobs.items():
            job = jobs[job_id]
            assert job["status"] == "succeeded", job
            assert (job["action"], job["resources"]) == (f"instance.{action}", [{"type": "instance", "id": instance}])
        for instance, owned in client.ledger.owned.items():
            assert done.pop(instance) == owned.asked, f"{instance}: {done} done, {owned} asked for"
    assert not done, f"done, and never asked for: {dict(done)}"


def _all(client: Client, path: str) -> list[Any]:
    items: list[Any] = []
    path += "&limit=1000" if "?" in path else "?limit=1000"
    cursor = ""
    while True:
        found = client.ask("GET", path + cursor)
        items += found["items"]
        if found["next_cursor"] is None:
            return items
        cursor = f"&cursor={found['next_cursor']}"


def check_keys(folder: Path, clients: list[Client]) -> None:
    """Every acknowledged key has its answer in the database of the stopped server, and there are no others."""
    store = Store(f"sqlite:///{folder / 'cloud.db'}", CloudClock())
    table = IdempotencyRow.__table__
    try:
        with store.read() as connection:
            kept = {row.key: row.status for row in connection.execute(select(table.c.key, table.c.status))}
    finally:
        store.close()
    told = {key for client in clients for key in client.ledger.keyed}
    assert kept.keys() == told, {"lost": told - kept.keys(), "never acknowledged": kept.keys() - told}
    assert None not in kept.values(), "a request was begun and never ended"


def check_world(folder: Path) -> None:
    """Hold the database of a stopped server against its simulated world."""
    clock = CloudClock()
    url = f"sqlite:///{folder / 'cloud.db'}"
    cloud = Cloud(
        config=CloudConfig(state_dir=folder, database_url=url, zones=ZONES),
        backend=build_sim_backend(folder / "sim.db", clock, zones=ZONES),
        store=Store(url, clock),
        clock=clock,
        ids=IdSource(),
    )
    try:
        assert_consistent(cloud)
        assert unapplied(cloud) == []
    finally:
        cloud.close()
