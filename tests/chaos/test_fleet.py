"""Two servers and two workers on one PostgreSQL: they share the work, and any of them may be killed."""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.api.server_process import Server
from tests.chaos.fleet import LEASE_S, Fleet, Worker, all_events, create, streamed_events
from tests.factories import wait_for
from tests.postgres import Cluster

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl x"
WRITERS = 6
KEYS_EACH = 8
LAST = "project.updated"
"""An event that nothing but the end of a test makes."""


@pytest.fixture(scope="module")
def fleet(postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with postgres.database() as url:
        opened = Fleet(tmp_path_factory.mktemp("fleet"), url)
        try:
            yield opened
        finally:
            opened.close()


def newest_event(server: Server) -> str:
    found = all_events(server)
    return str(found[-1]["id"]) if found else "0"


def ended(workers: list[Worker]) -> list[str]:
    """Return the jobs whose end these workers have logged, once for each time."""
    return [entry["job_id"] for worker in workers for entry in worker.told("job_ended")]


def in_hand(fleet: Fleet) -> dict[str, int]:
    """Return the jobs that workers have, each with the number of its worker."""
    query = "SELECT args ->> 'job_id', worker_id FROM procrastinate_jobs WHERE status = 'doing'"
    return {row[0]: row[1] for row in fleet.query(query)}


def test_readers_miss_nothing_of_what_many_write_everywhere(fleet: Fleet) -> None:
    """Streams and pages that are broken off and resumed, on both servers, while servers and workers write."""
    servers, workers = fleet.need_servers(), fleet.need_workers(2)
    start = newest_event(servers[0])

    def write(number: int) -> list[str]:
        made = []
        for each in range(KEYS_EACH):
            server = servers[(number + each) % 2]
            body = {"name": f"key-{number}-{each}", "public_key": PUBLIC_KEY}
            server.post("/v1/key_pairs", body, status=201)
            if each % 2:
                made.append(create(server, f"busy-{number}-{each}")["job"]["id"])
        return made

    def follow(number: int) -> list[dict[str, Any]]:
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1]["type"] != LAST:
            after = str(seen[-1]["id"]) if seen else start
            # Cut off after a few, and resumed at the other server.
            server = servers[(number + len(seen)) % 2]
            seen += streamed_events(server, after=after, at_most=7 + number, until=LAST)
        return seen

    def turn_pages() -> list[dict[str, Any]]:
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1]["type"] != LAST:
            after = str(seen[-1]["id"]) if seen else start
            seen += servers[len(seen) % 2].get("/v1/events", after=after, limit=5)["items"]
        return seen

    with ThreadPoolExecutor(WRITERS + 4) as pool:
        reading = [pool.submit(follow, number) for number in range(3)] + [pool.submit(turn_pages)]
        job_ids = [job_id for made in pool.map(write, range(WRITERS)) for job_id in made]
        for job_id in job_ids:  # accepted by either server; the other one waits for its end
            assert servers[0].get(f"/v1/jobs/{job_id}", wait=30)["status"] == "succeeded"
        wait_for(lambda: not in_hand(fleet), what="the end of all jobs")
        answer = servers[1].client.patch("/v1/projects/default", json={"labels": {"at": "end"}})
        assert answer.status_code == 200, answer.text
        seen_by_each = [done.result(60) for done in reading]
    everything = all_events(servers[0], after=start)
    ids = [int(event["id"]) for event in everything]
    assert ids == sorted(set(ids))
    for seen in seen_by_each:
        assert seen == everything
    count = Counter(event["type"] for event in everything)
    assert count["key_pair.created"] == WRITERS * KEYS_EACH
    assert count["instance.created"] == len(job_ids)
    of_workers = ended(workers)
    assert len(set(of_workers)) == len(of_workers), "a job was run twice"
    assert set(job_ids) <= set(of_workers)
    assert all(worker.told("job_ended") for worker in workers), "one of them did all the work"


def test_a_killed_server_loses_nothing_that_it_accepted(fleet: Fleet) -> None:
    fleet.need_workers(2)
    first, second = fleet.need_servers()
    accepted = [create(first, f"orphan-{number}", key=f"orphan-{number}") for number in range(5)]
    first.kill()
    for number, made in enumerate(accepted):
        again = create(second, f"orphan-{number}", key=f"orphan-{number}")
        assert again == made, "the answer under the key"
        assert second.get(f"/v1/jobs/{made['job']['id']}", wait=30)["status"] == "succeeded"
        assert second.get(f"/v1/instances/orphan-{number}")["status"] == "running"


def test_the_jobs_of_a_killed_worker_are_finished_by_another(fleet: Fleet) -> None:
    servers, workers = fleet.need_servers(), fleet.need_workers(2)
    start = newest_event(servers[0])
    made = [create(servers[number % 2], f"web-{number}", kind="vm")["job"]["id"] for number in range(24)]
    wait_for(lambda: len(set(in_hand(fleet).values())) == 2, what="work for both")
    workers[0].kill()
    for number, job_id in enumerate(made):
        assert servers[number % 2].get(f"/v1/jobs/{job_id}", wait=40)["status"] == "succeeded"
    assert workers[1].told("job_taken_over"), "the killed worker had nothing in its hands"
    created = [event for event in all_events(servers[0], after=start) if event["type"] == "instance.created"]
    assert len(created) == len({event["resource"]["id"] for event in created}) == len(made)
    of_workers = ended(workers)
    assert len(set(of_workers)) == len(of_workers), "a job was run twice"


