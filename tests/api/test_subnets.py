"""/v1/subnets: in a VPC, bare, joining and leaving; and the zones' basic ones."""

from __future__ import annotations

from typing import Any

import pytest

from iaas.cloud import Cloud
from tests.api.calling import Caller, make_nic, make_subnet, make_vpc
from tests.factories import assert_consistent, settle

FIELDS = {
    *("id", "name", "labels", "project_id", "zone", "status", "transition", "failure", "generation", "revision"),
    *("applied_revision", "vpc_id", "cidr", "gateway", "dhcp_first", "dhcp_last", "mtu", "is_shared"),
    *("created_at", "updated_at"),
}


def own(caller: Caller, **query: Any) -> list[str]:
    return [each["name"] for each in caller.get("/v1/subnets", **query)["items"] if not each["is_shared"]]


def test_a_whole_life(admin: Caller, cloud: Cloud) -> None:
    vpc = make_vpc(admin, cloud)
    body = {"vpc": "shop", "cidr": "10.0.1.0/24", "name": "tier", "labels": {"a": "b"}, "mtu": 1400, "zone": "zone-2"}
    answer = admin.call("POST", "/v1/subnets", json=body)
    assert answer.status_code == 202
    accepted, job = answer.json["subnet"], answer.json["job"]
    assert accepted.keys() == FIELDS
    assert answer.headers["Location"] == f"/v1/subnets/{accepted['id']}"
    assert (accepted["status"], accepted["transition"], job["action"]) == ("pending", "creating", "subnet.create")
    settle(cloud)
    subnet = admin.get("/v1/subnets/tier")
    assert (subnet["status"], subnet["vpc_id"], subnet["zone"], subnet["mtu"]) == ("active", vpc["id"], "zone-2", 1400)
    assert (subnet["gateway"], subnet["dhcp_first"], subnet["dhcp_last"]) == ("10.0.1.1", "10.0.1.2", "10.0.1.254")
    assert not subnet["is_shared"]

    changed = admin.call("PATCH", "/v1/subnets/tier", json={"dhcp_first": "10.0.1.100"})
    assert changed.status_code in (200, 202)
    settle(cloud)
    assert admin.get("/v1/subnets/tier")["dhcp_first"] == "10.0.1.100"
    assert make_nic(admin)["address"] == "10.0.1.100"
    document = admin.refused("DELETE", "/v1/subnets/tier", status=409, code="in_use")
    assert [each["type"] for each in document["blockers"]] == ["nic"]
    admin.send("DELETE", "/v1/nics/nic", status=204)
    assert admin.send("DELETE", "/v1/subnets/tier", status=202)["subnet"]["transition"] == "deleting"
    settle(cloud)
    admin.refused("GET", "/v1/subnets/tier", status=404, code="not_found")
    assert_consistent(cloud)


def test_a_bare_one_joins_and_its_nics_get_addresses(admin: Caller, cloud: Cloud) -> None:
    make_vpc(admin, cloud)
    bare = make_subnet(admin, cloud, vpc=None, cidr=None)
    assert [bare[name] for name in ("vpc_id", "cidr", "gateway", "dhcp_first", "dhcp_last")] == [None] * 5
    assert make_nic(admin)["address"] is None

    body = {"vpc": "shop", "cidr": "10.0.3.0/24", "gateway": "10.0.3.254"}
    joined = admin.send("POST", "/v1/subnets/tier/actions/join", body, status=202)
    assert joined["subnet"]["cidr"] == "10.0.3.0/24"
    settle(cloud)
    subnet = admin.get("/v1/subnets/tier")
    assert (subnet["gateway"], subnet["transition"]) == ("10.0.3.254", None)
    nic = admin.get("/v1/nics/nic")
    assert nic["address"].startswith("10.0.3.")
    assert nic["vpc_id"] == subnet["vpc_id"]

    document = admin.refused("POST", "/v1/subnets/tier/actions/leave", {}, status=409, code="in_use")
    assert document["blockers"] == [{"type": "nic", "id": nic["id"]}]
    admin.send("POST", "/v1/subnets/tier/actions/leave", {"force": True}, status=202)
    settle(cloud)
    assert admin.get("/v1/subnets/tier")["vpc_id"] is None
    assert admin.get("/v1/nics/nic")["address"] is None
    assert_consistent(cloud)


