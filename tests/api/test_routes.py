"""/v1/vpcs/{vpc}/routes: one, many at once, all at once; and /v1/reachability, which says where they lead."""

from __future__ import annotations

from typing import Any

import pytest

from iaas.cloud import Cloud
from tests.api.calling import Caller, make, make_nic, make_subnet, make_vpc
from tests.factories import assert_consistent, settle

FIELDS = {"id", "vpc_id", "destination", "target", "next_hop", "created_at", "updated_at"}
ROUTES = "/v1/vpcs/shop/routes"


@pytest.fixture(autouse=True)
def shop(admin: Caller, cloud: Cloud) -> Any:
    """The VPC "shop" with the subnet "tier" (10.0.1.0/24) and an instance "gate" at 10.0.1.10."""
    vpc = make_vpc(admin, cloud)
    make_subnet(admin, cloud)
    make(admin, name="gate", nics=[{"subnet": "tier", "address": "10.0.1.10", "name": "gate-nic"}])
    settle(cloud)
    return vpc


def table(admin: Caller) -> list[tuple[str, str | None]]:
    return sorted((each["destination"], each["next_hop"]) for each in admin.get(ROUTES, limit=1000)["items"])


@pytest.mark.parametrize(
    ("wish", "kind"),
    [({"instance": "gate"}, "instance"), ({"nic": "gate-nic"}, "nic"), ({"address": "10.0.1.10"}, "address")],
)
def test_a_route_to_each_kind_of_target(admin: Caller, cloud: Cloud, shop: Any, wish: Any, kind: str) -> None:
    answer = admin.call("POST", ROUTES, json={"destination": "10.244.0.0/24", **wish})
    assert answer.status_code == 202
    route, job = answer.json["route"], answer.json["job"]
    assert answer.headers["Location"] == f"/v1/vpcs/{shop['id']}/routes/{route['id']}"
    assert route.keys() == FIELDS
    assert (route["vpc_id"], route["next_hop"], route["target"]["type"]) == (shop["id"], "10.0.1.10", kind)
    gate = admin.get("/v1/instances/gate")
    expected = {
        "instance": {"id": gate["id"]},
        "nic": {"id": gate["nics"][0]["id"]},
        "address": {"address": "10.0.1.10"},
    }[kind]
    assert route["target"] == {"type": kind, **expected}
    assert (job["action"], job["resources"]) == ("vpc.apply", [{"type": "vpc", "id": shop["id"]}])
    settle(cloud)
    assert admin.get(f"{ROUTES}/{route['id']}") == route
    assert admin.get("/v1/vpcs/shop")["transition"] is None
    removed = admin.send("DELETE", f"{ROUTES}/{route['id']}", status=202)
    assert removed.keys() == {"job"}
    settle(cloud)
    admin.refused("GET", f"{ROUTES}/{route['id']}", status=404, code="not_found")
    assert table(admin) == []
    assert_consistent(cloud)


def test_hundreds_at_once(admin: Caller, cloud: Cloud) -> None:
    wishes = [{"destination": f"10.{100 + n // 200}.{n % 200}.0/24", "instance": "gate"} for n in range(500)]
    answer = admin.send("POST", f"{ROUTES}:batch", {"routes": wishes}, status=202)
    assert [each["destination"] for each in answer["routes"]] == [each["destination"] for each in wishes]
    settle(cloud)
    assert len(table(admin)) == 500
    pages, cursor = [], None
    while True:
        page = admin.get(ROUTES, limit=200, **({"cursor": cursor} if cursor else {}))
        pages.append(len(page["items"]))
        if (cursor := page["next_cursor"]) is None:
            break
    assert pages == [200, 200, 100]


def test_a_batch_is_all_or_none(admin: Caller, cloud: Cloud) -> None:
    good = {"destination": "10.244.0.0/24", "instance": "gate"}
    for bad, field in (
        ({"destination": "10.245.0.0/24", "instance": "nobody"}, "routes.1.instance"),
        ({"destination": "banana", "instance": "gate"}, "routes.1.destination"),
        ({"destination": "10.245.0.0/24"}, "routes.1"),
    ):
        document = admin.send("POST", f"{ROUTES}:batch", {"routes": [good, bad]}, status=422)
        assert [error["field"].startswith(field) for error in document["errors"]] == [True], document
        assert table(admin) == []
    assert admin.call("POST", f"{ROUTES}:batch", json={"routes": [good, good]}).status_code in (409, 422)
    assert table(admin) == []