def test_a_worker_that_is_held_up_keeps_its_jobs(fleet: Fleet) -> None:
    """Longer than its lease: the others see an old heartbeat, and that it lives."""
    servers, workers = fleet.need_servers(), fleet.need_workers(2)
    made = [create(servers[0], f"slow-{number}", kind="vm")["job"]["id"] for number in range(8)]
    wait_for(lambda: len(set(in_hand(fleet).values())) == 2, what="work for both")
    workers[0].signal(signal.SIGSTOP)
    try:
        held = in_hand(fleet)
        ages = "SELECT count(*) FROM procrastinate_workers WHERE last_heartbeat < now() - make_interval(secs => :s)"
        wait_for(lambda: fleet.query(ages, s=3 * LEASE_S)[0][0] > 0, what="a heartbeat older than the lease")
        wait_for(lambda: len(set(in_hand(fleet).values())) == 1, what="the other's end of its own work")
        kept = in_hand(fleet)
        assert kept
        assert kept.items() <= held.items()
        assert not [entry for worker in workers for entry in worker.told("job_taken_over") if entry["job_id"] in kept]
    finally:
        workers[0].signal(signal.SIGCONT)
    for job_id in made:
        assert servers[1].get(f"/v1/jobs/{job_id}", wait=30)["status"] == "succeeded"
    of_workers = ended(workers)
    assert len(set(of_workers)) == len(of_workers), "a job was run twice"


def test_the_doctor_looked_once_at_the_start_and_every_server_knows(fleet: Fleet) -> None:
    servers = fleet.need_servers()
    fleet.need_workers(2)
    wait_for(lambda: servers[0].get("/v1/doctor")["looked_at"] is not None, timeout_s=40, what="the first look")
    reports = [server.get("/v1/doctor") for server in servers]
    assert reports[0] == reports[1]
    assert reports[0]["unchecked"] == {}
    # A worker that came later, for a killed one, may have looked as well: that is a start of its own.
    together, later = fleet.workers[:2], fleet.workers[2:]
    looks = [sum(len(worker.told("doctor_looked")) for worker in some) for some in (together, later)]
    assert looks[0] <= 1, "two that started together looked both"
    assert sum(looks) >= 1


def test_a_stopped_worker_gives_back_what_it_has(fleet: Fleet) -> None:
    servers = fleet.need_servers()
    [last] = fleet.need_workers(1)
    job_id = create(servers[0], "one", kind="vm")["job"]["id"]
    wait_for(lambda: job_id in in_hand(fleet), what="the worker's grip")
    last.signal(signal.SIGTERM)
    assert last.reap() == 0
    assert in_hand(fleet) == {}
    assert servers[0].get(f"/v1/jobs/{job_id}")["status"] in ("queued", "running")
    fleet.need_workers(1)
    assert servers[1].get(f"/v1/jobs/{job_id}", wait=30)["status"] == "succeeded"


def test_a_job_that_its_queue_lost_is_brought_back_by_a_repair(fleet: Fleet) -> None:
    servers = fleet.need_servers()
    fleet.need_workers(0)
    job_id = create(servers[0], "lost")["job"]["id"]
    fleet.query("DELETE FROM procrastinate_jobs WHERE args ->> 'job_id' = :id", id=job_id)
    found = servers[1].post("/v1/doctor/actions/check", status=200)["findings"]
    assert [(each["drift"], each["resource"]["id"]) for each in found] == [("stuck_job", job_id)]
    report = servers[1].post("/v1/doctor/actions/repair", status=200)
    assert [each["resource"]["id"] for each in report["repaired"]] == [job_id]
    assert report["findings"] == servers[0].get("/v1/doctor")["findings"] == []
    fleet.need_workers(1)
    assert servers[0].get(f"/v1/jobs/{job_id}", wait=30)["status"] == "succeeded"


def test_a_dump_and_the_folder_are_the_fleet_again(fleet: Fleet, postgres: Cluster, tmp_path: Path) -> None:
    """As docs/backup.md has it: no worker runs meanwhile, servers go on accepting."""
    first, second = fleet.need_servers()
    [worker] = fleet.need_workers(1)
    kept = {each["name"]: each["id"] for each in first.get("/v1/instances", limit=1000)["items"]}
    made = {name: create(first, name, kind="vm") for name in ("saved-0", "saved-1", "saved-2")}
    wait_for(lambda: bool(in_hand(fleet)), what="the worker's grip")
    worker.kill()
    made["saved-3"] = create(second, "saved-3")
    (tmp_path / "state").mkdir(mode=0o700)
    postgres.dump(fleet.url, tmp_path / "cloud.dump")
    for path in (fleet.folder / "state").iterdir():
        shutil.copy2(path, tmp_path / "state")
    create(first, "not-saved")
    with postgres.database(empty=True) as url:
        postgres.restore(tmp_path / "cloud.dump", url)
        again = Fleet(tmp_path, url, servers=1)
        try:
            [server] = again.need_servers()
            again.need_workers(1)
            assert server.token == first.token
            for answer in made.values():
                assert server.get(f"/v1/jobs/{answer['job']['id']}", wait=40)["status"] == "succeeded"
            found = {each["name"]: each["id"] for each in server.get("/v1/instances", limit=1000)["items"]}
            assert found == {**kept, **{name: answer["instance"]["id"] for name, answer in made.items()}}
            wait_for(lambda: not in_hand(again), what="the end of all jobs")
            assert server.post("/v1/doctor/actions/check", status=200)["findings"] == []
        finally:
            again.close()
