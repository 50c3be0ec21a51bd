"""Quotas over the API: seen, set, refused, given back; and the counters are what the rows hold."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask import Flask
from sqlalchemy import delete, update

from iaas.api.app import create_app
from iaas.client import Client, InvalidInput, QuotaExceeded
from iaas.cloud import Cloud
from iaas.config import CloudConfig
from iaas.db.models import QuotaRow
from iaas.drivers.interface import PermanentError
from iaas.resources.common import Role
from iaas.services.quotas import COUNTED, DEFAULTS, Quotas, recount, repair
from tests.api.calling import NEW, Caller, make
from tests.factories import START, TOKEN, assert_consistent, open_cloud, operator, principal_in, settle, world

NOTHING = dict.fromkeys(DEFAULTS, 0)
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl x"


def used(caller: Caller) -> dict[str, int]:
    return {item["resource"]: item["used"] for item in caller.get("/v1/quotas")["items"]}


def limit(admin: Caller, project: str, **limits: int | None) -> Any:
    answer = admin.send("PATCH", f"/v1/projects/{project}/quotas", limits, status=200)
    return {item["resource"]: item["limit"] for item in answer["items"]}


def in_use(**amounts: int) -> dict[str, int]:
    return {**NOTHING, **amounts}


ONE = in_use(instances=1, vcpus=1, memory_mib=128, root_disk_gib=1, nics=1)


def test_an_empty_project_has_the_defaults(member: Caller, admin: Caller) -> None:
    for answer in (member.get("/v1/quotas"), admin.get("/v1/projects/team/quotas")):
        assert answer["next_cursor"] is None
        assert {item["resource"]: item["limit"] for item in answer["items"]} == DEFAULTS
        assert all(item["used"] == 0 for item in answer["items"])
    assert [name for counted in COUNTED for name in counted.defaults] == list(DEFAULTS)


def test_use_is_counted_from_the_acceptance_to_the_end_of_the_deletion(member: Caller, cloud: Cloud) -> None:
    make(member, name="web")
    assert used(member) == ONE
    settle(cloud)
    assert used(member) == ONE
    member.send("DELETE", "/v1/instances/web", status=202)
    settle(cloud)
    assert used(member) == NOTHING
    assert_consistent(cloud)


def test_a_create_that_failed_holds_nothing(member: Caller, cloud: Cloud) -> None:
    world(cloud).faults.fail_next("ensure_machine", PermanentError("broken"))
    make(member, name="web")
    settle(cloud)
    assert member.get("/v1/instances")["items"][0]["status"] == "failed"
    assert used(member) == NOTHING
    assert_consistent(cloud)


@pytest.mark.parametrize(
    ("quota", "limited", "asked"),
    [("instances", 1, 1), ("vcpus", 1, 1), ("memory_mib", 255, 128), ("root_disk_gib", 1, 1)],
)
def test_what_is_beyond_a_quota_is_refused(
    admin: Caller, member: Caller, cloud: Cloud, quota: str, limited: int, asked: int
) -> None:
    limit(admin, "team", **{quota: limited})
    make(member)
    before = member.get("/v1/events")["items"]
    document = member.refused("POST", "/v1/instances", NEW, status=403, code="quota_exceeded")
    assert [(error["field"], error["code"]) for error in document["errors"]] == [(quota, "quota_exceeded")]
    assert document["detail"].startswith(f"the project's quota of {quota} is {limited}: ")
    assert document["detail"].endswith(f"{ONE[quota]} in use, {asked} more asked for")
    assert document["retryable"] is False
    assert used(member) == ONE
    assert member.get("/v1/events")["items"] == before
    settle(cloud)
    assert_consistent(cloud)


def test_a_batch_is_counted_as_a_whole(admin: Caller, member: Caller, cloud: Cloud) -> None:
    limit(admin, "team", instances=3)
    batch = {"instances": [NEW] * 4}
    member.refused("POST", "/v1/instances:batch", batch, status=403, code="quota_exceeded")
    assert used(member) == NOTHING
    member.send("POST", "/v1/instances:batch", {"instances": [NEW] * 3}, status=202)
    assert used(member)["instances"] == 3
    settle(cloud)
    assert_consistent(cloud)


def test_a_refusal_for_another_reason_takes_nothing(member: Caller) -> None:
    make(member, name="web")
    member.refused("POST", "/v1/instances", {**NEW, "name": "web"}, status=409, code="name_taken")
    huge = {"kind": "vm", "image": "tiny", "vcpus": 512, "memory_mib": 4_194_304}
    member.refused("POST", "/v1/instances", huge, status=409, code="out_of_capacity")
    assert used(member) == ONE


def test_a_resize_counts_both_ways(admin: Caller, member: Caller, cloud: Cloud) -> None:
    make(member, name="web")
    settle(cloud)
    member.send("POST", "/v1/instances/web/actions/stop", {"force": True}, status=202)
    settle(cloud)
    resize = "/v1/instances/web/actions/resize"
    limit(admin, "team", memory_mib=300)
    member.refused("POST", resize, {"vcpus": 1, "memory_mib": 301}, status=403, code="quota_exceeded")
    member.send("POST", resize, {"vcpus": 4, "memory_mib": 300}, status=202)
    assert used(member) == {**ONE, "vcpus": 4, "memory_mib": 300}, "growth is taken when it is accepted"
    with cloud.store.read() as connection:
        assert recount(connection) == []
    settle(cloud)
    assert used(member) == {**ONE, "vcpus": 4, "memory_mib": 300}
    member.send("POST", resize, {"vcpus": 1, "memory_mib": 128}, status=202)
    assert used(member)["vcpus"] == 4, "what becomes less is given back at the end"
    settle(cloud)
    assert used(member) == ONE
    world(cloud).faults.fail_next("resize_machine", PermanentError("broken"))
    member.send("POST", resize, {"vcpus": 2, "memory_mib": 256}, status=202)
    settle(cloud)
    assert used(member) == ONE
    assert_consistent(cloud)


def test_key_pairs(admin: Caller, member: Caller) -> None:
    limit(admin, "team", key_pairs=1)
    member.send("POST", "/v1/key_pairs", {"name": "a", "public_key": KEY}, status=201)
    document = member.refused(
        "POST", "/v1/key_pairs", {"name": "b", "public_key": KEY}, status=403, code="quota_exceeded"
    )
    assert document["errors"][0]["field"] == "key_pairs"
    assert used(member) == in_use(key_pairs=1)
    member.send("DELETE", "/v1/key_pairs/a", status=204)
    assert used(member) == NOTHING
    member.send("POST", "/v1/key_pairs", {"name": "b", "public_key": KEY}, status=201)


def test_limits_are_set_and_go_back_to_the_default(admin: Caller, member: Caller, cloud: Cloud) -> None:
    make(member)
    assert limit(admin, "team", instances=0, vcpus=7) == {**DEFAULTS, "instances": 0, "vcpus": 7}
    assert limit(admin, "team", instances=None) == {**DEFAULTS, "vcpus": 7}
    assert limit(admin, "team") == {**DEFAULTS, "vcpus": 7}
    member.send("POST", "/v1/instances", NEW, status=202)
    assert limit(admin, "team", instances=0)["instances"] == 0  # below what is in use: no more, and nothing goes
    member.refused("POST", "/v1/instances", NEW, status=403, code="quota_exceeded")
    assert used(member)["instances"] == 2


def test_a_changed_limit_is_told_in_its_project(admin: Caller, member: Caller) -> None:
    [project] = [each for each in admin.get("/v1/projects")["items"] if each["name"] == "team"]
    before = {who: len(who.get("/v1/events")["items"]) for who in (admin, member)}
    headers = {"X-Request-Id": "mine"}
    limits = {"instances": 5, "vcpus": None}
    admin.send("PATCH", "/v1/projects/team/quotas", limits, status=200, headers=headers)
    limit(admin, "team")  # nothing to tell of
    [event] = member.get("/v1/events")["items"][before[member] :]
    assert (event["type"], event["resource"]) == ("quota.updated", {"type": "quota", "id": project["id"]})
    assert (event["data"], event["request_id"]) == ({"limits": limits}, "mine")
    assert len(admin.get("/v1/events")["items"]) == before[admin], "it is of the project whose limits they are"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"flowers": 1}, "flowers"),
        ({"instances": -1}, "instances"),
        ({"instances": 10**15 + 1}, "instances"),
        ({"instances": "5"}, "instances"),
        ({"instances": True}, "instances"),
        ({"instances": 1.5}, "instances"),
    ],
)
def test_wrong_limits(admin: Caller, member: Caller, body: Any, field: str) -> None:
    document = admin.refused("PATCH", "/v1/projects/team/quotas", body, status=422, code="invalid_input")
    assert document["errors"][0]["field"] == field
    if field == "flowers":
        message = f"unknown quota; there are {', '.join(DEFAULTS)}"
        assert document["errors"] == [{"field": field, "code": "unknown", "message": message}]
        assert document["detail"] == f"flowers: {message}"
    admin.refused("PATCH", "/v1/projects/none/quotas", {}, status=404, code="not_found")
    admin.refused("GET", "/v1/projects/none/quotas", status=404, code="not_found")


def test_who_is_no_admin_sees_the_limits_of_his_own_project_only(
    admin: Caller, member: Caller, cloud: Cloud, app: Flask
) -> None:
    limit(admin, "team", instances=7)
    reader = Caller(app, principal_in(cloud, "team", Role.READER)[1])
    own = member.get("/v1/quotas")
    [project] = [each["id"] for each in admin.get("/v1/projects")["items"] if each["name"] == "team"]
    for caller in (reader, member):
        assert caller.get("/v1/projects/team/quotas") == caller.get(f"/v1/projects/{project}/quotas") == own
        for other in ("default", "none"):
            caller.refused("GET", f"/v1/projects/{other}/quotas", status=404, code="not_found")
        body = {"instances": 8}
        caller.refused("PATCH", "/v1/projects/team/quotas", body, status=403, code="permission_denied")
    assert own["items"][0] == {"resource": "instances", "limit": 7, "used": 0}


def test_projects_do_not_share(admin: Caller, member: Caller, stranger: Caller) -> None:
    limit(admin, "team", instances=1)
    make(member)
    make(stranger)
    make(stranger)
    assert (used(member)["instances"], used(stranger)["instances"], used(admin)["instances"]) == (1, 2, 0)


def test_of_many_at_once_as_many_pass_as_there_is_room(tmp_path: Path, database_url: str | None) -> None:
    with open_cloud(tmp_path, database_url=database_url) as cloud:
        app = create_app(cloud)
        admin = Caller(app, TOKEN)
        member = Caller(app, principal_in(cloud, "team", Role.MEMBER)[1])
        limit(admin, "team", instances=10, key_pairs=5)
        barrier = threading.Barrier(8)
        codes: list[int] = []

        def send() -> None:
            caller = Caller(app, principal_token)
            barrier.wait(20)
            for number in range(4):
                codes.append(caller.call("POST", "/v1/instances", json=NEW).status_code)
                body = {"name": f"{threading.get_ident()}-{number}", "public_key": KEY}
                codes.append(caller.call("POST", "/v1/key_pairs", json=body).status_code)

        principal_token = principal_in(cloud, "team", Role.MEMBER)[1]
        threads = [threading.Thread(target=send) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {code: codes.count(code) for code in set(codes)} == {202: 10, 201: 5, 403: 49}
        assert used(member) == in_use(instances=10, vcpus=10, memory_mib=1280, root_disk_gib=10, nics=10, key_pairs=5)
        with cloud.store.read() as connection:
            assert recount(connection) == []
        settle(cloud)
        assert_consistent(cloud)


def test_a_key_pair_deleted_by_two_is_given_back_once(
    member: Caller, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        member.send("POST", "/v1/key_pairs", {"name": name, "public_key": KEY}, status=201)
    original = cloud.key_pairs.get

    def get(principal: Any, name: str) -> Any:
        found = original(principal, name)
        monkeypatch.undo()
        cloud.key_pairs.delete(principal, name)  # somebody else was quicker
        return found

    monkeypatch.setattr(cloud.key_pairs, "get", get)
    member.send("DELETE", "/v1/key_pairs/a", status=204)
    assert used(member) == in_use(key_pairs=1)


def test_who_comes_after_his_project_is_gone(app: Flask, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    _, token = principal_in(cloud, "gone", Role.MEMBER)
    caller = Caller(app, token)
    original = cloud.instances.create

    def create(*args: Any, **more: Any) -> Any:
        cloud.identity.delete_project(operator(cloud), "gone")
        return original(*args, **more)

    monkeypatch.setattr(cloud.instances, "create", create)
    caller.refused("POST", "/v1/instances", NEW, status=401, code="unauthenticated")
    mine = operator(cloud).project_id
    with cloud.store.read() as connection:
        assert {row.project_id for row in connection.execute(QuotaRow.__table__.select())} == {mine}


def test_counters_that_are_wrong_are_found_and_mended(member: Caller, cloud: Cloud) -> None:
    project_id = make(member)["project_id"]
    wrong = update(QuotaRow).where(QuotaRow.project_id == project_id, QuotaRow.resource == "vcpus").values(used=9)
    cloud.store.write(lambda tx: tx.connection.execute(wrong))
    with cloud.store.read() as connection:
        [drift] = recount(connection)
    assert (drift.project_id, drift.resource, drift.used, drift.held) == (project_id, "vcpus", 9, 1)
    assert cloud.store.write(repair) == [drift]
    with cloud.store.read() as connection:
        assert recount(connection) == []


def test_a_database_without_counters_gets_them_at_the_next_start(tmp_path: Path, database_url: str | None) -> None:
    with open_cloud(tmp_path, database_url=database_url) as cloud:
        admin = Caller(create_app(cloud), TOKEN)
        make(admin)
        cloud.key_pairs.create(operator(cloud), name="me", public_key=KEY)
        settle(cloud)
        cloud.store.write(lambda tx: tx.connection.execute(delete(QuotaRow)))
        clock = cloud.clock
    with open_cloud(tmp_path, seed=2, clock=clock, database_url=database_url) as cloud:
        assert used(Caller(create_app(cloud), TOKEN)) == {**ONE, "key_pairs": 1}
        assert_consistent(cloud)


def test_defaults_come_from_the_configuration(cloud: Cloud) -> None:
    config = CloudConfig(state_dir=None, database_url="sqlite://", quotas={"instances": 2})
    found = Quotas(cloud.store, config.quotas).own(operator(cloud))
    assert {quota.resource: quota.limit for quota in found} == {**DEFAULTS, "instances": 2}
    for wrong in ({"flowers": 1}, {"instances": -1}):
        with pytest.raises(ValueError, match="is no quota"):
            Quotas(cloud.store, wrong)
    assert cloud.clock.now() >= START


def test_the_sdk(app: Flask, cloud: Cloud, member: Caller) -> None:
    with Client("http://cloud.test", TOKEN, http=httpx.WSGITransport(app=app)) as client:
        assert {quota.resource: quota.limit for quota in client.quotas.list()} == DEFAULTS
        changed = client.quotas.update("team", {"instances": 0, "vcpus": None})
        assert changed == client.quotas.list(project="team")
        assert (changed[0].resource, changed[0].limit, changed[0].used) == ("instances", 0, 0)
        with pytest.raises(InvalidInput, match="flowers"):
            client.quotas.update("team", {"flowers": 1})
        client.quotas.update("default", {"instances": 0})
        with pytest.raises(QuotaExceeded, match="quota of instances is 0"):
            client.instances.create(kind="vm", image="tiny", flavor="nano")
