"""/v1/vpcs: their life, what they refuse, and that equal ones live side by side."""

from __future__ import annotations

from typing import Any

import pytest

from iaas.cloud import Cloud
from tests.api.calling import Caller, make_subnet, make_vpc
from tests.factories import assert_consistent, settle

FIELDS = {
    *("id", "name", "labels", "project_id", "status", "transition", "failure", "generation", "revision"),
    *("applied_revision", "cidr", "dns_domain", "dhcp_options", "forwarders", "created_at", "updated_at"),
}
OPTIONS = {"dns_servers": ["10.0.1.9"], "ntp_servers": [], "lease_s": 600}
FORWARDERS = [{"domain": "cluster.local", "servers": ["10.0.1.10", "10.0.1.11"]}]


def test_a_whole_life(admin: Caller, cloud: Cloud) -> None:
    body = {
        "cidr": "10.0.0.0/16",
        "name": "shop",
        "labels": {"tier": "all"},
        "dns_domain": "shop.example",
        "dhcp_options": OPTIONS,
        "forwarders": FORWARDERS,
    }
    answer = admin.call("POST", "/v1/vpcs", json=body)
    assert answer.status_code == 202
    accepted, job = answer.json["vpc"], answer.json["job"]
    assert answer.headers["Location"] == f"/v1/vpcs/{accepted['id']}"
    assert accepted.keys() == FIELDS
    assert (accepted["status"], accepted["transition"]) == ("pending", "creating")
    assert job["action"] == "vpc.create"
    assert job["resources"] == [{"type": "vpc", "id": accepted["id"]}]
    settle(cloud)

    vpc = admin.get("/v1/vpcs/shop")
    assert (vpc["status"], vpc["transition"], vpc["failure"]) == ("active", None, None)
    assert {name: vpc[name] for name in body} == body
    assert vpc["applied_revision"] == vpc["revision"]

    gone = admin.call("DELETE", f"/v1/vpcs/{vpc['id']}")
    assert (gone.status_code, gone.json["vpc"]["transition"]) == (202, "deleting")
    settle(cloud)
    admin.refused("GET", f"/v1/vpcs/{vpc['id']}", status=404, code="not_found")
    assert admin.get(f"/v1/jobs/{gone.json['job']['id']}")["status"] == "succeeded"
    assert_consistent(cloud)


def test_defaults(admin: Caller, cloud: Cloud) -> None:
    vpc = admin.send("POST", "/v1/vpcs", {"cidr": "192.168.0.0/24"}, status=202)["vpc"]
    assert vpc["name"] == vpc["id"]
    assert vpc["dns_domain"] == "internal"
    assert vpc["dhcp_options"] == {"dns_servers": [], "ntp_servers": [], "lease_s": 3600}
    assert (vpc["forwarders"], vpc["labels"]) == ([], {})


def test_a_change_that_routers_notice_is_a_job_and_one_that_they_do_not_is_done(admin: Caller, cloud: Cloud) -> None:
    vpc = make_vpc(admin, cloud)
    path = f"/v1/vpcs/{vpc['id']}"
    renamed = admin.call("PATCH", path, json={"name": "mall", "labels": {"a": "b"}})
    assert (renamed.status_code, renamed.json["name"], renamed.json["labels"]) == (200, "mall", {"a": "b"})
    assert renamed.headers["ETag"] == f'"{renamed.json["generation"]}"'

    changed = admin.call("PATCH", path, json={"dhcp_options": OPTIONS, "forwarders": FORWARDERS})
    assert changed.status_code == 202
    assert changed.json["job"]["action"] == "vpc.apply"
    assert changed.headers["ETag"] == f'"{changed.json["vpc"]["generation"]}"'
    settle(cloud)
    now = admin.get(path)
    assert (now["dhcp_options"], now["forwarders"]) == (OPTIONS, FORWARDERS)
    assert now["transition"] is None
    assert admin.send("PATCH", path, {"labels": {"a": None}}, status=200)["labels"] == {}
    assert admin.get(path)["forwarders"] == FORWARDERS


def test_only_whoever_saw_the_newest_may_change_it(admin: Caller, cloud: Cloud) -> None:
    make_vpc(admin, cloud)
    seen = admin.call("GET", "/v1/vpcs/shop").headers["ETag"]
    admin.send("PATCH", "/v1/vpcs/shop", {"labels": {"a": "b"}}, status=200, headers={"If-Match": seen})
    for method, body in (("PATCH", {"labels": {"a": "c"}}), ("DELETE", None)):
        admin.refused(method, "/v1/vpcs/shop", body, status=412, code="precondition_failed", headers={"If-Match": seen})
    assert admin.get("/v1/vpcs/shop")["labels"] == {"a": "b"}


def test_one_with_subnets_stays(admin: Caller, cloud: Cloud) -> None:
    make_vpc(admin, cloud)
    subnet = make_subnet(admin, cloud)
    document = admin.refused("DELETE", "/v1/vpcs/shop", status=409, code="in_use")
    assert document["blockers"] == [{"type": "subnet", "id": subnet["id"]}]
    admin.send("DELETE", "/v1/subnets/tier", status=202)
    settle(cloud)
    admin.send("DELETE", "/v1/vpcs/shop", status=202)
    settle(cloud)
    assert admin.get("/v1/vpcs")["items"] == []


