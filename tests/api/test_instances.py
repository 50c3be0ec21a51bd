from __future__ import annotations

import base64
import re

import pytest

from iaas.cloud import Cloud
from iaas.resources.instances import InstanceStatus, InstanceTransition
from tests.api.calling import NEW, Caller, make
from tests.factories import assert_consistent, settle, world

FIELDS = {
    *("id", "name", "labels", "project_id", "zone", "kind", "status", "transition", "failure", "generation"),
    *("hostname", "flavor", "vcpus", "memory_mib", "root_disk_gib", "image_id", "image", "key_pairs", "nesting"),
    *("privileged", "nics", "address", "host_id", "guest_ready_at", "created_at", "updated_at", "deleted_at"),
    *("placement", "purge_at", "purged_at", "metadata_labels"),
}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.mark.parametrize("kind", ["vm", "container"])
def test_a_whole_life(admin: Caller, cloud: Cloud, kind: str) -> None:
    response = admin.call("POST", "/v1/instances", json={**NEW, "kind": kind, "name": "web", "labels": {"a": "b"}})
    assert response.status_code == 202
    accepted = response.json["instance"]
    assert response.headers["Location"] == f"/v1/instances/{accepted['id']}"
    assert accepted.keys() == FIELDS
    assert (accepted["status"], accepted["transition"]) == (InstanceStatus.PENDING, InstanceTransition.CREATING)
    assert accepted["failure"] is None
    job = response.json["job"]
    assert (job["action"], job["status"]) == ("instance.create", "queued")
    assert job["resources"] == [{"type": "instance", "id": accepted["id"]}]
    settle(cloud)
    running = admin.get("/v1/instances/web")
    assert (running["status"], running["transition"], running["kind"]) == ("running", None, kind)
    assert TIME.fullmatch(running["guest_ready_at"])
    assert running["address"] == running["nics"][0]["address"]
    assert (running["hostname"], running["labels"], running["image"]) == ("web", {"a": "b"}, "tiny")
    finished = admin.get(f"/v1/jobs/{job['id']}")
    assert finished["status"] == "succeeded"
    assert finished["progress"]["step"] == finished["progress"]["steps"]
    assert TIME.fullmatch(finished["finished_at"])

    path = f"/v1/instances/{accepted['id']}"
    outcome = admin.send("POST", f"{path}/actions/exec", {"command": ["hostname"]}, status=200)
    assert outcome == {"exit_code": 0, "stdout": "web\n", "stderr": "", "truncated": False}
    outcome = admin.send("POST", f"{path}/actions/exec", {"command": ["cat"], "stdin": "hé\n"}, status=200)
    assert outcome["stdout"] == "hé\n"
    assert accepted["id"] in admin.get(f"{path}/console")["output"]
    assert len(admin.get(f"{path}/console", tail_bytes=5)["output"]) == 5

    def act(verb: str, body: object, transition: str, status: str) -> dict[str, object]:
        answer = admin.send("POST", f"{path}/actions/{verb}", body, status=202)
        assert answer["instance"]["transition"] == transition
        assert answer["job"]["action"] == f"instance.{verb}"
        settle(cloud)
        now = admin.get(path)
        assert (now["status"], now["transition"], now["failure"]) == (status, None, None)
        assert now["generation"] > answer["instance"]["generation"] - 1
        assert admin.get(f"/v1/jobs/{answer['job']['id']}")["status"] == "succeeded"
        return dict(now)

    act("restart", {"timeout_s": 10}, "restarting", "running")
    stopped = act("stop", None, "stopping", "stopped")
    assert stopped["guest_ready_at"] is None
    act("start", {}, "starting", "running")
    act("stop", {"force": True}, "stopping", "stopped")
    resized = act("resize", {"flavor": "small"}, "resizing", "stopped")
    assert (resized["flavor"], resized["vcpus"], resized["memory_mib"]) == ("small", 1, 1024)
    resized = act("resize", {"vcpus": 3, "memory_mib": 100}, "resizing", "stopped")
    assert (resized["flavor"], resized["vcpus"], resized["memory_mib"]) == (None, 3, 100)
    rebuilt = act("rebuild", {"image": "tiny"}, "rebuilding", "running")
    assert (rebuilt["address"], rebuilt["nics"]) == (running["address"], running["nics"])
    act("rebuild", None, "rebuilding", "running")

    answer = admin.send("DELETE", path, status=202)
    assert answer["instance"]["transition"] == "deleting"
    settle(cloud)
    admin.refused("GET", path, status=404, code="not_found")
    assert admin.get("/v1/instances")["items"] == []
    assert [each["id"] for each in admin.get("/v1/instances", deleted="true")["items"]] == [accepted["id"]]
    types = [event["type"] for event in admin.get("/v1/events", resource_id=accepted["id"])["items"]]
    assert types[:3] == ["instance.creating", "instance.created", "instance.guest_ready"]
    assert types[-2:] == ["instance.deleting", "instance.deleted"]
    assert_consistent(cloud)


