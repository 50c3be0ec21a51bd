"""/v1/vpcs/{vpc}/dns_records."""

from __future__ import annotations

from typing import Any

import pytest

from iaas.cloud import Cloud
from tests.api.calling import Caller, make_vpc
from tests.factories import assert_consistent, settle

FIELDS = {"id", "vpc_id", "name", "type", "values", "ttl_s", "created_at", "updated_at"}
RECORDS = "/v1/vpcs/shop/dns_records"


@pytest.fixture
def shop(admin: Caller, cloud: Cloud) -> Any:
    return make_vpc(admin, cloud)


@pytest.mark.parametrize(
    ("name", "kind", "values"),
    [
        ("db", "A", ["10.0.1.5", "10.0.1.6"]),
        ("db.example.org.", "A", ["10.0.1.5"]),
        ("alias", "CNAME", ["db"]),
        ("note", "TXT", ["v=1; a b"]),
    ],
)
def test_a_whole_life(admin: Caller, cloud: Cloud, shop: Any, name: str, kind: str, values: list[str]) -> None:
    answer = admin.call("POST", RECORDS, json={"name": name, "type": kind, "values": values, "ttl_s": 5})
    assert answer.status_code == 202
    record = answer.json["dns_record"]
    assert answer.headers["Location"] == f"/v1/vpcs/{shop['id']}/dns_records/{record['id']}"
    assert record.keys() == FIELDS
    assert (record["vpc_id"], record["type"], record["ttl_s"]) == (shop["id"], kind, 5)
    assert answer.json["job"]["action"] == "vpc.apply"
    settle(cloud)
    assert admin.get(f"{RECORDS}/{record['id']}") == record
    assert [each["name"] for each in admin.get(RECORDS)["items"]] == [name]
    assert admin.send("DELETE", f"{RECORDS}/{record['id']}", status=202).keys() == {"job"}
    settle(cloud)
    assert admin.get(RECORDS)["items"] == []
    admin.refused("DELETE", f"{RECORDS}/{record['id']}", status=404, code="not_found")
    assert_consistent(cloud)


def test_one_record_of_a_name_and_type(admin: Caller, shop: Any) -> None:
    for body in (
        {"name": "db", "type": "A", "values": ["10.0.1.5"]},
        {"name": "db", "type": "TXT", "values": ["x"]},
    ):
        assert admin.send("POST", RECORDS, body, status=202)["dns_record"]["ttl_s"] == 60
        assert admin.call("POST", RECORDS, json=body).status_code == 409
    assert admin.call("POST", RECORDS, json={"name": "db", "type": "CNAME", "values": ["web"]}).status_code == 409
    assert len(admin.get(RECORDS)["items"]) == 2


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "not a name"}, "name"),
        ({"name": "-db"}, "name"),
        ({"name": "x" * 64}, "name"),
        ({"name": ""}, "name"),
        ({"type": "AAAA"}, "type"),
        ({"type": "a"}, "type"),
        ({"values": []}, "values"),
        ({"values": ["banana"]}, "values.0"),
        ({"values": ["fd00::1"]}, "values.0"),
        ({"values": "10.0.1.5"}, "values"),
        ({"type": "CNAME", "values": ["a", "b"]}, "values"),
        ({"type": "TXT", "values": ["x" * 256]}, "values.0"),
        ({"ttl_s": 0}, "ttl_s"),
        ({"ttl_s": "60"}, "ttl_s"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_field_is_named(admin: Caller, shop: Any, changes: Any, field: str) -> None:
    body = {"name": "db", "type": "A", "values": ["10.0.1.5"], **changes}
    document = admin.refused("POST", RECORDS, body, status=422, code="invalid_input")
    assert {error["field"] for error in document["errors"]} == {field}, document
    assert admin.get(RECORDS)["items"] == []
