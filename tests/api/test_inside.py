"""The tenant APIs as guests reach them: less of the application, and not more of it than a guest's share."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from flask import Flask
from werkzeug.datastructures import Headers
from werkzeug.test import Client, EnvironBuilder, TestResponse, run_wsgi_app

from iaas.api import access
from iaas.api.inside import tenant_api
from iaas.api.inside.rate_limits import RateLimit
from iaas.api.inside.servers import GuestServers
from iaas.api.inside.tenant_api import TenantAPI
from iaas.cloud import Cloud
from iaas.drivers.interface import SERVICE_ADDRESS
from iaas.kernel.log_scope import current_scope
from iaas.resources.common import Role
from tests.api.calling import NEW, check_problem
from tests.api.guest_places import make_vpc, put
from tests.factories import TOKEN, create, principal_in, settle, wait_for
from tests.unit.api.loopback_networks import LoopbackNetworks

VPC = "vpc-test0001"
ADDRESS = "10.0.0.5"


class Guest:
    """Asks from inside a VPC."""

    def __init__(self, api: TenantAPI, token: str | None, *, vpc_id: str = VPC, address: str = ADDRESS) -> None:
        self._client = Client(lambda environ, start_response: api(vpc_id, environ, start_response), TestResponse)
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._place = {"REMOTE_ADDR": address}

    def call(self, method: str, path: str, **request: Any) -> TestResponse:
        headers = {**self._headers, **request.pop("headers", {})}
        place: dict[str, Any] = {
            "environ_overrides": self._place,
            "buffered": True,
        }  # whole and closed, as a server would
        return self._client.open(path, method=method, headers=headers, **place, **request)

    def send(self, method: str, path: str, body: Any = None, *, status: int) -> Any:
        """Return the document of a call that must end in ``status``."""
        response = self.call(method, path, json=body)
        assert response.status_code == status, response.text
        return response.json

    def status(self, method: str, path: str, **request: Any) -> int:
        """Return the status of the answer; a refusal was checked for its form."""
        response = self.call(method, path, **request)
        if response.status_code >= 400 and method != "HEAD":
            check_problem(response)
        return response.status_code


@pytest.fixture
def api(app: Flask) -> TenantAPI:
    made = TenantAPI(app)
    made._guests = RateLimit(per_s=1000, burst=100_000)  # but for the tests that are about it
    made._vpcs = RateLimit(per_s=1000, burst=100_000)
    return made


@pytest.fixture
def member_token(cloud: Cloud) -> str:
    return principal_in(cloud, "team", Role.MEMBER)[1]


@pytest.fixture
def guest(api: TenantAPI, member_token: str) -> Guest:
    return Guest(api, member_token)


# -- what is there ------------------------------------------------------------------------------------------


def filled(rule: str) -> str:
    """Return a path of the rule."""
    return rule.replace("<path:path>", "x").replace("<", "").replace(">", "")


def all_routes(app: Flask) -> Iterator[tuple[str, str]]:
    yield from sorted(access.routes(app))


def test_only_what_asks_for_a_role_in_a_project_is_there(app: Flask, api: TenantAPI) -> None:
    """Every route of the application, whoever asks: as if it did not exist, or as it is."""
    hidden, seen = [], []
    for method, rule in all_routes(app):
        for token in (TOKEN, None):
            status = Guest(api, token).status(method, filled(rule), json={} if method != "GET" else None)
            if access.declared(method, rule) in (Role.READER, Role.MEMBER):
                seen.append(rule)
                assert status != 401 if token else status == 401, (method, rule, token)
            else:
                hidden.append(rule)
                assert status in (404, 405), (method, rule, token)
                others = [access.declared(other, rule) for other in access.ROUTES[rule]]
                is_partly_seen = Role.READER in others or Role.MEMBER in others
                assert status == (405 if is_partly_seen else 404), (method, rule, token)
    assert {"/metrics", "/v1/doctor", "/v1/hosts", "/v1/health", "/v1/openapi.json", "/"} <= set(hidden)
    assert {"/v1/instances", "/v1/jobs/<job_id>", "/v1/events"} <= set(seen)


def answer_of(guest: Guest, method: str, path: str) -> Any:
    """Return the answer, but for its naming the path that was asked for."""
    response = guest.call(method, path, headers={"X-Request-Id": "same"})
    document = response.json
    if isinstance(document, dict) and "detail" in document:
        document["detail"] = document["detail"].removesuffix(path)
    return response.status_code, document, sorted(response.headers.keys())


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS", "BREW"])
def test_hidden_and_absent_cannot_be_told_apart(api: TenantAPI, member_token: str, method: str) -> None:
    for token in (TOKEN, member_token, None, "wrong"):
        guest = Guest(api, token)
        absent = answer_of(guest, method, "/v1/no_such_thing")
        assert absent[0] == 404
        for hidden in ("/v1/hosts", "/v1/hosts/x", "/v1/doctor", "/metrics", "/v1/health", "/v1/docs/", "/", "/lab"):
            assert answer_of(guest, method, hidden) == absent, hidden


def test_methods_for_operators_are_not_named(guest: Guest) -> None:
    for method in ("OPTIONS", "PATCH", "BREW"):
        response = guest.call(method, "/v1/zones/zone-1")
        assert response.headers["Allow"] == "GET, HEAD, OPTIONS", method
    assert guest.status("PATCH", "/v1/zones/zone-1", json={}) == 405


def test_the_door_outside_is_as_it_was(app: Flask, admin: Any, nobody: Any) -> None:
    assert admin.call("GET", "/v1/hosts").status_code == 200
    assert nobody.call("GET", "/v1/health").status_code == 200
    assert "PATCH" in admin.call("OPTIONS", "/v1/zones/zone-1").headers["Allow"]
    assert app.test_client().get("/v1/health", headers={tenant_api.INSIDE: "x", "Iaas-Inside": "x"}).status_code == 200


# -- who one is there ---------------------------------------------------------------------------------------


def test_a_guest_works_with_its_own_credential(cloud: Cloud, guest: Guest) -> None:
    made = guest.send("POST", "/v1/instances", NEW, status=202)
    settle(cloud)
    path = f"/v1/instances/{made['instance']['id']}"
    assert guest.send("GET", path, status=200)["status"] == "running"
    assert guest.status("GET", f"/v1/jobs/{made['job']['id']}?wait=1") == 200
    assert guest.status("HEAD", "/v1/instances") == 200
    assert guest.status("DELETE", path) == 202


def test_the_place_gives_no_rights(cloud: Cloud, api: TenantAPI) -> None:
    web = create(cloud)
    put(cloud, web, make_vpc(cloud, 1, cidr="10.0.0.0/16"), ADDRESS)
    assert Guest(api, None).status("GET", f"/v1/instances/{web.id}") == 401
    stranger = principal_in(cloud, "others")[1]
    assert Guest(api, stranger).status("GET", f"/v1/instances/{web.id}") == 404


def test_an_operator_is_a_member_inside(cloud: Cloud, api: TenantAPI, admin: Any) -> None:
    guest = Guest(api, TOKEN)
    assert guest.status("POST", "/v1/api_tokens", json={"name": "ops", "role": "admin"}) == 403
    assert guest.send("POST", "/v1/api_tokens", {"name": "own"}, status=201)["role"] == "member"
    assert guest.status("POST", "/v1/instances", json={**NEW, "placement": {"host": "host-1"}}) == 403
    admin.send("POST", "/v1/projects", {"name": "elsewhere"}, status=201)
    assert guest.status("GET", "/v1/projects/elsewhere") == 404
    events = guest.send("GET", "/v1/events?limit=1000", status=200)["items"]
    assert events
    assert None not in {event["project_id"] for event in events}


def test_a_reader_stays_a_reader(cloud: Cloud, api: TenantAPI) -> None:
    guest = Guest(api, principal_in(cloud, "team", Role.READER)[1])
    assert guest.status("GET", "/v1/instances") == 200
    assert guest.status("POST", "/v1/instances", json=NEW) == 403


# -- how much -----------------------------------------------------------------------------------------------


def test_each_guest_has_its_own_rate(api: TenantAPI, member_token: str) -> None:
    api._guests = RateLimit(per_s=0.5, burst=2, now_s=lambda: 0.0)
    guest = Guest(api, member_token)
    assert [guest.status("GET", "/v1/instances") for _ in range(3)] == [200, 200, 429]
    assert guest.call("GET", "/v1/no_such_thing").headers["Retry-After"] == "2"
    assert guest.send("GET", "/v1/no_such_thing", status=429)["code"] == "rate_limited"
    assert Guest(api, member_token, address="10.0.0.6").status("GET", "/v1/instances") == 200
    assert Guest(api, member_token, vpc_id="vpc-test0002").status("GET", "/v1/instances") == 200


def test_many_addresses_of_one_vpc_share_a_rate(api: TenantAPI, member_token: str) -> None:
    api._vpcs = RateLimit(per_s=0.5, burst=3, now_s=lambda: 0.0)
    guests = [Guest(api, member_token, address=f"10.0.0.{last}") for last in range(5, 9)]
    assert [guest.status("GET", "/v1/instances") for guest in guests] == [200, 200, 200, 429]
    assert Guest(api, member_token, vpc_id="vpc-test0002").status("GET", "/v1/instances") == 200


class Stream:
    """An event stream that a guest has opened and does not close."""

    def __init__(self, api: TenantAPI, token: str, *, vpc_id: str = VPC, address: str = ADDRESS) -> None:
        headers = Headers({"Accept": "text/event-stream", "Authorization": f"Bearer {token}"})
        environ = EnvironBuilder("/v1/events", headers=headers).get_environ()
        environ["REMOTE_ADDR"] = address
        body, status, self.headers = run_wsgi_app(
            lambda environ, start_response: api(vpc_id, environ, start_response), environ
        )
        self.body: Any = body
        self.status = int(status[:3])


def test_streams_and_waits_leave_threads_for_others(api: TenantAPI, member_token: str) -> None:
    with ExitStack() as stack:

        def follow(address: str, vpc_id: str = VPC) -> int:
            opened = Stream(api, member_token, address=address, vpc_id=vpc_id)
            stack.callback(opened.body.close)
            if opened.status == 200:
                assert next(opened.body).startswith(b"retry:")
            else:
                assert opened.headers["Retry-After"] == str(tenant_api.SLOW_RETRY_AFTER_S)
            return opened.status

        assert [follow(ADDRESS) for _ in range(3)] == [200, 200, 429], "two for a guest"
        assert [follow(f"10.0.1.{last}") for last in range(3)] == [200, 200, 429], "four for a VPC"
        more = [(f"10.0.2.{nth}", f"vpc-more{nth // 4}") for nth in range(13)]
        assert [follow(*each) for each in more] == [200] * 12 + [429], "sixteen for all"
        assert Guest(api, member_token).status("GET", "/v1/instances") == 200
        assert Guest(api, member_token).status("GET", "/v1/events") == 200, "a page is no stream"
    assert Stream(api, member_token).status == 200, "places come back"


def test_a_place_comes_back_when_the_request_is_refused(api: TenantAPI) -> None:
    for _ in range(3 * tenant_api.MAX_SLOW):
        refused = Stream(api, "wrong")
        refused.body.close()
        assert refused.status == 401


def test_a_place_comes_back_when_the_application_breaks(app: Flask, api: TenantAPI, member_token: str) -> None:
    def broken(environ: Any, start_response: Any) -> Any:
        raise RuntimeError("broken")

    whole, api._app = api._app, broken
    for _ in range(3 * tenant_api.MAX_SLOW):
        with pytest.raises(RuntimeError, match="broken"):
            Stream(api, member_token)
    api._app = whole
    assert Stream(api, member_token).status == 200


def test_a_long_poll_without_a_place_is_answered_at_once(
    cloud: Cloud, api: TenantAPI, guest: Guest, member_token: str
) -> None:
    made = guest.send("POST", "/v1/instances", NEW, status=202)
    with ExitStack() as stack:
        for _ in range(tenant_api.MAX_SLOW_PER_GUEST):
            stack.callback(Stream(api, member_token).body.close)
        # The cloud's time stands and nobody works: a request that waited would not end within this test.
        assert guest.send("GET", f"/v1/jobs/{made['job']['id']}?wait=60", status=200)["status"] == "queued"


def test_exec_without_a_place_is_refused(cloud: Cloud, api: TenantAPI, guest: Guest, member_token: str) -> None:
    made = guest.send("POST", "/v1/instances", NEW, status=202)["instance"]
    settle(cloud)
    path = f"/v1/instances/{made['id']}/actions/exec"
    with ExitStack() as stack:
        for _ in range(tenant_api.MAX_SLOW_PER_GUEST):
            stack.callback(Stream(api, member_token).body.close)
        assert guest.status("POST", path, json={"command": ["true"]}) == 429
    assert guest.status("POST", path, json={"command": ["true"]}) == 200


def test_a_stream_by_the_wire_tells_at_once_and_ends_with_its_client(
    cloud: Cloud, api: TenantAPI, guest: Guest, member_token: str
) -> None:
    driver, servers = LoopbackNetworks(), GuestServers()
    servers.connect_api(api)
    servers.serve(VPC, driver)
    head = ["GET /v1/events HTTP/1.1", "Host: x", "Accept: text/event-stream", f"Authorization: Bearer {member_token}"]
    try:
        address = ("127.0.0.1", driver.port_of(VPC, SERVICE_ADDRESS))
        with socket.create_connection(address, timeout=20) as follower, follower.makefile("rb") as lines:
            follower.sendall("\r\n".join([*head, "", ""]).encode())
            assert next(line for line in lines if line.startswith(b"retry:"))
            made = guest.send("POST", "/v1/instances", NEW, status=202)["instance"]["id"].encode()
            assert next(line for line in lines if line.startswith(b"data:") and made in line)
            assert api._slow._all == 1

        def is_noticed() -> bool:
            guest.send("POST", "/v1/key_pairs", {"name": f"key-{next(numbers)}"}, status=201)  # something to tell
            return api._slow._all == 0

        numbers = itertools.count()
        wait_for(is_noticed, what="the follower's end to be noticed")
    finally:
        servers.close()


# -- the log ------------------------------------------------------------------------------------------------


def test_the_log_names_vpc_and_nic(cloud: Cloud, api: TenantAPI, member_token: str, app: Flask) -> None:
    web = create(cloud)
    put(cloud, web, make_vpc(cloud, 1, cidr="10.0.0.0/16"), ADDRESS)
    scopes: list[dict[str, Any]] = []
    app.after_request(lambda response: scopes.append(dict(current_scope())) or response)  # type: ignore[func-returns-value]  # append() returns None
    for token, address in ((member_token, ADDRESS), (None, ADDRESS), (member_token, "10.0.0.99")):
        Guest(api, token, address=address).call("GET", "/v1/instances")
    app.test_client().get("/v1/instances")
    places = [{name: scope.get(name, "-") for name in ("vpc_id", "nic_id", "address")} for scope in scopes]
    known = {"vpc_id": VPC, "nic_id": web.nics[0].id, "address": ADDRESS}
    assert places == [
        known,
        known,
        {"vpc_id": VPC, "nic_id": None, "address": "10.0.0.99"},
        {"vpc_id": "-", "nic_id": "-", "address": "-"},
    ]