def test_shape_given_by_numbers(admin: Caller, cloud: Cloud) -> None:
    body = {"kind": "vm", "image": "tiny", "vcpus": 2, "memory_mib": 256, "root_disk_gib": 3}
    made = admin.send("POST", "/v1/instances", body, status=202)["instance"]
    assert (made["flavor"], made["vcpus"], made["memory_mib"], made["root_disk_gib"]) == (None, 2, 256, 3)
    assert made["name"] == made["hostname"] == made["id"]
    settle(cloud)
    assert_consistent(cloud)


def test_everything_that_can_be_given(admin: Caller, cloud: Cloud) -> None:
    admin.send("POST", "/v1/key_pairs", {"name": "me"}, status=201)
    made = make(
        admin,
        name="Büro 1",
        hostname="office-1",
        zone="zone-2",
        key_pairs=["me", "me"],
        user_data=base64.b64encode(b"\x00\xff").decode(),
        user_data_encoding="base64",
        nesting=True,
        privileged=True,
        root_disk_gib=7,
    )
    assert (made["name"], made["hostname"], made["zone"], made["key_pairs"]) == ("Büro 1", "office-1", "zone-2", ["me"])
    assert (made["nesting"], made["privileged"], made["root_disk_gib"]) == (True, True, 7)
    nic = made["nics"][0]
    guest = cloud.metadata.of_guest(nic["vpc_id"], nic["address"])
    assert guest is not None
    assert guest.user_data == b"\x00\xff"
    assert len(guest.authorized_keys) == 1
    settle(cloud)
    assert admin.get("/v1/instances/Büro 1")["status"] == "running"


def test_batch(admin: Caller, cloud: Cloud) -> None:
    answer = admin.send(
        "POST", "/v1/instances:batch", {"instances": [{**NEW, "name": f"n{number}"} for number in range(5)]}, status=202
    )
    assert [each["name"] for each in answer["instances"]] == [f"n{number}" for number in range(5)]
    assert [job["resources"][0]["id"] for job in answer["jobs"]] == [each["id"] for each in answer["instances"]]
    settle(cloud)
    assert {each["status"] for each in admin.get("/v1/instances")["items"]} == {"running"}
    assert len({each["address"] for each in admin.get("/v1/instances")["items"]}) == 5
    assert_consistent(cloud)


def test_batch_is_all_or_none(admin: Caller, cloud: Cloud) -> None:
    good = {**NEW, "name": "good"}
    for bad, field in (
        ({**NEW, "name": "good"}, "instances.2.name"),
        ({**NEW, "image": "none"}, "instances.2.image"),
        ({**NEW, "labels": {"é": "x"}}, "instances.2.labels.é"),
        ({**NEW, "user_data": "!", "user_data_encoding": "base64"}, "instances.2.user_data"),
        ({**NEW, "memory": 1}, "instances.2.memory"),
    ):
        document = admin.send(
            "POST",
            "/v1/instances:batch",
            {"instances": [good, {**NEW, "name": "other"}, bad]},
            status=409 if field.endswith("name") else 422,
        )
        assert [error["field"] for error in document["errors"]] == [field]
    too_large = {**NEW, "flavor": None, "vcpus": 500, "memory_mib": 64}
    del too_large["flavor"]
    admin.refused("POST", "/v1/instances:batch", {"instances": [good, too_large]}, status=409, code="out_of_capacity")
    assert admin.get("/v1/instances")["items"] == []
    assert admin.get("/v1/jobs")["items"] == []
    assert admin.get("/v1/events")["items"] == []
    assert_consistent(cloud)


def test_a_name_given_twice_in_a_batch_is_said_to_be_that(admin: Caller) -> None:
    web, db = {**NEW, "name": "web"}, {**NEW, "name": "db"}
    rule = {"anti_affinity": {"label_selector": "app=web"}}
    for batch in ([web, db, web], [web, db, {**web, "placement": rule}]):
        document = admin.refused("POST", "/v1/instances:batch", {"instances": batch}, status=409, code="name_taken")
        message = "is given twice in this request: instances.0 and instances.2 are both named web"
        assert document["detail"] == f"instances.2.name: {message}"
        assert document["errors"] == [{"field": "instances.2.name", "code": "duplicate", "message": message}]
    make(admin, name="web")
    document = admin.refused("POST", "/v1/instances:batch", {"instances": [db, web]}, status=409, code="name_taken")
    assert document["errors"][0]["code"] == "taken", "of another request"


