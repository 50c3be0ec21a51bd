"""The OpenAPI document is valid, and nothing that is made from it brings the server to fall."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

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


def test_every_post_takes_an_idempotency_key_and_no_other_does(document: Any) -> None:
    for method, path, operation in operations(document):
        assert ("Idempotency-Key" in headers(operation, document)) == (method == "post"), path
        if method == "post":
            assert {"409", "422"} <= operation["responses"].keys()


NEEDED: Mapping[str, Any] = {"resize": {"flavor": "x"}, "exec": {"command": ["x"]}, "attach": {"instance": "x"}}


def test_if_match_is_declared_where_it_counts(document: Any, shared_admin: Caller) -> None:
    for method, path, operation in operations(document):
        is_declared = "If-Match" in headers(operation, document)
        assert ("412" in operation["responses"]) == is_declared
        body = NEEDED.get(path.rpartition("/")[2], {})
        answer = shared_admin.call(
            method.upper(),
            "/".join("x" if part.startswith("{") else part for part in path.split("/")),
            headers={"If-Match": "nonsense"},
            **({"json": body} if method in ("post", "put", "patch") else {}),
        )
        assert (answer.status_code == 412) == is_declared, (method, path, answer.text)


def test_every_answer_has_a_request_id_and_every_refusal_is_a_problem(document: Any) -> None:
    for method, path, operation in operations(document):
        for status, response in operation["responses"].items():
            found = resolved(response, document)
            assert "X-Request-Id" in found["headers"], (method, path, status)
            if status >= "4":
                assert found["content"].keys() == {"application/problem+json"}


def test_links_lead_to_every_operation_on_one_resource(document: Any) -> None:
    by_id = {operation["operationId"]: (path, operation) for _, path, operation in operations(document)}
    assert len(by_id) == len(list(operations(document)))
    reached = set()
    for _, _, operation in operations(document):
        for response in operation["responses"].values():
            for link in response.get("links", {}).values():
                path, _ = by_id[link["operationId"]]
                assert all("{" + name + "}" in path for name in link["parameters"])
                reached.add(link["operationId"])
    assert reached == {name for name, (path, _) in by_id.items() if "{" in path}


def operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield method, path, item[method]


def resolved(part: Any, document: Any) -> Any:
    while "$ref" in part:
        _, _, kind, name = part["$ref"].split("/")
        part = document["components"][kind][name]
    return part


def headers(operation: Any, document: Any) -> set[str]:
    parts = [resolved(part, document) for part in operation["parameters"]]
    return {part["name"] for part in parts if part["in"] == "header"}


# -- what schemathesis does not make: text that is none, bytes that are no JSON ----------------------------------

UNSTORABLE = ("\x00", "a\x00b", "\ud800", "\udc00\ud800")


def filled(schema: Any, document: Any, text: str) -> Any:
    """Return a value of the schema's shape with ``text`` for every text in it."""
    schema = resolved(schema, document)
    match schema.get("type"):
        case "integer":
            return schema.get("minimum", 1)
        case "boolean":
            return False
        case "array":
            return [filled(schema["items"], document, text)]
        case "object" if schema.get("properties"):
            return {name: filled(part, document, text) for name, part in schema["properties"].items()}
        case "object":
            return {"a": text}
        case _:
            return text


@pytest.mark.parametrize("text", UNSTORABLE)
def test_text_that_no_database_holds_is_refused_everywhere(document: Any, shared_admin: Caller, text: str) -> None:
    escaped = quote(text.encode("utf-8", "surrogatepass"), safe="")
    for method, path, operation in operations(document):
        parameters = [resolved(part, document) for part in operation["parameters"]]
        queries = [part["name"] for part in parameters if part["in"] == "query" and part["schema"]["type"] == "string"]
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        body = json.dumps(filled(content["schema"], document, text)) if content else None
        plain, nasty = (re.sub(r"\{\w+\}", name, path) for name in ("x", escaped))
        wanted: list[tuple[str, str | None]] = [(f"{plain}?{name}={escaped}", body) for name in queries]
        if nasty != plain:
            wanted.append((nasty, body))
        if body is not None and json.dumps(text)[1:-1] in body:
            wanted.append((plain, body))
        for url, sent in wanted:
            more = {} if sent is None else {"data": sent, "headers": {"Content-Type": "application/json"}}
            answer = shared_admin.call(method.upper(), url, **more)
            # What an address has instead of half a surrogate pair is a replacement character: text as any other.
            assert answer.status_code < 500, (method, url, sent, answer.text)
            assert answer.status_code >= 400 or url != plain, (method, url, sent, answer.text)


@settings(max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(body=st.binary(max_size=60), path=st.sampled_from(["/v1/instances", "/v1/key_pairs", "/v1/instances:batch"]))
def test_no_bytes_are_a_fault_of_the_server(shared_app: Flask, body: bytes, path: str) -> None:
    response = shared_app.test_client().post(
        path, data=body, headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    )
    assert 400 <= response.status_code < 500


def test_after_all_that_the_cloud_is_in_order(shared_cloud: Cloud, shared_admin: Caller) -> None:
    make(shared_admin, name="after")
    settle(shared_cloud)
    assert_consistent(shared_cloud)
    assert shared_admin.get("/v1/instances/after")["status"] == "running"
