"""/v1/address_reservations."""

from __future__ import annotations

from typing import Any

import pytest

from iaas.cloud import Cloud
from tests.api.calling import Caller, make_nic, make_subnet, make_vpc
from tests.factories import assert_consistent, settle

FIELDS = {"id", "name", "labels", "project_id", "subnet_id", "first", "last", "created_at", "updated_at"}
RESERVATIONS = "/v1/address_reservations"


@pytest.fixture
def tier(admin: Caller, cloud: Cloud) -> Any:
    make_vpc(admin, cloud)
    return make_subnet(admin, cloud)


@pytest.mark.parametrize(
    ("wish", "size"),
    [
        ({"address": "10.0.1.50"}, 1),
        ({"first": "10.0.1.50", "last": "10.0.1.59"}, 10),
        ({"count": 20}, 20),
        ({}, 1),
    ],
)
def test_a_whole_life(admin: Caller, cloud: Cloud, tier: Any, wish: Any, size: int) -> None:
    answer = admin.call("POST", RESERVATIONS, json={"subnet": "tier", "name": "pods", "labels": {"a": "b"}, **wish})
    assert answer.status_code == 202
    made = answer.json["address_reservation"]
    assert answer.headers["Location"] == f"{RESERVATIONS}/{made['id']}"
    assert made.keys() == FIELDS
    assert made["subnet_id"] == tier["id"]
    first, last = (int(made[end].rpartition(".")[2]) for end in ("first", "last"))
    assert last - first + 1 == size
    settle(cloud)
    assert admin.get(f"{RESERVATIONS}/pods") == made
    assert admin.call("POST", "/v1/nics", json={"subnet": "tier", "address": made["last"]}).status_code == 409
    changed = admin.send("PATCH", f"{RESERVATIONS}/pods", {"name": "vips", "labels": {"a": None}}, status=200)
    assert (changed["name"], changed["labels"]) == ("vips", {})
    admin.refused("DELETE", "/v1/subnets/tier", status=409, code="in_use")
    assert admin.send("DELETE", f"{RESERVATIONS}/vips", status=202).keys() == {"job"}
    settle(cloud)
    admin.refused("GET", f"{RESERVATIONS}/{made['id']}", status=404, code="not_found")
    assert make_nic(admin, address=made["last"])["address"] == made["last"]
    assert_consistent(cloud)


def test_an_address_that_somebody_has_is_a_conflict(admin: Caller, tier: Any) -> None:
    make_nic(admin, address="10.0.1.55")
    answer = admin.send("POST", RESERVATIONS, {"subnet": "tier", "first": "10.0.1.50", "last": "10.0.1.59"}, status=409)
    assert "10.0.1.55" in answer["detail"]
    assert admin.get(RESERVATIONS)["items"] == []
    make_nic(admin, "another", address="10.0.1.54")


def test_the_gateway_is_taken(admin: Caller, tier: Any) -> None:
    answer = admin.send("POST", RESERVATIONS, {"subnet": "tier", "address": tier["gateway"]}, status=409)
    assert "gateway" in answer["detail"]


def test_what_the_pool_does_not_have(admin: Caller, tier: Any) -> None:
    admin.refused("POST", RESERVATIONS, {"subnet": "tier", "count": 500}, status=409, code="out_of_capacity")
    assert admin.get(RESERVATIONS)["items"] == []


def test_lists(admin: Caller, cloud: Cloud, tier: Any) -> None:
    make_subnet(admin, cloud, "other", cidr="10.0.2.0/24")
    for name, subnet in (("a", "tier"), ("b", "other")):
        admin.send("POST", RESERVATIONS, {"subnet": subnet, "name": name, "labels": {"is": name}}, status=202)

    def found(**query: str) -> list[str]:
        return [each["name"] for each in admin.get(RESERVATIONS, **query)["items"]]

    assert sorted(found()) == ["a", "b"]
    assert found(subnet=tier["id"]) == found(subnet="tier") == found(name="a") == found(label_selector="is=a") == ["a"]
    assert found(subnet="nothing") == []


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"subnet": "nothing"}, "subnet"),
        ({"address": "10.9.0.1"}, "address"),
        ({"address": "10.0.1.0"}, "address"),
        ({"address": "banana"}, "address"),
        ({"address": "fd00::1"}, "address"),
        ({"count": 0}, "count"),
        ({"count": 1025}, "count"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_field_is_named(admin: Caller, tier: Any, wish: Any, field: str) -> None:
    document = admin.refused("POST", RESERVATIONS, {"subnet": "tier", **wish}, status=422, code="invalid_input")
    assert {error["field"] for error in document["errors"]} == {field}, document
    assert admin.get(RESERVATIONS)["items"] == []


@pytest.mark.parametrize(
    "wish",
    [
        {"address": "10.0.1.50", "count": 2},
        {"first": "10.0.1.50"},
        {"first": "10.0.1.59", "last": "10.0.1.50"},
        {"first": "10.0.1.50", "last": "10.0.2.50"},
    ],
)
def test_ranges_that_make_no_sense(admin: Caller, tier: Any, wish: Any) -> None:
    admin.refused("POST", RESERVATIONS, {"subnet": "tier", **wish}, status=422, code="invalid_input")
