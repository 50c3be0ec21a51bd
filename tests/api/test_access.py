"""Who may do what: tokens, roles, and projects that never see each other."""

from __future__ import annotations

from datetime import timedelta

import pytest
from flask import Flask

from iaas.cloud import Cloud
from iaas.kernel.clock import rfc3339
from iaas.resources.common import Role
from tests.api.calling import NEW, Caller, make
from tests.factories import TOKEN, assert_consistent, principal_in, settle

GUARDED = ("/v1/instances", "/v1/jobs", "/v1/events", "/v1/zones", "/v1/flavors", "/v1/hosts", "/v1/nothing")


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"bearer{TOKEN}",
        f"Basic {TOKEN}",
        f"Token {TOKEN}",
        TOKEN,
        "Bearer nonsense",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.upper()}",
        f"Bearer {TOKEN} {TOKEN}",
        "Bearer \xff",
    ],
)
def test_requests_without_a_good_token(app: Flask, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    caller = Caller(app, None)
    for path in GUARDED:
        caller.refused("GET", path, status=401, code="unauthenticated", headers=headers)
    caller.refused("POST", "/v1/instances", NEW, status=401, code="unauthenticated", headers=headers)
    assert caller.call("HEAD", "/v1/instances", headers=headers).status_code == 401


def test_the_scheme_has_no_case(app: Flask) -> None:
    assert Caller(app, None).call("GET", "/v1/zones", headers={"Authorization": f"bEARER  {TOKEN}"}).status_code == 200


def test_a_token_expires_on_the_clock_of_the_cloud(app: Flask, admin: Caller, cloud: Cloud) -> None:
    expires_at = rfc3339(cloud.clock.now() + timedelta(hours=1))
    made = admin.send("POST", "/v1/api_tokens", {"name": "t", "expires_at": expires_at}, status=201)
    assert made["expires_at"] == expires_at
    caller = Caller(app, made["token"])
    cloud.clock.advance(3599)
    assert caller.call("GET", "/v1/zones").status_code == 200
    cloud.clock.advance(1)
    caller.refused("GET", "/v1/zones", status=401, code="unauthenticated")


def test_a_revoked_token_is_dead_at_once(app: Flask, admin: Caller) -> None:
    made = admin.send("POST", "/v1/api_tokens", {"name": "t"}, status=201)
    caller = Caller(app, made["token"])
    caller.send("DELETE", f"/v1/api_tokens/{made['id']}", status=204)
    caller.refused("GET", "/v1/zones", status=401, code="unauthenticated")


WRITES = [
    ("POST", "/v1/instances", NEW),
    ("POST", "/v1/instances:batch", {"instances": [NEW]}),
    ("PATCH", "/v1/instances/web", {"name": "x"}),
    ("DELETE", "/v1/instances/web", None),
    ("POST", "/v1/instances/web/actions/start", None),
    ("POST", "/v1/instances/web/actions/stop", None),
    ("POST", "/v1/instances/web/actions/restart", None),
    ("POST", "/v1/instances/web/actions/resize", {"flavor": "nano"}),
    ("POST", "/v1/instances/web/actions/rebuild", None),
    ("POST", "/v1/instances/web/actions/exec", {"command": ["id"]}),
    ("POST", "/v1/key_pairs", {"name": "k"}),
    ("PATCH", "/v1/key_pairs/me", {"name": "k"}),
    ("DELETE", "/v1/key_pairs/me", None),
    ("POST", "/v1/api_tokens", {"name": "t", "role": "reader"}),
    ("POST", "/v1/access_keys", {"name": "t", "role": "reader"}),
]
ADMIN_ONLY = [
    ("GET", "/v1/hosts", None),
    ("GET", "/v1/hosts/sim-zone-1-1", None),
    ("PATCH", "/v1/hosts/sim-zone-1-1", {"labels": {}}),
    ("PATCH", "/v1/zones/zone-1", {"labels": {}}),
    ("PATCH", "/v1/images/tiny", {"labels": {}}),
    ("PATCH", "/v1/flavors/nano", {"labels": {}}),
    ("POST", "/v1/flavors", {"name": "f", "vcpus": 1, "memory_mib": 64, "root_disk_gib": 1}),
    ("DELETE", "/v1/flavors/nano", None),
    ("GET", "/v1/projects", None),
    ("POST", "/v1/projects", {"name": "p"}),
    ("PATCH", "/v1/projects/team", {"name": "p"}),
    ("DELETE", "/v1/projects/team", None),
    ("POST", "/v1/api_tokens", {"name": "t", "role": "admin"}),
    ("POST", "/v1/access_keys", {"name": "t", "role": "admin"}),
]


def test_a_reader_reads_and_changes_nothing(member: Caller, reader: Caller, cloud: Cloud) -> None:
    made = make(member, name="web")
    member.send("POST", "/v1/key_pairs", {"name": "me"}, status=201)
    token = member.send("POST", "/v1/api_tokens", {"name": "t"}, status=201)
    key = member.send("POST", "/v1/access_keys", {"name": "t"}, status=201)
    settle(cloud)
    assert reader.get("/v1/instances/web")["id"] == made["id"]
    assert reader.get("/v1/instances/web/console")["output"]
    assert reader.get("/v1/jobs")["items"]
    assert reader.get("/v1/events")["items"]
    assert reader.get("/v1/key_pairs/me")
    assert reader.get("/v1/projects/team")["name"] == "team"
    for method, path, body in (
        *WRITES,
        *ADMIN_ONLY,
        ("PATCH", f"/v1/api_tokens/{token['id']}", {"name": "x"}),
        ("DELETE", f"/v1/api_tokens/{token['id']}", None),
        ("PATCH", f"/v1/access_keys/{key['id']}", {"name": "x"}),
        ("DELETE", f"/v1/access_keys/{key['id']}", None),
    ):
        reader.refused(method, path, body, status=403, code="permission_denied")
    assert_consistent(cloud)


def test_a_reader_is_refused_before_its_wishes_are_looked_at(member: Caller, reader: Caller, cloud: Cloud) -> None:
    make(member, name="web")
    settle(cloud)
    for verb, body in (("resize", {"flavor": "none"}), ("rebuild", {"image": "none"})):
        reader.refused("POST", f"/v1/instances/web/actions/{verb}", body, status=403, code="permission_denied")


def test_a_member_is_no_admin(member: Caller) -> None:
    for method, path, body in ADMIN_ONLY:
        member.refused(method, path, body, status=403, code="permission_denied")
    member.refused("GET", "/v1/projects/default", status=404, code="not_found")
    member.refused("POST", "/v1/api_tokens", {"name": "t", "project": "default"}, status=404, code="not_found")
    member.refused("POST", "/v1/access_keys", {"name": "t", "project": "default"}, status=404, code="not_found")


def test_a_member_cannot_revoke_an_admin(app: Flask, cloud: Cloud, member: Caller) -> None:
    boss = Caller(app, principal_in(cloud, "team", Role.ADMIN)[1])
    token = boss.send("POST", "/v1/api_tokens", {"name": "boss", "role": "admin"}, status=201)
    member.refused("DELETE", f"/v1/api_tokens/{token['id']}", status=403, code="permission_denied")


def test_nobody_hands_on_more_than_he_has(app: Flask, member: Caller) -> None:
    token = member.send("POST", "/v1/api_tokens", {"name": "t"}, status=201)
    assert token["role"] == "member"
    Caller(app, token["token"]).refused("GET", "/v1/hosts", status=403, code="permission_denied")


def test_another_projects_resources_do_not_exist(member: Caller, stranger: Caller, admin: Caller, cloud: Cloud) -> None:
    instance = make(member, name="web", labels={"a": "b"})
    key = member.send("POST", "/v1/key_pairs", {"name": "me"}, status=201)
    token = member.send("POST", "/v1/api_tokens", {"name": "t"}, status=201)
    access_key = member.send("POST", "/v1/access_keys", {"name": "t"}, status=201)
    settle(cloud)
    jobs = member.get("/v1/jobs")["items"]
    for other in (stranger, admin):  # an operator acts in his own project, too
        for name in (instance["id"], "web"):
            path = f"/v1/instances/{name}"
            other.refused("GET", path, status=404, code="not_found")
            other.refused("GET", f"{path}/console", status=404, code="not_found")
            other.refused("PATCH", path, {"name": "mine"}, status=404, code="not_found")
            other.refused("DELETE", path, status=404, code="not_found")
            for verb in ("start", "stop", "restart", "rebuild"):
                other.refused("POST", f"{path}/actions/{verb}", status=404, code="not_found")
            other.refused("POST", f"{path}/actions/resize", {"flavor": "nano"}, status=404, code="not_found")
            other.refused("POST", f"{path}/actions/exec", {"command": ["id"]}, status=404, code="not_found")
        for path in (f"/v1/key_pairs/{key['id']}", "/v1/key_pairs/me"):
            other.refused("GET", path, status=404, code="not_found")
            other.refused("PATCH", path, {"name": "mine"}, status=404, code="not_found")
            other.refused("DELETE", path, status=404, code="not_found")
        for path in (f"/v1/api_tokens/{token['id']}", f"/v1/access_keys/{access_key['id']}"):
            other.refused("GET", path, status=404, code="not_found")
            other.refused("PATCH", path, {"name": "mine"}, status=404, code="not_found")
            other.refused("DELETE", path, status=404, code="not_found")
        for job in jobs:
            other.refused("GET", f"/v1/jobs/{job['id']}", status=404, code="not_found")
            other.refused("GET", f"/v1/jobs/{job['id']}?wait=1", status=404, code="not_found")
        for collection in ("instances", "key_pairs", "jobs"):
            assert other.get(f"/v1/{collection}")["items"] == []
        # What the fixtures did is told where it was done; of the member's resources nobody hears.
        told = other.get("/v1/events")["items"]
        assert {event["type"] for event in told} <= {"api_token.created", "project.created"}
        assert {event["resource"]["id"] for event in told}.isdisjoint(
            {instance["id"], key["id"], token["id"], access_key["id"]}
        )
        assert other.get("/v1/instances", label_selector="a=b")["items"] == []
        assert other.get("/v1/events", resource_id=instance["id"])["items"] == []
        assert other.get("/v1/jobs", resource_id=instance["id"])["items"] == []
        document = other.refused(
            "POST", "/v1/instances", {**NEW, "key_pairs": ["me"]}, status=422, code="invalid_input"
        )
        assert document["errors"][0]["field"] == "key_pairs.0"
        assert make(other, name="web")["id"] != instance["id"]  # names are the project's own
    assert member.get("/v1/instances/web")["status"] == "running"


def test_an_unknown_and_a_foreign_instance_are_told_apart_by_nothing(member: Caller, stranger: Caller) -> None:
    made = make(member)
    foreign = stranger.call("GET", f"/v1/instances/{made['id']}").json
    unknown = stranger.call("GET", "/v1/instances/i-00000000").json
    for document in (foreign, unknown):
        document.pop("request_id")
    assert foreign == {
        **unknown,
        "detail": unknown["detail"].replace("i-00000000", made["id"]),
        "resource": {"type": "instance", "id": made["id"]},
    }
