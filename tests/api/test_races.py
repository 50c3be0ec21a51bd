"""Clients of one server, each with a connection of its own, want the same at the same moment."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.api.server_process import Server, running
from tests.factories import wait_for

CLIENTS = 8
ROUNDS = 3
HOSTS = """
[[hosts]]
name = "small"
vcpus = 6
memory_mib = 4096
disk_gib = 100
"""
NEW = {"kind": "container", "image": "tiny", "flavor": "nano"}

Ask = Callable[[httpx.Client, int], httpx.Response]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("races")
    hosts = folder / "hosts.toml"
    hosts.write_text(HOSTS)
    with running(folder / "state", "--hosts", str(hosts), "--quota", "key_pairs=1") as started:
        yield started
        assert started.post("/v1/doctor/actions/check", status=200)["findings"] == []


@pytest.fixture(autouse=True)
def empty(server: Server) -> Iterator[None]:
    """Each test leaves nothing, and counters that say so."""
    yield
    server.client.patch("/v1/projects/default/quotas", json={"instances": None}).raise_for_status()
    settled(server)
    for each in server.get("/v1/instances")["items"]:
        assert server.client.delete(f"/v1/instances/{each['id']}").status_code == 202
    settled(server)
    used = {item["resource"]: item["used"] for item in server.get("/v1/quotas")["items"]}
    assert {used[name] for name in ("instances", "vcpus", "memory_mib", "root_disk_gib")} == {0}
    assert [host["vcpus_used"] for host in server.get("/v1/hosts")["items"]] == [0]


def settled(server: Server) -> None:
    def is_quiet() -> bool:
        return all(
            server.get("/v1/jobs", status=status, limit=1)["items"] == [] for status in ("queued", "running")
        ) and all(each["transition"] is None for each in server.get("/v1/instances")["items"])

    wait_for(is_quiet, timeout_s=60, what="the end of all jobs")


def race(server: Server, asks: Sequence[Ask]) -> list[httpx.Response]:
    """Send all at the same moment; return the answers in the order of the requests."""
    start = threading.Barrier(len(asks))

    def run(number: int) -> httpx.Response:
        headers = {"Authorization": f"Bearer {server.token}"}
        with httpx.Client(base_url=server.url, headers=headers, timeout=30, trust_env=False) as client:
            client.get("/v1/health")  # connected before the start
            start.wait(30)
            return asks[number](client, number)

    with ThreadPoolExecutor(len(asks)) as pool:
        return list(pool.map(run, range(len(asks)), timeout=90))


def told(answers: Sequence[httpx.Response]) -> Counter[Any]:
    """Count the answers: status, or code of a refusal."""
    return Counter(answer.json()["code"] if answer.status_code >= 400 else answer.status_code for answer in answers)


def creates(**more: Any) -> Ask:
    return lambda client, number: client.post("/v1/instances", json={**NEW, **more})


def acts(instance_id: str, verb: str) -> Ask:
    if verb == "delete":
        return lambda client, number: client.delete(f"/v1/instances/{instance_id}")
    return lambda client, number: client.post(f"/v1/instances/{instance_id}/actions/{verb}", json={})


def test_one_name(server: Server) -> None:
    for number in range(ROUNDS):
        answers = race(server, [creates(name=f"web-{number}")] * CLIENTS)
        assert told(answers) == {202: 1, "name_taken": CLIENTS - 1}


def test_the_last_room(server: Server) -> None:
    assert told(race(server, [creates()] * CLIENTS)) == {202: 6, "out_of_capacity": CLIENTS - 6}


def test_the_last_of_a_quota(server: Server) -> None:
    for number in range(1, ROUNDS + 1):
        server.client.patch("/v1/projects/default/quotas", json={"instances": number}).raise_for_status()
        assert told(race(server, [creates()] * CLIENTS)) == {202: 1, "quota_exceeded": CLIENTS - 1}


def test_the_only_key_pair(server: Server) -> None:
    answers = race(
        server, [lambda client, number: client.post("/v1/key_pairs", json={"name": f"k-{number}"})] * CLIENTS
    )
    assert told(answers) == {201: 1, "quota_exceeded": CLIENTS - 1}


def test_start_stop_and_delete(server: Server) -> None:
    """Jobs end meanwhile, so more than one may get its turn; never two at once, and each answer is one of the known."""
    verbs = ("stop", "start", "restart", "delete")
    for _ in range(ROUNDS):
        made = server.post("/v1/instances", NEW)["instance"]["id"]
        settled(server)
        answers = race(server, [acts(made, verb) for verb in verbs * 2])
        counted = told(answers)
        assert counted[202] >= 1
        assert set(counted) <= {202, "in_transition", "invalid_state", "not_found"}
        settled(server)
        jobs = [
            job for job in server.get("/v1/jobs", resource_id=made)["items"] if job["action"] != "instance.watch_guest"
        ]
        assert len(jobs) == 1 + counted[202]
        assert {job["status"] for job in jobs} == {"succeeded"}
        spans = sorted((job["created_at"], job["finished_at"]) for job in jobs)
        assert all(ended <= began for (_, ended), (began, _) in itertools.pairwise(spans))


def test_one_idempotency_key(server: Server) -> None:
    for number in range(ROUNDS):
        headers = {"Idempotency-Key": f"race-{number}"}
        answers = race(
            server,
            [lambda client, _, headers=headers: client.post("/v1/instances", json=NEW, headers=headers)] * CLIENTS,
        )
        assert set(told(answers)) <= {202, "idempotency_in_progress"}
        assert len({answer.text for answer in answers if answer.status_code == 202}) == 1
        assert len(server.get("/v1/instances")["items"]) == number + 1
