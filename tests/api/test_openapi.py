"""The OpenAPI document is valid, and nothing that is made from it brings the server to fall."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator

from iaas.api.app import create_app
from iaas.cloud import Cloud
from tests.api.calling import Caller, make
from tests.factories import TOKEN, assert_consistent, settle

METHODS = ("get", "post", "patch", "delete", "put")


@pytest.fixture(scope="module")
def shared_app(shared_cloud: Cloud) -> Flask:
    return create_app(shared_cloud)


@pytest.fixture(scope="module")
def document(shared_app: Flask) -> Any:
    return Caller(shared_app, None).get("/v1/openapi.json")


def test_it_is_valid(document: Any) -> None:
    assert document["openapi"].startswith("3.1")
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_it_names_every_route(shared_app: Flask, document: Any) -> None:
    routes = {
        (rule.rule.replace("<", "{").replace(">", "}"), method.lower())
        for rule in shared_app.url_map.iter_rules()
        for method in (rule.methods or ())
        if rule.rule.startswith("/v1/") and method.lower() in METHODS
        if not rule.rule.startswith(("/v1/docs", "/v1/openapi"))
    }
    assert routes == {
        (path, method) for path, item in document["paths"].items() for method in item if method in METHODS
    }


def test_every_operation_says_what_it_is_and_answers(document: Any) -> None:
    for path, item in document["paths"].items():
        for method in item.keys() & set(METHODS):
            assert item[method]["summary"], (method, path)
            assert any(status.startswith("2") for status in item[method]["responses"]), (method, path)


# -- values that a schema describes, and values that it does not ------------------------------------------------

NASTY = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=2**62),
    st.floats(),
    st.text(max_size=40),
    st.sampled_from(
        ["", "tiny", "nano", "web", "zone-1", "\x00", "\ud800", "a\n", "x" * 200, "%00", "../..", "9" * 400]
    ),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)


def values(schema: dict[str, Any], document: dict[str, Any], depth: int = 0) -> st.SearchStrategy[Any]:
    """Return what fits the schema, mixed with what does not."""
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "enum" in schema:
        return st.one_of(st.sampled_from(schema["enum"]), NASTY)
    match schema.get("type"):
        case "integer":
            return st.one_of(st.integers(schema.get("minimum"), schema.get("maximum")), NASTY)
        case "boolean":
            return st.one_of(st.booleans(), NASTY)
        case "array":
            return st.one_of(st.lists(values(schema.get("items", {}), document, depth + 1), max_size=3), NASTY)
        case "object" if schema.get("properties") and depth < 4:
            members = {name: values(part, document, depth + 1) for name, part in schema["properties"].items()}
            required = {name: members.pop(name) for name in schema.get("required", ())}
            return st.one_of(st.fixed_dictionaries(required, optional=members), NASTY)
        case "object":
            return st.one_of(st.dictionaries(st.text(max_size=6), st.text(max_size=6), max_size=3), NASTY)
        case _:
            return st.one_of(st.sampled_from(["tiny", "nano", "vm", "container", "web", "zone-1"]), st.text(), NASTY)


def query_of(operation: dict[str, Any]) -> st.SearchStrategy[dict[str, str]]:
    names = [part["name"] for part in operation.get("parameters", ()) if part.get("in") == "query"]
    texts = st.one_of(
        st.text(max_size=20),
        st.sampled_from(
            ["1", "-1", "true", "name", "-created_at", "a=b", "!a", "a in (b,c)", "9" * 50, "\x00", "W10="]
        ),
    )
    return st.dictionaries(st.sampled_from([*names, "colour"]), texts, max_size=3)


@pytest.fixture(scope="module")
def web(shared_cloud: Cloud, shared_admin: Caller) -> str:
    made = make(shared_admin, name="web")
    settle(shared_cloud)
    return str(made["id"])


@settings(max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_nothing_that_a_client_sends_is_a_fault_of_the_server(
    shared_app: Flask, shared_cloud: Cloud, document: Any, web: str, data: st.DataObject
) -> None:
    operations = [
        (method, path, item[method])
        for path, item in sorted(document["paths"].items())
        for method in METHODS
        if method in item
    ]
    method, path, operation = data.draw(st.sampled_from(operations))
    names = st.one_of(st.sampled_from([web, "web", "tiny", "nano", "x"]), st.text(min_size=1, max_size=12))
    for part in path.split("/"):
        if part.startswith("{"):
            path = path.replace(part, quoted(data.draw(names)), 1)
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    body = data.draw(values(content["schema"], document)) if content else None
    response = shared_app.test_client().open(
        path,
        method=method.upper(),
        query_string=data.draw(query_of(operation)),
        data=None if body is None else json.dumps(body),
        headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
    )
    assert response.status_code < 500, (method, path, body, response.text)
    if response.status_code >= 400:
        assert response.mimetype == "application/problem+json"


def quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name.encode("utf-8", "surrogatepass"), safe="")


@settings(max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(body=st.binary(max_size=60), path=st.sampled_from(["/v1/instances", "/v1/key_pairs", "/v1/instances:batch"]))
def test_no_bytes_are_a_fault_of_the_server(shared_app: Flask, body: bytes, path: str) -> None:
    response = shared_app.test_client().post(
        path, data=body, headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    )
    assert 400 <= response.status_code < 500


def test_after_all_that_the_cloud_is_in_order(shared_cloud: Cloud, shared_admin: Caller) -> None:
    settle(shared_cloud)
    assert_consistent(shared_cloud)
    shape = {"kind": "vm", "image": "tiny", "vcpus": 1, "memory_mib": 64}  # the flavors may all be gone
    made = shared_admin.send("POST", "/v1/instances", {**shape, "name": "after"}, status=202)["instance"]
    settle(shared_cloud)
    assert shared_admin.get(f"/v1/instances/{made['id']}")["status"] == "running"
