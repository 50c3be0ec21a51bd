"""Every route of the application with every role, nobody at all, and a member of another project."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from iaas.api import access
from iaas.cloud import Cloud
from iaas.resources.common import Role
from tests.api.calling import Caller, make, make_nic, make_subnet, make_vpc
from tests.factories import principal_in, settle

ROUTES = sorted((rule, method) for rule, methods in access.ROUTES.items() for method in methods)
RANK: list[access.Least] = [None, Role.READER, Role.MEMBER, Role.ADMIN]

# What gets a call past the check of its form, so that the next thing to fail is the resource that is not there.
BODIES: Mapping[str, object] = {
    "/v1/instances/<instance>/actions/resize": {"flavor": "nano"},
    "/v1/instances/<instance>/actions/exec": {"command": ["id"]},
    "/v1/vpcs/<vpc>/routes": {"routes": []},
    "/v1/vpcs/<vpc>/dns_records": {"name": "db", "type": "A", "values": ["10.0.1.9"]},
    "/v1/vpcs/<vpc>/routes:batch": {"routes": [{"destination": "10.9.0.0/16", "address": "10.0.1.9"}]},
    "/v1/subnets/<subnet>/actions/join": {"vpc": "x", "cidr": "10.0.1.0/24"},
    "/v1/nics/<nic>/actions/attach": {"instance": "x"},
}
# Belong to no project: everybody sees the same.
SHARED = {"zone", "host", "flavor", "image", "path"}


@pytest.fixture
def callers(app: Flask, cloud: Cloud) -> Mapping[access.Least, Caller]:
    made = {role: Caller(app, principal_in(cloud, "team", role)[1]) for role in Role}
    return {None: Caller(app, None), **made}


@pytest.fixture
def owned(callers: Mapping[access.Least, Caller], cloud: Cloud) -> Mapping[str, str]:
    """One resource of the project "team" for every variable of a route."""
    member = callers[Role.MEMBER]
    instance = make(member, name="web")
    found = {
        "instance": instance["id"],
        "key_pair": member.send("POST", "/v1/key_pairs", {"name": "me"}, status=201)["id"],
        "api_token": member.send("POST", "/v1/api_tokens", {"name": "t"}, status=201)["id"],
        "access_key": member.send("POST", "/v1/access_keys", {"name": "t"}, status=201)["id"],
        "project": instance["project_id"],
    }
    found |= {"vpc": make_vpc(member, cloud)["id"], "subnet": make_subnet(member, cloud)["id"]}
    found |= {"nic": make_nic(member)["id"]}
    for collection, variable, kind, body in (
        ("/v1/vpcs/shop/routes", "route", "route", {"destination": "10.9.0.0/16", "address": "10.0.1.9"}),
        ("/v1/vpcs/shop/dns_records", "record", "dns_record", {"name": "db", "type": "A", "values": ["10.0.1.9"]}),
        ("/v1/address_reservations", "reservation", "address_reservation", {"subnet": "tier"}),
    ):
        found[variable] = member.send("POST", collection, body, status=202)[kind]["id"]
    settle(cloud)
    return {**found, "job_id": member.get("/v1/jobs")["items"][0]["id"]}


def variables(rule: str) -> list[str]:
    return [part.strip("<>").rpartition(":")[2] for part in rule.split("/") if part.startswith("<")]


def path_of(rule: str, values: Mapping[str, str]) -> str:
    parts = (values[variables(part)[0]] if part.startswith("<") else part for part in rule.split("/"))
    return "/".join(parts)


def foreign_routes() -> Iterator[tuple[str, str]]:
    for rule, method in ROUTES:
        if set(variables(rule)) - SHARED:
            yield rule, method


def call(caller: Caller, rule: str, method: str, path: str) -> TestResponse:
    body = BODIES.get(rule, {}) if method in ("POST", "PATCH", "PUT") else None
    if (rule, method) == ("/v1/vpcs/<vpc>/routes", "POST"):
        body = {"destination": "10.9.0.0/16", "address": "10.0.1.9"}
    return caller.call(method, path, **({} if body is None else {"json": body}))


def test_the_table_has_every_route_and_no_other(app: Flask) -> None:
    assert sorted((rule, method) for method, rule in access.routes(app)) == ROUTES


def test_a_route_that_is_not_in_the_table_keeps_the_application_from_starting(app: Flask) -> None:
    app.add_url_rule("/v1/planted/<thing>", view_func=lambda thing: thing, endpoint="planted", methods=["PUT"])
    with pytest.raises(access.RouteNotDeclaredError, match="PUT /v1/planted/<thing>"):
        access.check_declared(app)


@pytest.mark.parametrize(("rule", "method"), [*ROUTES, ("/v1/no/such/route", "GET")])
def test_every_route_with_every_role(
    callers: Mapping[access.Least, Caller], rule: str, method: str, cloud: Cloud
) -> None:
    least = access.ROUTES[rule][method] if rule in access.ROUTES else Role.READER
    path = path_of(rule, dict.fromkeys(variables(rule), "x"))
    for role, caller in callers.items():
        answer = call(caller, rule, method, path)
        if RANK.index(role) >= RANK.index(least):
            assert answer.status_code not in (401, 403, 500), (role, answer.text)
        elif role is None:
            assert (answer.status_code, answer.json["code"]) == (401, "unauthenticated")
        else:
            assert (answer.status_code, answer.json["code"]) == (403, "permission_denied")
            assert least is not None
            assert least.value in answer.json["detail"]
            assert call(caller, rule, "OPTIONS", path).status_code in (200, 403)
        if method == "GET":
            assert call(caller, rule, "HEAD", path).status_code == answer.status_code


@pytest.mark.parametrize(("rule", "method"), list(foreign_routes()))
def test_what_belongs_to_another_project_is_not_there(
    app: Flask, cloud: Cloud, owned: Mapping[str, str], rule: str, method: str
) -> None:
    least = access.ROUTES[rule][method]
    roles = [role for role in (Role.READER, Role.MEMBER, Role.ADMIN) if RANK.index(role) >= RANK.index(least)]
    unknown = {name: f"{each.rpartition('-')[0]}-00000000" for name, each in owned.items()}
    for role in roles:
        if "project" in variables(rule) and role is Role.ADMIN:
            continue  # projects themselves are the operator's
        caller = Caller(app, principal_in(cloud, "others", role)[1])
        foreign = call(caller, rule, method, path_of(rule, owned))
        assert (foreign.status_code, foreign.json["code"]) == (404, "not_found"), foreign.text
        absent = call(caller, rule, method, path_of(rule, unknown)).json
        document = foreign.json
        for each in (document, absent):
            each.pop("request_id")
        text = json.dumps(document)
        for name, value in owned.items():
            text = text.replace(value, unknown[name])
        assert json.loads(text) == absent, "a foreign resource is told from one that does not exist"


def test_lists_of_another_project_hold_nothing_of_ours(app: Flask, cloud: Cloud, owned: Mapping[str, str]) -> None:
    for role in Role:
        other = Caller(app, principal_in(cloud, "others", role)[1])
        for rule, methods in access.ROUTES.items():
            if "GET" not in methods or variables(rule) or not rule.startswith("/v1/") or "openapi" in rule:
                continue
            answer = other.call("GET", rule, query_string={} if "cap" in rule or "health" in rule else {"limit": 1000})
            if answer.status_code == 403 or (role is Role.ADMIN and rule == "/v1/projects"):
                continue
            for value in owned.values():
                assert value not in answer.text, (rule, role)
