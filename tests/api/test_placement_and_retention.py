"""Hosts, placement and the second life of deleted instances, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask

from iaas.api.app import create_app
from iaas.cloud import Cloud
from tests.api.calling import NEW, Caller, make
from tests.factories import TOKEN, assert_consistent, open_cloud, settle

TWO_HOURS = 7200.0


@pytest.fixture
def cloud(database_url: str | None) -> Iterator[Cloud]:
    with open_cloud(retention_s=TWO_HOURS, database_url=database_url) as opened:
        yield opened


@pytest.fixture
def app(cloud: Cloud) -> Flask:
    return create_app(cloud)


@pytest.fixture
def admin(app: Flask) -> Caller:
    return Caller(app, TOKEN)


def test_a_host_is_drained_and_taken_down(admin: Caller, cloud: Cloud) -> None:
    web = make(admin, name="web", placement={"host": "sim-zone-1-1"})
    settle(cloud)
    host = admin.get("/v1/hosts/sim-zone-1-1")
    assert (host["id"], host["status"], host["vcpu_overcommit"]) == (web["host_id"], "up", 1.0)
    drained = admin.send("PATCH", "/v1/hosts/sim-zone-1-1", {"status": "draining", "labels": {"a": "b"}}, status=200)
    assert (drained["status"], drained["labels"]) == ("draining", {"a": "b"})
    assert [each["name"] for each in admin.get("/v1/hosts", status="draining")["items"]] == ["sim-zone-1-1"]
    document = admin.refused(
        "POST", "/v1/instances", {**NEW, "placement": {"host": "sim-zone-1-1"}}, status=409, code="out_of_capacity"
    )
    assert [(each["field"], each["code"]) for each in document["errors"]] == [("hosts.sim-zone-1-1", "draining")]
    admin.send("PATCH", "/v1/hosts/sim-zone-1-1", {"status": "down"}, status=200)
    document = admin.refused("POST", "/v1/instances/web/actions/stop", status=409, code="host_down")
    assert document["resource"] == {"type": "instance", "id": web["id"]}
    assert admin.get("/v1/instances/web")["status"] == "running"
    admin.send("PATCH", "/v1/hosts/sim-zone-1-1", {"status": "up"}, status=200)
    admin.send("POST", "/v1/instances/web/actions/stop", status=202)
    admin.refused("PATCH", "/v1/hosts/sim-zone-1-1", {"status": "broken"}, status=422, code="invalid_input")


def test_only_admins_are_told_of_hosts(admin: Caller, member: Caller) -> None:
    for number in (1, 2):
        path = f"/v1/hosts/sim-zone-1-{number}"
        admin.send("PATCH", path, {"status": "draining" if number == 1 else "up"}, status=200)
    huge = {"kind": "vm", "image": "tiny", "vcpus": 200, "memory_mib": 64, "root_disk_gib": 1, "zone": "zone-1"}
    for path, body, prefix in (
        ("/v1/instances", huge, ""),
        ("/v1/instances:batch", {"instances": [huge]}, "instances.0."),
    ):
        document = member.refused("POST", path, body, status=409, code="out_of_capacity")
        told = [(each["field"], each["code"]) for each in document["errors"]]
        assert told == [(f"{prefix}zone", "no_host"), (f"{prefix}vcpus", "no_vcpus")]
        assert "sim-zone" not in str(document)
        document = admin.refused("POST", path, body, status=409, code="out_of_capacity")
        told = [(each["field"], each["code"]) for each in document["errors"]]
        assert told == [
            (f"{prefix}hosts.sim-zone-1-1", "draining"),
            (f"{prefix}hosts.sim-zone-1-2", "no_vcpus"),
        ]
        assert "sim-zone" not in document["detail"]


def test_growing_without_room_names_no_host_to_tenants(member: Caller, cloud: Cloud) -> None:
    web = make(member, name="web")
    settle(cloud)
    member.send("POST", "/v1/instances/web/actions/stop", status=202)
    settle(cloud)
    document = member.refused(
        "POST",
        f"/v1/instances/{web['id']}/actions/resize",
        {"vcpus": 200, "memory_mib": 64},
        status=409,
        code="out_of_capacity",
    )
    assert [(each["field"], each["code"]) for each in document["errors"]] == [("vcpus", "no_vcpus")]
    assert "sim-zone" not in str(document)


def test_rules_of_placement(admin: Caller, cloud: Cloud) -> None:
    rule = {"anti_affinity": {"label_selector": "app=db"}}
    first = make(admin, labels={"app": "db"}, placement=rule)
    second = make(admin, labels={"app": "db"}, placement=rule)
    assert first["host_id"] != second["host_id"]
    assert first["placement"] == {"anti_affinity": {"instances": [], "label_selector": "app=db", "strict": True}}
    near = make(admin, placement={"affinity": {"instances": [second["id"]], "strict": False}})
    assert near["host_id"] == second["host_id"]
    document = admin.refused(
        "POST", "/v1/instances", {**NEW, "zone": "zone-1", "placement": rule}, status=409, code="out_of_capacity"
    )
    assert {each["code"] for each in document["errors"]} == {"anti_affinity"}
    settle(cloud)
    assert_consistent(cloud)


@pytest.mark.parametrize(
    ("placement", "field"),
    [
        ({"colour": "red"}, "placement.colour"),
        ({"affinity": {"strict": "yes"}}, "placement.affinity.strict"),
        ({"affinity": {}}, "placement.affinity"),
        ({"affinity": {"instances": []}}, "placement.affinity.instances"),
        ({"anti_affinity": {"label_selector": "a=("}}, "placement.anti_affinity.label_selector"),
        ({"anti_affinity": {"instances": ["none"]}}, "placement.anti_affinity.instances.0"),
        ({"host": "none"}, "placement.host"),
        ([], "placement"),
    ],
)
def test_rules_that_are_wrong(admin: Caller, placement: object, field: str) -> None:
    body = {**NEW, "placement": placement}
    document = admin.refused("POST", "/v1/instances", body, status=422, code="invalid_input")
    assert [each["field"].removesuffix("._schema") for each in document["errors"]] == [field]


def test_a_second_life(admin: Caller, cloud: Cloud) -> None:
    made = make(admin, name="web", labels={"a": "b"})
    settle(cloud)
    path = f"/v1/instances/{made['id']}"
    address = admin.get(path)["address"]
    accepted = admin.send("DELETE", path, status=202)
    assert (accepted["instance"]["transition"], accepted["job"]["action"]) == ("deleting", "instance.retire")
    settle(cloud)
    for refused in (path, "/v1/instances/web"):
        admin.refused("GET", refused, status=404, code="not_found")
    admin.refused("DELETE", path, status=404, code="not_found")
    [gone] = admin.get("/v1/instances", deleted="true")["items"]
    assert gone == admin.get(path, deleted="true")
    assert (gone["status"], gone["name"], gone["nics"], gone["purged_at"]) == ("deleted", "web", [], None)
    assert gone["purge_at"] > gone["deleted_at"]
    for method, target in (("POST", f"{path}/actions/recover"), ("DELETE", f"{path}?purge=true")):
        admin.refused(method, target, status=412, code="precondition_failed", headers={"If-Match": '"1"'})
    matching = {"If-Match": f'"{gone["generation"]}"'}
    accepted = admin.send("POST", f"{path}/actions/recover", {"name": "web-2"}, status=202, headers=matching)
    assert (accepted["instance"]["status"], accepted["instance"]["transition"]) == ("deleted", "recovering")
    settle(cloud)
    back = admin.get("/v1/instances/web-2")
    assert (back["id"], back["status"], back["address"], back["labels"]) == (
        made["id"],
        "stopped",
        address,
        {"a": "b"},
    )
    assert (back["deleted_at"], back["purge_at"]) == (None, None)
    assert admin.get("/v1/instances", deleted="true")["items"] == []
    types = [each["type"] for each in admin.get("/v1/events", resource_id=made["id"])["items"]]
    assert types[-4:] == ["instance.deleting", "instance.deleted", "instance.recovering", "instance.recovered"]
    assert_consistent(cloud)


def test_purged_at_once(admin: Caller, cloud: Cloud) -> None:
    make(admin, name="web")
    settle(cloud)
    accepted = admin.send("DELETE", "/v1/instances/web?purge=true", status=202)
    settle(cloud)
    path = f"/v1/instances/{accepted['instance']['id']}"
    assert admin.get(path, deleted="true")["purged_at"] is not None
    admin.refused("POST", f"{path}/actions/recover", status=409, code="invalid_state")
    admin.refused("DELETE", f"{path}?purge=true", status=404, code="not_found")


def test_purged_while_retained(admin: Caller, cloud: Cloud) -> None:
    made = make(admin, name="web")
    settle(cloud)
    path = f"/v1/instances/{made['id']}"
    admin.send("DELETE", path, status=202)
    settle(cloud)
    assert admin.send("DELETE", f"{path}?purge=true", status=202)["job"]["action"] == "instance.purge"
    settle(cloud)
    assert admin.get(path, deleted="true")["purged_at"] is not None
    assert_consistent(cloud)


def test_unknown_parameters_are_refused(admin: Caller, cloud: Cloud) -> None:
    make(admin, name="web")
    settle(cloud)
    for method, query in (("GET", "purge=true"), ("DELETE", "deleted=true"), ("DELETE", "purge=perhaps")):
        admin.refused(method, f"/v1/instances/web?{query}", status=422, code="invalid_input")