def test_the_whole_table_is_replaced(admin: Caller, cloud: Cloud) -> None:
    for third in (1, 2):
        admin.send("POST", ROUTES, {"destination": f"10.244.{third}.0/24", "instance": "gate"}, status=202)
    kept = {each["destination"]: each["id"] for each in admin.get(ROUTES)["items"]}["10.244.2.0/24"]
    wishes = [{"destination": f"10.244.{third}.0/24", "instance": "gate"} for third in (2, 3)]
    answer = admin.send("PUT", ROUTES, {"routes": wishes}, status=202)
    settle(cloud)
    assert table(admin) == [("10.244.2.0/24", "10.0.1.10"), ("10.244.3.0/24", "10.0.1.10")]
    assert kept in {each["id"] for each in answer["routes"]}
    admin.send("PUT", ROUTES, {"routes": []}, status=202)
    settle(cloud)
    assert table(admin) == []


def test_a_destination_has_one_route(admin: Caller) -> None:
    wish = {"destination": "10.244.0.0/24", "instance": "gate"}
    admin.send("POST", ROUTES, wish, status=202)
    assert admin.call("POST", ROUTES, json=wish).status_code == 409


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"destination": "10.244.0.1/24", "instance": "gate"}, "destination"),
        ({"destination": "10.0.1.0/24", "instance": "gate"}, "destination"),
        ({"destination": "169.254.169.254/32", "instance": "gate"}, "destination"),
        ({"destination": "224.0.0.0/8", "instance": "gate"}, "destination"),
        ({"destination": "fd00::/64", "instance": "gate"}, "destination"),
        ({"destination": "10.244.0.0/24", "instance": "nobody"}, "instance"),
        ({"destination": "10.244.0.0/24", "nic": "nobody"}, "nic"),
        ({"destination": "10.244.0.0/24", "address": "10.9.9.9"}, "address"),
        ({"destination": "10.244.0.0/24", "address": "10.0.1.1"}, "address"),
        ({"instance": "gate"}, "destination"),
    ],
)
def test_a_wrong_field_is_named(admin: Caller, wish: Any, field: str) -> None:
    document = admin.refused("POST", ROUTES, wish, status=422, code="invalid_input")
    assert {error["field"] for error in document["errors"]} == {field}, document
    assert table(admin) == []


@pytest.mark.parametrize("targets", [{}, {"instance": "gate", "address": "10.0.1.10"}])
def test_a_route_has_one_target(admin: Caller, targets: Any) -> None:
    admin.refused("POST", ROUTES, {"destination": "10.244.0.0/24", **targets}, status=422, code="invalid_input")


def test_a_route_whose_target_is_gone_leads_nowhere(admin: Caller, cloud: Cloud) -> None:
    admin.send("POST", ROUTES, {"destination": "10.244.0.0/24", "instance": "gate"}, status=202)
    settle(cloud)
    admin.send("DELETE", "/v1/instances/gate", status=202)
    settle(cloud)
    assert table(admin) == [("10.244.0.0/24", None)]
    assert_consistent(cloud)


# -- reachability -----------------------------------------------------------------------------------------------


def ask(caller: Caller, source: Any, target: Any, **more: Any) -> Any:
    verdict = caller.send("POST", "/v1/reachability", {"source": source, "target": target, **more}, status=200)
    assert verdict.keys() == {"reachable", "reason", "message", "path", "observed"}
    assert verdict["observed"] is None  # nothing can be sent in the simulation
    for hop in verdict["path"]:
        assert hop.keys() == {"direction", "element", "id", "passed", "rule", "detail"}
    return verdict