def test_equal_ones_live_side_by_side(admin: Caller, stranger: Caller, cloud: Cloud) -> None:
    for caller, name in ((admin, "shop"), (admin, "mall"), (stranger, "shop")):
        assert make_vpc(caller, cloud, name)["cidr"] == "10.0.0.0/16"
    assert {each["name"] for each in admin.get("/v1/vpcs")["items"]} == {"shop", "mall"}
    taken = admin.refused("POST", "/v1/vpcs", {"cidr": "10.0.0.0/16", "name": "shop"}, status=409, code="name_taken")
    assert "shop" in taken["detail"]


def test_lists(admin: Caller, cloud: Cloud) -> None:
    for number in range(5):
        body = {"cidr": "10.0.0.0/16", "name": f"v{number}", "labels": {"odd": str(number % 2)}}
        admin.send("POST", "/v1/vpcs", body, status=202)
    assert [each["name"] for each in admin.get("/v1/vpcs", label_selector="odd=1", sort="name")["items"]] == [
        "v1",
        "v3",
    ]
    assert [each["name"] for each in admin.get("/v1/vpcs", name="v2")["items"]] == ["v2"]
    assert len(admin.get("/v1/vpcs", status="pending")["items"]) == 5
    assert admin.get("/v1/vpcs", status="active")["items"] == []
    first = admin.get("/v1/vpcs", limit=3, sort="name")
    rest = admin.get("/v1/vpcs", limit=3, sort="name", cursor=first["next_cursor"])
    assert [each["name"] for each in first["items"] + rest["items"]] == [f"v{number}" for number in range(5)]
    assert rest["next_cursor"] is None
    admin.refused("GET", "/v1/vpcs", status=422, code="invalid_input", query_string={"cidr": "10.0.0.0/16"})


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"cidr": "banana"}, "cidr"),
    ({"cidr": ""}, "cidr"),
    ({"cidr": 10}, "cidr"),
    ({"cidr": "10.0.0.1/16"}, "cidr"),
    ({"cidr": "10.0.0.0/8"}, "cidr"),
    ({"cidr": "10.0.0.0/29"}, "cidr"),
    ({"cidr": "8.8.0.0/16"}, "cidr"),
    ({"cidr": "169.254.0.0/16"}, "cidr"),
    ({"cidr": "fd00::/64"}, "cidr"),
    ({}, "cidr"),
    ({"dns_domain": "not a domain"}, "dns_domain"),
    ({"dns_domain": ""}, "dns_domain"),
    ({"dhcp_options": {"lease_s": 1}}, "dhcp_options.lease_s"),
    ({"dhcp_options": {"dns_servers": ["banana"]}}, "dhcp_options.dns_servers.0"),
    ({"dhcp_options": {"dns_servers": ["10.0.0.9"] * 9}}, "dhcp_options.dns_servers"),
    ({"dhcp_options": {"colour": "red"}}, "dhcp_options.colour"),
    ({"forwarders": [{"domain": "cluster.local"}]}, "forwarders.0.servers"),
    ({"forwarders": [{"domain": "cluster.local", "servers": ["::1"]}]}, "forwarders.0.servers.0"),
    ({"forwarders": [{"domain": "-", "servers": ["10.0.0.9"]}]}, "forwarders.0.domain"),
    ({"name": "a/b"}, "name"),
    ({"labels": {"a b": "c"}}, "labels.a b"),
    ({"zone": "zone-1"}, "zone"),
]


@pytest.mark.parametrize(("changes", "field"), WRONG, ids=[f"{n}-{field}" for n, (_, field) in enumerate(WRONG)])
def test_a_wrong_field_is_named(shared_admin: Caller, changes: dict[str, Any], field: str) -> None:
    body = {"cidr": "10.0.0.0/16", **changes} if changes else {}
    document = shared_admin.refused("POST", "/v1/vpcs", body, status=422, code="invalid_input")
    assert [error["field"] for error in document["errors"]] == [field], document
    assert shared_admin.get("/v1/vpcs")["items"] == []


def test_ipv6_is_said_not_to_be_supported(shared_admin: Caller) -> None:
    document = shared_admin.refused("POST", "/v1/vpcs", {"cidr": "fd00::/64"}, status=422, code="invalid_input")
    assert document["errors"][0]["code"] == "not_supported"
    assert "IPv6" in document["detail"]


def test_options_are_given_as_a_whole(admin: Caller, cloud: Cloud) -> None:
    make_vpc(admin, cloud)
    document = admin.refused(
        "PATCH", "/v1/vpcs/shop", {"dhcp_options": {"lease_s": 600}}, status=422, code="invalid_input"
    )
    assert {error["field"] for error in document["errors"]} == {
        "dhcp_options.dns_servers",
        "dhcp_options.ntp_servers",
    }


def test_the_hidden_ones_of_the_zones_are_nobodys(admin: Caller) -> None:
    hidden = {each["vpc_id"] for each in admin.get("/v1/subnets")["items"] if each["is_shared"]}
    assert len(hidden) == 2
    assert admin.get("/v1/vpcs")["items"] == []
    for vpc_id in hidden:
        for method in ("GET", "DELETE"):
            admin.refused(method, f"/v1/vpcs/{vpc_id}", status=404, code="not_found")
        admin.refused("GET", f"/v1/vpcs/{vpc_id}/routes", status=404, code="not_found")


def test_quota(admin: Caller, member: Caller, cloud: Cloud) -> None:
    project = make_vpc(member, cloud)["project_id"]
    admin.send("PATCH", f"/v1/projects/{project}/quotas", {"vpcs": 1}, status=200)
    member.refused("POST", "/v1/vpcs", {"cidr": "10.0.0.0/16"}, status=403, code="quota_exceeded")
    member.send("DELETE", "/v1/vpcs/shop", status=202)
    settle(cloud)
    make_vpc(member, cloud)