@pytest.mark.parametrize("count", [0, 1001])
def test_batch_has_bounds(admin: Caller, count: int) -> None:
    document = admin.refused(
        "POST", "/v1/instances:batch", {"instances": [NEW] * count}, status=422, code="invalid_input"
    )
    assert document["errors"][0]["field"] == "instances"


def test_a_batch_of_one_names_its_field_with_the_index(admin: Caller) -> None:
    document = admin.refused(
        "POST", "/v1/instances:batch", {"instances": [{**NEW, "image": "none"}]}, status=422, code="invalid_input"
    )
    assert document["errors"][0]["field"] == "instances.0.image"


def test_a_guest_that_powers_itself_off_shows_as_stopped(admin: Caller, cloud: Cloud) -> None:
    made = make(admin, name="web")
    settle(cloud)
    admin.send("POST", "/v1/instances/web/actions/exec", {"command": ["poweroff"]}, status=200)
    cloud.clock.advance(10)
    assert admin.get("/v1/instances/web")["status"] == "stopped"
    assert admin.get("/v1/events", resource_id=made["id"])["items"][-1]["data"] == {"reason": "guest"}
    assert_consistent(cloud)


def test_a_graceful_stop_of_a_deaf_guest_ends_after_the_timeout(admin: Caller, cloud: Cloud) -> None:
    made = make(admin, name="web")
    settle(cloud)
    world(cloud).faults.ignore_shutdown(made["id"])
    began_at = cloud.clock.now()
    admin.send("POST", "/v1/instances/web/actions/stop", {"timeout_s": 33}, status=202)
    settle(cloud)
    assert admin.get("/v1/instances/web")["status"] == "stopped"
    assert 33 <= (cloud.clock.now() - began_at).total_seconds() < 35


def test_patch(admin: Caller, cloud: Cloud) -> None:
    make(admin, name="web", labels={"a": "1", "b": "2"})
    settle(cloud)
    changed = admin.send("PATCH", "/v1/instances/web", {"name": "db", "labels": {"a": None, "c": "3"}}, status=200)
    assert (changed["name"], changed["labels"]) == ("db", {"b": "2", "c": "3"})
    assert admin.get("/v1/instances/db")["labels"] == {"b": "2", "c": "3"}
    admin.refused("GET", "/v1/instances/web", status=404, code="not_found")
    make(admin, name="web")
    document = admin.refused("PATCH", "/v1/instances/db", {"name": "web"}, status=409, code="name_taken")
    assert document["errors"][0]["field"] == "name"
    merge_patch = {"Content-Type": "application/merge-patch+json"}
    assert admin.call("PATCH", "/v1/instances/db", data="{}", headers=merge_patch).status_code == 200


def test_etag_and_if_match(admin: Caller, cloud: Cloud) -> None:
    make(admin, name="web")
    settle(cloud)
    etag = admin.call("GET", "/v1/instances/web").headers["ETag"]
    assert etag == f'"{admin.get("/v1/instances/web")["generation"]}"'
    changed = admin.call("PATCH", "/v1/instances/web", json={"labels": {"a": "b"}}, headers={"If-Match": etag})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != etag
    for method, path, body in (
        ("PATCH", "/v1/instances/web", {"labels": {}}),
        ("POST", "/v1/instances/web/actions/stop", {}),
        ("POST", "/v1/instances/web/actions/restart", {}),
        ("POST", "/v1/instances/web/actions/rebuild", {}),
        ("DELETE", "/v1/instances/web", None),
    ):
        for wrong in (etag, '"no"', "12x", '"' + "9" * 30 + '"'):
            admin.refused(method, path, body, status=412, code="precondition_failed", headers={"If-Match": wrong})
    assert admin.get("/v1/instances/web")["transition"] is None
    admin.send("DELETE", "/v1/instances/web", status=202, headers={"If-Match": changed.headers["ETag"]})


def test_names_are_free_again_after_a_deletion(admin: Caller, cloud: Cloud) -> None:
    for _ in range(2):
        make(admin, name="web")
        settle(cloud)
        admin.refused("POST", "/v1/instances", {**NEW, "name": "web"}, status=409, code="name_taken")
        admin.send("DELETE", "/v1/instances/web", status=202)
        settle(cloud)
    assert_consistent(cloud)
