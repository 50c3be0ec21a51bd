"""How the tests call the API: JSON in, and every refusal is held to the form of a problem document."""

from __future__ import annotations

from typing import Any

from flask import Flask
from werkzeug.test import TestResponse

from iaas.cloud import Cloud
from tests.factories import settle

PROBLEM_MEMBERS = {
    "type",
    "title",
    "status",
    "detail",
    "code",
    "errors",
    "resource",
    "blockers",
    "retryable",
    "request_id",
}


class Caller:
    """Somebody with a token (or none).

    Args:
        app: the application.
        token: goes into the Authorization header; no header when None.
    """

    def __init__(self, app: Flask, token: str | None) -> None:
        self._client = app.test_client()
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def call(self, method: str, path: str, **request: Any) -> TestResponse:
        """Return the answer; a refusal was checked for its form."""
        headers = {**self._headers, **request.pop("headers", {})}
        response = self._client.open(path, method=method, headers=headers, **request)
        if response.status_code >= 400 and method != "HEAD":
            check_problem(response)
        return response

    def get(self, path: str, **query: Any) -> Any:
        """Return the document of a GET that must succeed."""
        response = self.call("GET", path, query_string=query)
        assert response.status_code == 200, response.text
        return response.json

    def send(self, method: str, path: str, body: Any = None, *, status: int, **request: Any) -> Any:
        """Return the document of a call that must end in ``status``."""
        if body is not None:
            request["json"] = body
        response = self.call(method, path, **request)
        assert response.status_code == status, response.text
        return response.json if response.data else None

    def refused(self, method: str, path: str, body: Any = None, *, status: int, code: str, **request: Any) -> Any:
        """Return the problem document of a call that must be refused with this code."""
        document = self.send(method, path, body, status=status, **request)
        assert document["code"] == code, document
        return document


def check_problem(response: TestResponse) -> None:
    """Hold a refusal to RFC 9457 and to docs/api.md."""
    assert response.mimetype == "application/problem+json", response.text
    document = response.json
    assert isinstance(document, dict)
    assert document.keys() == PROBLEM_MEMBERS
    assert document["status"] == response.status_code < 500 or response.status_code == 503, response.text
    assert document["code"]
    assert document["detail"]
    assert document["type"].endswith(document["code"])
    assert isinstance(document["retryable"], bool)
    assert document["request_id"] == response.headers["X-Request-Id"]
    for error in document["errors"]:
        assert error.keys() == {"field", "code", "message"}
        assert error["code"]
        assert error["message"]
    for name in ("resource", "blockers"):
        for each in document[name] if name == "blockers" else [document[name]] if document[name] else []:
            assert each.keys() == {"type", "id"}
    if response.status_code in (429, 503):
        assert int(response.headers["Retry-After"]) > 0
    if response.status_code == 401:
        assert response.headers["WWW-Authenticate"].startswith("Bearer")


NEW = {"kind": "container", "image": "tiny", "flavor": "nano"}


def make_vpc(caller: Caller, cloud: Cloud, name: str = "shop", cidr: str = "10.0.0.0/16") -> Any:
    """Create a VPC and return its document once it is active."""
    caller.send("POST", "/v1/vpcs", {"name": name, "cidr": cidr}, status=202)
    settle(cloud)
    return caller.get(f"/v1/vpcs/{name}")


def make_subnet(caller: Caller, cloud: Cloud, name: str = "tier", **changes: Any) -> Any:
    """Create a subnet (of the VPC "shop" with 10.0.1.0/24 when nothing else is said) and return its document."""
    body = {"name": name, "vpc": "shop", "cidr": "10.0.1.0/24", **changes}
    caller.send("POST", "/v1/subnets", {key: value for key, value in body.items() if value is not None}, status=202)
    settle(cloud)
    return caller.get(f"/v1/subnets/{name}")


def make_nic(caller: Caller, name: str = "nic", **changes: Any) -> Any:
    """Create a NIC on the subnet "tier" and return its document."""
    return caller.send("POST", "/v1/nics", {"name": name, "subnet": "tier", **changes}, status=201)


def make(caller: Caller, **changes: Any) -> Any:
    """Create an instance and return its document as accepted."""
    return caller.send("POST", "/v1/instances", {**NEW, **changes}, status=202)["instance"]
