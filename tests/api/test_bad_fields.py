"""Fields that are wrong: each refusal names its field, and nothing is half made."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from iaas.cloud import Cloud
from iaas.config import Policy
from iaas.db.models import EventRow, InstanceRow, JobRow
from iaas.db.repositories import catalog
from tests.api.calling import NEW, Caller, make
from tests.factories import TOKEN, assert_consistent, claims, open_cloud, settle, used_capacity

BY_NUMBERS = {"kind": "vm", "image": "tiny", "vcpus": 1, "memory_mib": 64}

CASES: list[tuple[dict[str, Any], str, str]] = [
    ({**NEW, "colour": "red"}, "colour", "unknown"),
    ({**NEW, "Kind": "vm"}, "Kind", "unknown"),
    ({"image": "tiny", "flavor": "nano"}, "kind", "required"),
    ({"kind": "vm", "flavor": "nano"}, "image", "required"),
    ({**NEW, "kind": "jail"}, "kind", "not_a_choice"),
    ({**NEW, "kind": "VM"}, "kind", "not_a_choice"),
    ({**NEW, "kind": None}, "kind", "required"),
    ({**NEW, "kind": ["vm"]}, "kind", "mistyped"),
    ({**NEW, "image": 5}, "image", "mistyped"),
    ({**NEW, "image": ""}, "image", "length"),
    ({**NEW, "image": "x" * 129}, "image", "length"),
    ({**NEW, "image": "none"}, "image", "not_found"),
    ({**NEW, "flavor": "none"}, "flavor", "not_found"),
    ({**NEW, "flavor": {"id": "x"}}, "flavor", "mistyped"),
    ({**NEW, "vcpus": 1}, "vcpus", "excluded"),
    ({**NEW, "memory_mib": 64}, "memory_mib", "excluded"),
    ({"kind": "vm", "image": "tiny"}, "vcpus", "required"),
    ({"kind": "vm", "image": "tiny", "vcpus": 1}, "memory_mib", "required"),
    ({"kind": "vm", "image": "tiny", "memory_mib": 64}, "vcpus", "required"),
    *[
        ({**BY_NUMBERS, field: value}, field, code)
        for field in ("vcpus", "memory_mib", "root_disk_gib")
        for value, code in (
            (0, "out_of_range"),
            (-1, "out_of_range"),
            (10**18, "out_of_range"),
            (10**30, "out_of_range"),
            (True, "mistyped"),
            ("1", "mistyped"),
            (1.5, "mistyped"),
            (1e300, "mistyped"),
            (None, "required"),
            ([], "mistyped"),
        )
    ],
    ({**BY_NUMBERS, "memory_mib": 63}, "memory_mib", "out_of_range"),
    ({**NEW, "name": ""}, "name", "out_of_range"),
    ({**NEW, "name": " a"}, "name", "out_of_range"),
    ({**NEW, "name": "a "}, "name", "out_of_range"),
    ({**NEW, "name": "a\n"}, "name", "out_of_range"),
    ({**NEW, "name": "a\tb"}, "name", "out_of_range"),
    ({**NEW, "name": "a/b"}, "name", "out_of_range"),
    ({**NEW, "name": "x" * 129}, "name", "out_of_range"),
    ({**NEW, "name": 5}, "name", "mistyped"),
    ({**NEW, "name": None}, "name", "required"),
    ({**NEW, "hostname": "Web"}, "hostname", "invalid"),
    ({**NEW, "hostname": "-web"}, "hostname", "invalid"),
    ({**NEW, "hostname": "web\n"}, "hostname", "invalid"),
    ({**NEW, "hostname": "web.example"}, "hostname", "invalid"),
    ({**NEW, "hostname": "x" * 64}, "hostname", "length"),
    ({**NEW, "hostname": ""}, "hostname", "length"),
    ({**NEW, "zone": "zone-9"}, "zone", "not_found"),
    ({**NEW, "zone": ""}, "zone", "length"),
    ({**NEW, "key_pairs": ["none"]}, "key_pairs.0", "not_found"),
    ({**NEW, "key_pairs": "me"}, "key_pairs", "mistyped"),
    ({**NEW, "key_pairs": [5]}, "key_pairs.0", "mistyped"),
    ({**NEW, "key_pairs": ["x"] * 33}, "key_pairs", "too_long"),
    ({**NEW, "user_data": "x" * 65_537}, "user_data", "too_long"),
    ({**NEW, "user_data": "é" * 40_000}, "user_data", "too_long"),
    ({**NEW, "user_data": "x" * 131_073}, "user_data", "too_long"),
    ({**NEW, "user_data": "no base64!", "user_data_encoding": "base64"}, "user_data", "invalid"),
    ({**NEW, "user_data": "é", "user_data_encoding": "base64"}, "user_data", "invalid"),
    ({**NEW, "user_data_encoding": "gzip"}, "user_data_encoding", "not_a_choice"),
    ({**NEW, "labels": []}, "labels", "mistyped"),
    ({**NEW, "labels": {"a": 5}}, "labels.a", "mistyped"),
    ({**NEW, "labels": {"a": None}}, "labels.a", "required"),
    ({**NEW, "labels": {"a b": "x"}}, "labels.a b", "invalid_key"),
    ({**NEW, "labels": {"a": "x y"}}, "labels.a", "invalid_value"),
    ({**NEW, "labels": {f"k{n}": "" for n in range(65)}}, "labels", "too_many"),
    ({**NEW, "nesting": 1}, "nesting", "mistyped"),
    ({**NEW, "nesting": "yes"}, "nesting", "mistyped"),
    ({**NEW, "privileged": None}, "privileged", "required"),
    ({**NEW, "kind": "vm", "nesting": True}, "nesting", "not_for_kind"),
    ({**NEW, "kind": "vm", "privileged": True}, "privileged", "not_for_kind"),
]


def rows(cloud: Cloud) -> int:
    with cloud.store.read() as connection:
        tables = (InstanceRow.__table__, JobRow.__table__, EventRow.__table__)
        return sum(len(connection.execute(select(table)).all()) for table in tables)


@pytest.mark.parametrize(("body", "field", "code"), CASES, ids=[f"{n}-{c[1]}-{c[2]}" for n, c in enumerate(CASES)])
def test_a_wrong_field_of_a_create(shared_cloud: Cloud, shared_admin: Caller, body: Any, field: str, code: str) -> None:
    document = shared_admin.refused("POST", "/v1/instances", body, status=422, code="invalid_input")
    assert [(error["field"], error["code"]) for error in document["errors"]] == [(field, code)], document
    assert field in document["detail"]
    assert rows(shared_cloud) == 0
    assert used_capacity(shared_cloud) == (0, 0, 0)
    assert not claims(shared_cloud)


def test_all_wrong_fields_are_named_at_once(admin: Caller) -> None:
    document = admin.refused(
        "POST", "/v1/instances", {"kind": 5, "image": 6, "colour": 7}, status=422, code="invalid_input"
    )
    assert {error["field"] for error in document["errors"]} == {"kind", "image", "colour"}


def test_an_image_without_an_artefact_for_the_kind(admin: Caller, cloud: Cloud) -> None:
    cloud.store.write(
        lambda tx: catalog.add_image(
            tx,
            id="img-vmonly00",
            name="vm only",
            labels={},
            status="available",
            source="builtin:tiny",
            kinds=["vm"],
            os="busybox",
        )
    )
    document = admin.refused("POST", "/v1/instances", {**NEW, "image": "vm only"}, status=422, code="invalid_input")
    assert [(error["field"], error["code"]) for error in document["errors"]] == [("image", "no_artefact")]
    make(admin, name="web")
    make(admin, kind="vm", image="vm only")
    settle(cloud)
    document = admin.refused(
        "POST", "/v1/instances/web/actions/rebuild", {"image": "img-vmonly00"}, status=422, code="invalid_input"
    )
    assert [(error["field"], error["code"]) for error in document["errors"]] == [("image", "no_artefact")]
    document = admin.refused(
        "POST", "/v1/instances/web/actions/rebuild", {"image": "none"}, status=422, code="invalid_input"
    )
    assert [(error["field"], error["code"]) for error in document["errors"]] == [("image", "not_found")]
    assert_consistent(cloud)


ACTIONS: list[tuple[str, dict[str, Any], str]] = [
    ("start", {"force": True}, "force"),
    ("stop", {"force": 1}, "force"),
    ("stop", {"timeout_s": -1}, "timeout_s"),
    ("stop", {"timeout_s": 3601}, "timeout_s"),
    ("stop", {"timeout_s": 1.5}, "timeout_s"),
    ("stop", {"timeout_s": True}, "timeout_s"),
    ("restart", {"timeout_s": 10**40}, "timeout_s"),
    ("restart", {"colour": 1}, "colour"),
    ("resize", {}, "vcpus"),
    ("resize", {"flavor": "none"}, "flavor"),
    ("resize", {"flavor": "nano", "vcpus": 1}, "vcpus"),
    ("resize", {"vcpus": 0, "memory_mib": 64}, "vcpus"),
    ("resize", {"vcpus": 1, "memory_mib": 64, "root_disk_gib": 9}, "root_disk_gib"),
    ("rebuild", {"image": None}, "image"),
    ("exec", {}, "command"),
    ("exec", {"command": "ls"}, "command"),
    ("exec", {"command": []}, "command"),
    ("exec", {"command": [5]}, "command.0"),
    ("exec", {"command": ["x"] * 1025}, "command"),
    ("exec", {"command": ["ls"], "timeout_s": 301}, "timeout_s"),
    ("exec", {"command": ["ls"], "timeout_s": 0}, "timeout_s"),
    ("exec", {"command": ["ls"], "stdin": 5}, "stdin"),
    ("exec", {"command": ["a\x00"]}, "command.0"),
]


@pytest.mark.parametrize(("verb", "body", "field"), ACTIONS)
def test_a_wrong_field_of_an_action(admin: Caller, cloud: Cloud, verb: str, body: Any, field: str) -> None:
    make(admin, name="web")
    settle(cloud)
    before = rows(cloud)
    document = admin.refused("POST", f"/v1/instances/web/actions/{verb}", body, status=422, code="invalid_input")
    assert [error["field"] for error in document["errors"]] == [field]
    assert rows(cloud) == before


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("PATCH", "/v1/instances/web", {"status": "stopped"}, "status"),
        ("PATCH", "/v1/instances/web", {"name": None}, "name"),
        ("PATCH", "/v1/instances/web", {"labels": None}, "labels"),
        ("PATCH", "/v1/instances/web", {"labels": {"a b": "x"}}, "labels.a b"),
        ("PATCH", "/v1/instances/web", {"labels": {f"k{n}": "" for n in range(65)}}, "labels"),
        ("POST", "/v1/flavors", {"name": "f", "vcpus": 1, "memory_mib": 64}, "root_disk_gib"),
        ("POST", "/v1/flavors", {"name": "f", "vcpus": True, "memory_mib": 64, "root_disk_gib": 1}, "vcpus"),
        ("POST", "/v1/flavors", {"name": "f\n", "vcpus": 1, "memory_mib": 64, "root_disk_gib": 1}, "name"),
        ("POST", "/v1/key_pairs", {}, "name"),
        ("POST", "/v1/key_pairs", {"name": "x", "public_key": "no key"}, "public_key"),
        ("POST", "/v1/key_pairs", {"name": "x", "public_key": "ssh-ed25519 AAAA"}, "public_key"),
        ("POST", "/v1/key_pairs", {"name": "x", "public_key": "ssh-rsa " + "A" * 9000}, "public_key"),
        ("POST", "/v1/key_pairs", {"name": "x", "public_key": "x" * 16_385}, "public_key"),
        ("POST", "/v1/key_pairs", {"name": "x", "private_key": "x"}, "private_key"),
        ("POST", "/v1/projects", {"name": "p", "description": "x" * 1025}, "description"),
        ("POST", "/v1/projects", {"name": "p", "description": None}, "description"),
        ("POST", "/v1/api_tokens", {"name": "t", "role": "root"}, "role"),
        ("POST", "/v1/api_tokens", {"name": "t", "role": 5}, "role"),
        ("POST", "/v1/api_tokens", {"name": "t", "expires_at": "tomorrow"}, "expires_at"),
        ("POST", "/v1/api_tokens", {"name": "t", "expires_at": 5}, "expires_at"),
        ("POST", "/v1/api_tokens", {"name": "t", "expires_at": "2030-01-01T00:00:00"}, "expires_at"),
        ("POST", "/v1/api_tokens", {"name": "t", "expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ("POST", "/v1/api_tokens", {"name": "t", "expires_at": "9999-12-31T23:59:59-14:00"}, "expires_at"),
        ("POST", "/v1/api_tokens", {"name": "t", "expires_at": "0001-01-01T00:00:00+14:00"}, "expires_at"),
        ("POST", "/v1/access_keys", {"name": "t", "token": "x"}, "token"),
        ("GET", "/v1/jobs?status=done", None, "status"),
        ("GET", "/v1/jobs?sort=name", None, "sort"),
        ("GET", "/v1/jobs/job-00000000?wait=61", None, "wait"),
        ("GET", "/v1/jobs/job-00000000?wait=-1", None, "wait"),
        ("GET", "/v1/jobs/job-00000000?wait=soon", None, "wait"),
        ("GET", "/v1/events?after=x", None, "after"),
        ("GET", "/v1/events?after=-1", None, "after"),
        ("GET", "/v1/events?limit=0", None, "limit"),
        ("GET", "/v1/hosts?status=running", None, "status"),
        ("GET", "/v1/instances?kind=jail", None, "kind"),
        ("GET", "/v1/instances?status=on", None, "status"),
        ("GET", "/v1/instances?deleted=maybe", None, "deleted"),
        ("GET", "/v1/instances?name=" + "x" * 129, None, "name"),
        ("GET", "/v1/instances/web/console?tail_bytes=0", None, "tail_bytes"),
        ("GET", "/v1/instances/web/console?tail_bytes=9999999", None, "tail_bytes"),
    ],
)
def test_a_wrong_field_elsewhere(
    shared_admin: Caller, shared_cloud: Cloud, method: str, path: str, body: Any, field: str
) -> None:
    if "/web" in path and not shared_admin.get("/v1/instances", name="web")["items"]:
        make(shared_admin, name="web")
        settle(shared_cloud)
    try:
        document = shared_admin.refused(method, path, body, status=422, code="invalid_input")
        assert [error["field"] for error in document["errors"]] == [field]
    finally:
        if "/web" in path:
            shared_admin.send("DELETE", "/v1/instances/web", status=202)
            settle(shared_cloud)


@pytest.mark.parametrize("query", ["name=%ff%fe", "name=%00", "label_selector=%00", "cursor=%ff", "zone=%ed%a0%80"])
def test_queries_that_are_no_text(admin: Caller, query: str) -> None:
    assert admin.call("GET", f"/v1/instances?{query}").status_code in (200, 400, 422)


@pytest.mark.parametrize("name", ["%00", "%ff", "%ed%a0%80", "..", "a%0Ab", "x" * 3000, "%F0%9F%98%80", "'", '"; DROP'])
def test_names_in_paths_that_nobody_has(admin: Caller, name: str) -> None:
    for collection in ("instances", "key_pairs", "flavors", "projects", "jobs", "zones", "hosts", "api_tokens"):
        admin.refused("GET", f"/v1/{collection}/{name}", status=404, code="not_found")


def test_policy() -> None:
    from iaas.api.app import create_app

    with open_cloud(policy=Policy(allow_privileged=False, allow_nesting=False)) as cloud:
        admin = Caller(create_app(cloud), TOKEN)
        for flag in ("nesting", "privileged"):
            document = admin.refused("POST", "/v1/instances", {**NEW, flag: True}, status=403, code="permission_denied")
            assert flag in document["detail"]
        assert rows(cloud) == 0
