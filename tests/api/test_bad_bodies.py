"""Bodies that are wrong as a whole: not JSON, not UTF-8, too large, too deep."""

from __future__ import annotations

import json

import pytest

from iaas.api.requests import MAX_BODY_BYTES
from tests.api.calling import NEW, Caller

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"{",
        b"[]",
        b"5",
        b"null",
        b'"text"',
        b"true",
        b"{} {}",
        b'{"name": "\xff"}',
        b"\xef\xbb\xbf{}",
        '{"name": "é"}'.encode("latin-1"),
        '{"kind": "vm"}'.encode("utf-16"),
        b'{"vcpus": NaN}',
        b'{"vcpus": Infinity}',
        b'{"vcpus": -Infinity}',
        b'{"name": "a", "name": "a"}',
        b'{"labels": {"a": "b", "a": "c"}}',
        b'{"a": ' + b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"labels": ' + b'{"a": ' * 40 + b"1" + b"}" * 41,
        b'{"vcpus": ' + b"9" * 5000 + b"}",
        b"{'kind': 'vm'}",
        b'{"name": "tab\there"}',
        b"\x00",
    ],
)
def test_bodies_that_are_malformed(admin: Caller, body: bytes) -> None:
    for path in ("/v1/instances", "/v1/projects", "/v1/instances/x/actions/stop"):
        document = admin.refused("POST", path, status=400, code="malformed", data=body, headers=JSON)
        assert len(document["detail"]) < 300


@pytest.mark.parametrize("text", ["a\x00b", "\ud800", "\udc00\ud800"])
@pytest.mark.parametrize(
    ("body", "field"),
    [
        (lambda text: {**NEW, "name": text}, "name"),
        (lambda text: {**NEW, "user_data": text}, "user_data"),
        (lambda text: {**NEW, "image": text}, "image"),
        (lambda text: {**NEW, "labels": {"a": text}}, "labels.a"),
        (lambda text: {**NEW, "key_pairs": ["x", text]}, "key_pairs.1"),
        (lambda text: {**NEW, text: "x"}, "(member name)"),
        (lambda text: {**NEW, "labels": {text: "x"}}, "labels"),
    ],
)
def test_text_that_no_database_holds(admin: Caller, text: str, body: object, field: str) -> None:
    data = json.dumps(body(text))  # type: ignore[operator]  # a lambda, which parametrize has as an object
    document = admin.refused("POST", "/v1/instances", status=422, code="invalid_input", data=data, headers=JSON)
    assert [(error["field"], error["code"]) for error in document["errors"]] == [(field, "invalid_character")]


def test_surrogate_pairs_are_characters(admin: Caller) -> None:
    data = json.dumps({"name": "smile 😀"})
    assert "\\ud83d" in data
    assert admin.send("POST", "/v1/key_pairs", status=201, data=data, headers=JSON)["name"] == "smile 😀"


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "json"]
)
def test_other_content_types(admin: Caller, content_type: str) -> None:
    for path in ("/v1/instances", "/v1/instances/x/actions/start"):
        admin.refused(
            "POST",
            path,
            status=415,
            code="unsupported_media_type",
            data=json.dumps(NEW),
            headers={"Content-Type": content_type},
        )


def test_a_charset_is_no_other_content_type(admin: Caller) -> None:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    admin.send("POST", "/v1/instances", status=202, data=json.dumps(NEW), headers=headers)


def test_a_huge_body(admin: Caller) -> None:
    body = b'{"user_data": "' + b"x" * MAX_BODY_BYTES + b'"}'
    admin.refused("POST", "/v1/instances", status=413, code="payload_too_large", data=body, headers=JSON)


def test_a_body_that_is_just_not_too_large(admin: Caller) -> None:
    body = b'{"user_data": "' + b"x" * (MAX_BODY_BYTES - 17) + b'"}'
    assert len(body) == MAX_BODY_BYTES
    admin.refused("POST", "/v1/instances", status=422, code="invalid_input", data=body, headers=JSON)


def test_an_absent_body_counts_as_empty(admin: Caller) -> None:
    document = admin.refused("POST", "/v1/instances", status=422, code="invalid_input")
    assert {(error["field"], error["code"]) for error in document["errors"]} == {
        ("kind", "required"),
        ("image", "required"),
    }
    admin.refused("POST", "/v1/instances/x/actions/start", status=404, code="not_found")
