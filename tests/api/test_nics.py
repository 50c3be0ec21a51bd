"""/v1/nics: made, attached, moved, counted; and the NICs that instances are made with."""

from __future__ import annotations

from typing import Any

import pytest

from iaas.cloud import Cloud
from tests.api.calling import Caller, make, make_nic, make_subnet, make_vpc
from tests.factories import assert_consistent, settle

FIELDS = {
    *("id", "name", "labels", "project_id", "zone", "status", "transition", "generation", "subnet_id", "vpc_id"),
    *("mac", "address", "secondary_addresses", "allowed_pairs", "instance_id", "device_index"),
    *("delete_with_instance", "created_at", "updated_at"),
}
OF_INSTANCE = {"id", "subnet_id", "vpc_id", "mac", "address", "secondary_addresses", "device_index"}


@pytest.fixture
def tier(admin: Caller, cloud: Cloud) -> Any:
    """A subnet 10.0.1.0/24 in zone-1, in the VPC "shop"."""
    make_vpc(admin, cloud)
    return make_subnet(admin, cloud, zone="zone-1")


def test_a_nic_moves_from_one_instance_to_another(admin: Caller, cloud: Cloud, tier: Any) -> None:
    answer = admin.call("POST", "/v1/nics", json={"subnet": "tier", "name": "spare", "labels": {"a": "b"}})
    assert answer.status_code == 201
    nic = answer.json
    assert nic.keys() == FIELDS
    assert answer.headers["Location"] == f"/v1/nics/{nic['id']}"
    assert (nic["status"], nic["subnet_id"], nic["vpc_id"]) == ("available", tier["id"], tier["vpc_id"])
    assert not nic["delete_with_instance"]
    for name in ("a", "b"):
        make(admin, name=name, zone="zone-1")
    settle(cloud)
    for name in ("a", "b"):
        attached = admin.send("POST", "/v1/nics/spare/actions/attach", {"instance": name}, status=202)
        assert attached["nic"]["transition"] == "attaching"
        assert attached["job"]["action"] == "nic.attach"
        settle(cloud)
        now, instance = admin.get("/v1/nics/spare"), admin.get(f"/v1/instances/{name}")
        assert (now["status"], now["transition"], now["instance_id"]) == ("in_use", None, instance["id"])
        shown = instance["nics"][now["device_index"]]
        assert shown.keys() == OF_INSTANCE
        assert (shown["mac"], shown["address"]) == (nic["mac"], nic["address"])
        refusal = admin.refused("DELETE", "/v1/nics/spare", status=409, code="in_use")
        assert refusal["blockers"] == [{"type": "instance", "id": instance["id"]}]
        assert admin.send("POST", "/v1/nics/spare/actions/detach", {}, status=202)["nic"]["transition"] == "detaching"
        settle(cloud)
        assert admin.get("/v1/nics/spare")["status"] == "available"
        assert len(admin.get(f"/v1/instances/{name}")["nics"]) == 1
    admin.send("DELETE", "/v1/nics/spare", status=204)
    admin.refused("GET", "/v1/nics/spare", status=404, code="not_found")
    assert_consistent(cloud)


def test_it_is_found_by_id_name_and_mac(admin: Caller, tier: Any) -> None:
    nic = make_nic(admin)
    for wanted in (nic["id"], "nic", nic["mac"], nic["mac"].upper()):
        assert admin.get(f"/v1/nics/{wanted}") == nic


def test_what_is_given_is_what_it_has(admin: Caller, tier: Any) -> None:
    wish = {
        "address": "10.0.1.50",
        "mac": "52:54:00:aa:bb:cc",
        "secondary_addresses": ["10.0.1.51", "10.0.1.52"],
        "allowed_pairs": [{"cidr": "10.244.1.0/24"}, {"cidr": "10.244.2.0/24", "mac": "52:54:00:aa:bb:cd"}],
    }
    nic = make_nic(admin, **wish)
    assert nic["allowed_pairs"].pop(0) == {"cidr": "10.244.1.0/24", "mac": None}
    assert {name: nic[name] for name in wish} == {**wish, "allowed_pairs": wish["allowed_pairs"][1:]}
    assert make_nic(admin, "silent", address="none")["address"] is None