def test_blocks_of_one_vpc_do_not_overlap(admin: Caller, cloud: Cloud) -> None:
    make_vpc(admin, cloud)
    make_subnet(admin, cloud)
    for cidr in ("10.0.1.0/24", "10.0.0.0/20", "10.0.1.128/25"):
        document = admin.send("POST", "/v1/subnets", {"vpc": "shop", "cidr": cidr}, status=422)
        assert [error["field"] for error in document["errors"]] == ["cidr"]
    make_vpc(admin, cloud, "mall")
    make_subnet(admin, cloud, "other", vpc="mall")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"cidr": "10.1.0.0/24"}, "cidr"),
    ({"cidr": "10.0.1.5/24"}, "cidr"),
    ({"cidr": "10.0.1.0/30"}, "cidr"),
    ({"cidr": "fd00::/64"}, "cidr"),
    ({"vpc": "none"}, "vpc"),
    ({"zone": "zone-9"}, "zone"),
    ({"gateway": "10.0.2.1"}, "gateway"),
    ({"gateway": "10.0.1.0"}, "gateway"),
    ({"gateway": "10.0.1.255"}, "gateway"),
    ({"gateway": "banana"}, "gateway"),
    ({"dhcp_first": "10.0.2.1"}, "dhcp_first"),
    ({"dhcp_last": "10.0.1.255"}, "dhcp_last"),
    ({"mtu": 100}, "mtu"),
    ({"mtu": 9001}, "mtu"),
    ({"mtu": "1500"}, "mtu"),
]


@pytest.mark.parametrize(("changes", "field"), WRONG, ids=[f"{n}-{field}" for n, (_, field) in enumerate(WRONG)])
def test_a_wrong_field_is_named(shared_cloud: Cloud, shared_admin: Caller, changes: Any, field: str) -> None:
    if not shared_admin.get("/v1/vpcs")["items"]:
        make_vpc(shared_admin, shared_cloud)
    body = {"vpc": "shop", "cidr": "10.0.1.0/24", **changes}
    document = shared_admin.refused("POST", "/v1/subnets", body, status=422, code="invalid_input")
    assert field in {error["field"] for error in document["errors"]}, document
    assert own(shared_admin) == []


def test_the_basic_ones_are_there_for_all_and_nobody_changes_them(admin: Caller, stranger: Caller) -> None:
    for caller in (admin, stranger):
        basic = caller.get("/v1/subnets/basic")
        assert (basic["is_shared"], basic["project_id"], basic["zone"]) == (True, None, "zone-1")
        assert caller.get("/v1/subnets/basic", zone="zone-2")["id"] == caller.get("/v1/subnets/basic-zone-2")["id"]
        assert len(caller.get("/v1/subnets")["items"]) == 2
        for method, path, body in (
            ("PATCH", f"/v1/subnets/{basic['id']}", {"name": "mine"}),
            ("DELETE", f"/v1/subnets/{basic['id']}", None),
            ("POST", f"/v1/subnets/{basic['id']}/actions/leave", {"force": True}),
        ):
            refusal = caller.call(method, path, **({"json": body} if body else {}))
            assert 400 <= refusal.status_code < 500
        assert caller.get("/v1/subnets/basic") == basic


def test_filters(admin: Caller, cloud: Cloud) -> None:
    vpc = make_vpc(admin, cloud)
    make_subnet(admin, cloud, "a")
    make_subnet(admin, cloud, "b", cidr="10.0.2.0/24", zone="zone-2")
    make_subnet(admin, cloud, "c", vpc=None, cidr=None, labels={"bare": ""})
    assert sorted(own(admin)) == ["a", "b", "c"]
    assert sorted(own(admin, vpc=vpc["id"])) == ["a", "b"]
    assert sorted(own(admin, vpc="shop")) == ["a", "b"]
    assert own(admin, zone="zone-2") == ["b"]
    assert own(admin, label_selector="bare") == ["c"]
    assert own(admin, name="a") == ["a"]
    assert own(admin, vpc="nothing") == []