def test_the_way_and_what_stops_a_packet(admin: Caller, cloud: Cloud, shop: Any) -> None:
    make_subnet(admin, cloud, "db", cidr="10.0.2.0/24")
    make(admin, name="db-1", nics=[{"subnet": "db", "name": "db-nic", "address": "10.0.2.10"}])
    settle(cloud)
    gate, db = {"nic": "gate-nic"}, {"nic": "db-nic"}
    verdict = ask(admin, gate, db, protocol="tcp", port=5432)
    assert (verdict["reachable"], verdict["reason"]) == (True, "delivered")
    assert shop["id"] in {hop["id"] for hop in verdict["path"]}
    assert {hop["direction"] for hop in verdict["path"]} == {"forward", "back"}

    verdict = ask(admin, gate, {"vpc": "shop", "address": "10.0.2.99"})
    assert (verdict["reachable"], verdict["reason"]) == (False, "nobody_has_it")
    assert not verdict["path"][-1]["passed"]
    assert ask(admin, gate, db, source_address="10.0.1.99")["reason"] == "anti_spoofing"
    assert ask(admin, gate, {"vpc": shop["id"], "address": "10.250.0.1"})["reason"] == "no_route"

    admin.send("POST", "/v1/instances/db-1/actions/stop", {"force": True}, status=202)
    settle(cloud)
    assert ask(admin, gate, db)["reachable"] is False
    assert ask(admin, {"nic": make_nic(admin)["id"]}, gate)["reason"] == "not_attached"


def test_pods_behind_a_route(admin: Caller, cloud: Cloud) -> None:
    make(admin, name="web", nics=[{"subnet": "tier", "name": "web-nic"}])
    admin.send("PATCH", "/v1/nics/gate-nic", {"allowed_pairs": [{"cidr": "10.244.0.0/24"}]}, status=202)
    settle(cloud)
    pod = {"vpc": "shop", "address": "10.244.0.5"}
    assert ask(admin, {"nic": "web-nic"}, pod)["reason"] == "no_route"
    admin.send("POST", ROUTES, {"destination": "10.244.0.0/24", "instance": "gate"}, status=202)
    settle(cloud)
    verdict = ask(admin, {"nic": "web-nic"}, pod)
    assert "10.244.0.0/24" in {hop["id"] for hop in verdict["path"] if hop["element"] == "route"}


def test_equal_addresses_in_two_vpcs_are_two_places(admin: Caller, cloud: Cloud) -> None:
    make_vpc(admin, cloud, "mall")
    make_subnet(admin, cloud, "other", vpc="mall")
    make(admin, name="twin", nics=[{"subnet": "other", "address": "10.0.1.11", "name": "twin-nic"}])
    settle(cloud)
    verdict = ask(admin, {"nic": "gate-nic"}, {"nic": "twin-nic"})
    assert (verdict["reachable"], verdict["reason"]) == (False, "other_vpc")


def test_on_the_basic_subnet_nobody_is_told_of_others(admin: Caller, stranger: Caller, cloud: Cloud) -> None:
    theirs = make(stranger, name="theirs")
    mine = [make(admin, name=name) for name in ("a", "b")]
    settle(cloud)
    ends = [{"nic": each["nics"][0]["id"]} for each in mine]
    assert ask(admin, *ends)["reachable"] is True
    for where in ({"nic": theirs["nics"][0]["id"]}, {"vpc": theirs["nics"][0]["vpc_id"], "address": theirs["address"]}):
        for body in ({"source": ends[0], "target": where}, {"source": where, "target": ends[0]}):
            document = admin.refused("POST", "/v1/reachability", body, status=422, code="invalid_input")
            assert document["errors"][0]["code"] == "not_found"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"source": {}}, "source"),
        ({"source": {"vpc": "shop"}}, "source"),
        ({"target": {"nic": "gate-nic", "vpc": "shop", "address": "10.0.1.10"}}, "target"),
        ({"target": {"vpc": "shop", "address": "banana"}}, "target.address"),
        ({"target": {"vpc": "shop", "address": "fd00::1"}}, "target.address"),
        ({"target": {"vpc": "nothing", "address": "10.0.1.10"}}, "target.vpc"),
        ({"target": {"nic": "nothing"}}, "target.nic"),
        ({"protocol": "tcp"}, "port"),
        ({"port": 80}, "port"),
        ({"protocol": "udp", "port": 0}, "port"),
        ({"protocol": "sctp"}, "protocol"),
        ({"source_address": "banana"}, "source_address"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_questions_that_make_no_sense(admin: Caller, changes: Any, field: str) -> None:
    body = {"source": {"nic": "gate-nic"}, "target": {"nic": "gate-nic"}, **changes}
    document = admin.refused("POST", "/v1/reachability", body, status=422, code="invalid_input")
    assert {error["field"] for error in document["errors"]} == {field}, document