def test_an_address_or_mac_that_is_taken_is_a_conflict(admin: Caller, tier: Any) -> None:
    nic = make_nic(admin, address="10.0.1.50", secondary_addresses=["10.0.1.51"])
    for body in (
        {"address": "10.0.1.50"},
        {"address": "10.0.1.51"},
        {"secondary_addresses": ["10.0.1.50"]},
        {"mac": nic["mac"]},
        {"name": "nic"},
    ):
        answer = admin.call("POST", "/v1/nics", json={"subnet": "tier", **body})
        assert answer.status_code == 409, body
    assert len(admin.get("/v1/nics")["items"]) == 1


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"subnet": "nothing"}, "subnet"),
    ({"address": "10.0.2.5"}, "address"),
    ({"address": "10.0.1.0"}, "address"),
    ({"address": "10.0.1.255"}, "address"),
    ({"address": "10.0.1.1"}, "address"),
    ({"address": "fd00::5"}, "address"),
    ({"address": "banana"}, "address"),
    ({"address": None}, "address"),
    ({"mac": "52:54:00:aa:bb"}, "mac"),
    ({"mac": "01:00:5e:00:00:01"}, "mac"),
    ({"mac": "00:00:00:00:00:00"}, "mac"),
    ({"secondary_addresses": ["10.0.9.1"]}, "secondary_addresses.0"),
    ({"secondary_addresses": ["10.0.1.9", "10.0.1.9"]}, "secondary_addresses.1"),
    ({"secondary_addresses": ["10.0.1.9"] * 65}, "secondary_addresses"),
    ({"allowed_pairs": [{"cidr": "10.244.1.1/24"}]}, "allowed_pairs.0.cidr"),
    ({"allowed_pairs": [{"cidr": "10.244.1.0/24", "mac": "x"}]}, "allowed_pairs.0.mac"),
    ({"allowed_pairs": [{"mac": "52:54:00:aa:bb:cc"}]}, "allowed_pairs.0.cidr"),
    ({"allowed_pairs": ["10.244.1.0/24"]}, "allowed_pairs.0"),
    ({"instance": "web"}, "instance"),
]


@pytest.mark.parametrize(("changes", "field"), WRONG, ids=[f"{n}-{field}" for n, (_, field) in enumerate(WRONG)])
def test_a_wrong_field_is_named(shared_cloud: Cloud, shared_admin: Caller, changes: Any, field: str) -> None:
    if not shared_admin.get("/v1/vpcs")["items"]:
        make_vpc(shared_admin, shared_cloud)
        make_subnet(shared_admin, shared_cloud)
    body = {"subnet": "tier", **changes}
    document = shared_admin.refused("POST", "/v1/nics", body, status=422, code="invalid_input")
    assert {error["field"] for error in document["errors"]} == {field}, document
    assert shared_admin.get("/v1/nics")["items"] == []


def test_changes(admin: Caller, cloud: Cloud, tier: Any) -> None:
    make_nic(admin)
    seen = admin.call("GET", "/v1/nics/nic").headers["ETag"]
    changed = admin.call("PATCH", "/v1/nics/nic", json={"name": "n", "labels": {"a": "b"}, "address": "10.0.1.60"})
    assert (changed.status_code, changed.json["address"], changed.json["name"]) == (200, "10.0.1.60", "n")
    late = {"If-Match": seen}
    admin.refused("PATCH", "/v1/nics/n", {"name": "m"}, status=412, code="precondition_failed", headers=late)
    admin.refused("DELETE", "/v1/nics/n", status=412, code="precondition_failed", headers=late)

    make(admin, name="web", zone="zone-1")
    settle(cloud)
    attach = "/v1/nics/n/actions/attach"
    admin.refused("POST", attach, {"instance": "web"}, status=412, code="precondition_failed", headers=late)
    admin.send("POST", attach, {"instance": "web"}, status=202)
    settle(cloud)
    pairs = {"allowed_pairs": [{"cidr": "10.244.1.0/24"}], "secondary_addresses": ["10.0.1.61"]}
    answer = admin.call("PATCH", "/v1/nics/n", json=pairs)
    assert (answer.status_code, answer.json["job"]["action"]) == (202, "nic.apply")
    settle(cloud)
    now = admin.get("/v1/nics/n")
    assert (now["secondary_addresses"], len(now["allowed_pairs"])) == (["10.0.1.61"], 1)
    shown = admin.get("/v1/instances/web")["nics"][now["device_index"]]
    assert shown["secondary_addresses"] == ["10.0.1.61"]


def test_filters(admin: Caller, cloud: Cloud, tier: Any) -> None:
    spare = make_nic(admin, "spare", labels={"a": "b"})
    web = make(admin, name="web", nics=[{"subnet": "tier", "address": "10.0.1.77"}, {}])
    settle(cloud)

    def found(**query: str) -> list[str]:
        return sorted(each["id"] for each in admin.get("/v1/nics", **query)["items"])

    own, basic = (nic["id"] for nic in web["nics"])
    assert found() == sorted([spare["id"], own, basic])
    assert found(instance=web["id"]) == found(instance="web") == sorted([own, basic])
    assert found(subnet=tier["id"]) == found(subnet="tier") == found(vpc="shop") == sorted([spare["id"], own])
    assert found(subnet="basic") == [basic]
    assert found(vpc=tier["vpc_id"], status="available") == [spare["id"]]
    assert found(address="10.0.1.77") == [own]
    assert found(mac=spare["mac"]) == found(name="spare") == found(label_selector="a") == [spare["id"]]
    assert found(instance="nothing") == found(subnet="nothing") == found(vpc="nothing") == []
    admin.refused("GET", "/v1/nics", status=422, code="invalid_input", query_string={"status": "deleted"})


def test_statistics_of_one_that_runs_and_of_one_that_does_not(admin: Caller, cloud: Cloud, tier: Any) -> None:
    make_nic(admin)
    admin.refused("GET", "/v1/nics/nic/statistics", status=409, code="invalid_state")
    make(admin, name="web", nics=[{"nic": "nic"}])
    settle(cloud)
    counted = admin.get("/v1/nics/nic/statistics")
    assert counted.keys() == {
        f"{way}_{what}" for way in ("received", "sent") for what in ("bytes", "packets", "dropped")
    }
    assert all(type(value) is int and value >= 0 for value in counted.values())


# -- of instances -----------------------------------------------------------------------------------------------


def test_an_instance_has_the_nics_it_was_made_with(admin: Caller, cloud: Cloud, tier: Any) -> None:
    spare = make_nic(admin, "spare")
    wishes = [{"subnet": "tier", "address": "10.0.1.10", "secondary_addresses": ["10.0.1.11"]}, {"nic": "spare"}, {}]
    nics = make(admin, name="web", nics=wishes)["nics"]
    assert [nic["device_index"] for nic in nics] == [0, 1, 2]
    assert (nics[0]["address"], nics[0]["secondary_addresses"]) == ("10.0.1.10", ["10.0.1.11"])
    assert nics[1]["id"] == spare["id"]
    assert nics[2]["subnet_id"] == admin.get("/v1/subnets/basic")["id"]
    settle(cloud)
    assert admin.get("/v1/instances/web")["nics"] == nics
    admin.send("DELETE", "/v1/instances/web", status=202)
    settle(cloud)
    assert [nic["name"] for nic in admin.get("/v1/nics")["items"]] == ["spare"]
    assert admin.get("/v1/nics/spare")["status"] == "available"
    assert_consistent(cloud)


def test_an_instance_may_have_none(admin: Caller, cloud: Cloud) -> None:
    assert make(admin, name="hermit", nics=[])["nics"] == []
    settle(cloud)
    instance = admin.get("/v1/instances/hermit")
    assert (instance["status"], instance["address"]) == ("running", None)


@pytest.mark.parametrize(
    ("nics", "field"),
    [
        ([{"subnet": "nothing"}], "nics.0.subnet"),
        ([{}, {"address": "banana"}], "nics.1.address"),
        ([{"nic": "nothing"}], "nics.0.nic"),
        ([{"nic": "nic-00000000", "subnet": "basic"}], "nics.0.subnet"),
        ([{"colour": "red"}], "nics.0.colour"),
        (["basic"], "nics.0"),
        ("basic", "nics"),
        (None, "nics"),
        ([{}] * 65, "nics"),
    ],
)
def test_wrong_nics_of_an_instance(shared_admin: Caller, nics: Any, field: str) -> None:
    body = {"kind": "vm", "image": "tiny", "flavor": "nano", "nics": nics}
    document = shared_admin.refused("POST", "/v1/instances", body, status=422, code="invalid_input")
    assert {error["field"] for error in document["errors"]} == {field}, document
    assert shared_admin.get("/v1/instances")["items"] == []


def test_more_than_the_flavor_has(admin: Caller, cloud: Cloud) -> None:
    body = {"kind": "vm", "image": "tiny", "flavor": "nano", "nics": [{}] * 40}
    document = admin.refused("POST", "/v1/instances", body, status=422, code="invalid_input")
    assert document["errors"][0]["field"] == "nics"
    assert admin.get("/v1/nics")["items"] == []


def test_the_guest_reads_its_labels_if_it_may(admin: Caller, cloud: Cloud) -> None:
    assert make(admin, name="open", metadata_labels=True)["metadata_labels"] is True
    assert make(admin, name="shut")["metadata_labels"] is False
