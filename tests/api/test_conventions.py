"""What docs/api.md says of every collection and every answer."""

from __future__ import annotations

import base64

import pytest
from flask import Flask

from iaas.api.v1.errors import STATUS
from iaas.cloud import Cloud
from iaas.kernel import errors
from tests.api.calling import NEW, Caller, make
from tests.factories import TOKEN, operator, settle

COLLECTIONS = (
    "instances",
    "key_pairs",
    "flavors",
    "images",
    "zones",
    "hosts",
    "projects",
    "api_tokens",
    "access_keys",
    "jobs",
)


def walk(caller: Caller, collection: str, **query: object) -> list[str]:
    """Return the ids of all pages in order; every page but the last is full."""
    found: list[str] = []
    cursor: dict[str, object] = {}
    while True:
        page = caller.get(f"/v1/{collection}", **query, **cursor)
        assert page.keys() == {"items", "next_cursor"}
        found += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            return found
        assert len(page["items"]) == query["limit"]
        cursor = {"cursor": page["next_cursor"]}


@pytest.mark.parametrize("sort", ["created_at", "-created_at", "updated_at", "-name", "name"])
def test_pages_over_250_rows_with_equal_times(admin: Caller, cloud: Cloud, sort: str) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl x"
    for number in range(250):
        labels = {"n": str(number % 3)}
        cloud.key_pairs.create(operator(cloud), name=f"key {number:03}", public_key=key, labels=labels)
        if number % 100 == 99:
            cloud.clock.advance(0.001)
    whole = walk(admin, "key_pairs", limit=1000, sort=sort)
    assert len(set(whole)) == 250
    for limit in (1000, 250, 249, 17):
        assert walk(admin, "key_pairs", limit=limit, sort=sort) == whole
    opposite = sort.removeprefix("-") if sort.startswith("-") else f"-{sort}"
    assert walk(admin, "key_pairs", limit=100, sort=opposite) == whole[::-1]
    if sort == "created_at":
        assert len(walk(admin, "key_pairs", limit=7, label_selector="n=1")) == 83
        assert len(walk(admin, "key_pairs", limit=7, label_selector="n in (0,1),!x")) == 167
        assert len(walk(admin, "key_pairs", limit=7, name="key 017")) == 1


def test_the_default_order_is_the_newest_first(admin: Caller, cloud: Cloud) -> None:
    names = []
    for number in range(3):
        names.append(make(admin, name=f"n{number}")["name"])
        cloud.clock.advance(1)
    assert [item["name"] for item in admin.get("/v1/instances")["items"]] == names[::-1]


def test_rows_that_come_between_pages_disturb_nothing(admin: Caller) -> None:
    ids = [make(admin)["id"] for _ in range(5)]
    page = admin.get("/v1/instances", limit=2, sort="created_at")
    make(admin)
    later = admin.get("/v1/instances", limit=10, sort="created_at", cursor=page["next_cursor"])
    assert {item["id"] for item in page["items"] + later["items"]} >= set(ids)


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("app=web", {"a", "b"}),
        ("app!=web", {"c", "d"}),
        ("app", {"a", "b", "c"}),
        ("!app", {"d"}),
        ("app=web,tier=x", {"a"}),
        ("app in (db, web)", {"a", "b", "c"}),
        ("app notin (web)", {"c", "d"}),
        ("app=web,!tier", {"b"}),
        ("nothing=here", set()),
    ],
)
def test_label_selectors(admin: Caller, selector: str, names: set[str]) -> None:
    for name, labels in {
        "a": {"app": "web", "tier": "x"},
        "b": {"app": "web"},
        "c": {"app": "db", "tier": "x"},
        "d": {},
    }.items():
        make(admin, name=name, labels=labels)
    assert {item["name"] for item in admin.get("/v1/instances", label_selector=selector)["items"]} == names


def test_filters_of_instances(admin: Caller, cloud: Cloud) -> None:
    make(admin, name="a", kind="vm")
    settle(cloud)
    make(admin, name="b", zone="zone-2")
    for query, names in (
        ({"kind": "vm"}, ["a"]),
        ({"status": "running"}, ["a"]),
        ({"status": "pending"}, ["b"]),
        ({"zone": "zone-2"}, ["b"]),
        ({"name": "a"}, ["a"]),
        ({"name": "a", "kind": "container"}, []),
        ({"sort": "status"}, ["b", "a"]),
    ):
        assert [item["name"] for item in admin.get("/v1/instances", **query)["items"]] == names, query


def get_routes(app: Flask) -> list[str]:
    """Return a path for every GET route of the API, with something in place of each variable."""
    rules = [
        rule for rule in app.url_map.iter_rules() if "GET" in (rule.methods or ()) and rule.rule.startswith("/v1/")
    ]
    paths = {rule.rule for rule in rules if not rule.rule.startswith("/v1/docs")}
    return sorted("/".join("x" if part.startswith("<") else part for part in path.split("/")) for path in paths)


def test_every_get_refuses_unknown_parameters(app: Flask, admin: Caller) -> None:
    paths = [path for path in get_routes(app) if path != "/v1/openapi.json"]
    assert len(paths) > 20
    for path in paths:
        document = admin.refused("GET", path, status=422, code="invalid_input", query_string={"colour": "red"})
        message = "is not a query parameter of this call"
        assert document["detail"] == f"colour: {message}", path
        assert document["errors"] == [{"field": "colour", "code": "unknown", "message": message}], path
    both = admin.refused(
        "GET", "/v1/instances", status=422, code="invalid_input", query_string={"a": "1", "limit": "x"}
    )
    assert {error["field"]: error["code"] for error in both["errors"]} == {"a": "unknown", "limit": "mistyped"}
    in_a_body = admin.refused("POST", "/v1/projects", {"name": "x", "colour": 1}, status=422, code="invalid_input")
    assert in_a_body["detail"] == "colour: is not a field of this call"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"limit": "9" * 5000}, "limit"),
        ({"sort": "colour"}, "sort"),
        ({"sort": ""}, "sort"),
        ({"cursor": ""}, "cursor"),
        ({"cursor": "x"}, "cursor"),
        ({"cursor": "é"}, "cursor"),
        ({"cursor": "bm8="}, "cursor"),
    ],
)
def test_wrong_list_parameters(admin: Caller, query: dict[str, str], field: str) -> None:
    for collection in COLLECTIONS:
        document = admin.refused("GET", f"/v1/{collection}", status=422, code="invalid_input", query_string=query)
        assert document["errors"][0]["field"] == field, collection


def test_cursors_that_nobody_gave(admin: Caller) -> None:
    for content in (
        '["-created_at", "2026-01-01T00:00:00+00:00"]',
        '["-created_at", "2026-01-01T00:00:00", "i-00000000"]',
        '["-created_at", "0001-01-01T00:00:00+14:00", "i-00000000"]',
        '["-created_at", "9999-12-31T23:59:59-14:00", "i-00000000"]',
        '["-created_at", 5, "i-00000000"]',
        '["-created_at", "2026-01-01T00:00:00+00:00", 99999999999999999999999999]',
        '["-created_at", "2026-01-01T00:00:00+00:00", "\\ud800"]',
        '["-created_at", "2026-01-01T00:00:00+00:00", true]',
        '["created_at", "2026-01-01T00:00:00+00:00", "i-00000000"]',
        "[" * 900,
        "{}",
        "5",
    ):
        cursor = base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")[:1024]
        admin.refused("GET", "/v1/instances", status=422, code="invalid_input", query_string={"cursor": cursor})
    for content in (
        '["name", 99999999999999999999999999, "i-00000000"]',
        '["name", "\\udfff", "i-00000000"]',
        '["name", "a\\u0000", "i-00000000"]',
        '["name", 5, "i-00000000"]',
    ):
        cursor = base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")
        query = {"cursor": cursor, "sort": "name"}
        admin.refused("GET", "/v1/instances", status=422, code="invalid_input", query_string=query)
    cursor = base64.urlsafe_b64encode(b'["vcpus", 99999999999999999999999999, "flv-00000000"]').decode()
    query = {"cursor": cursor, "sort": "vcpus"}
    admin.refused("GET", "/v1/flavors", status=422, code="invalid_input", query_string=query)


@pytest.mark.parametrize("selector", ["=", "a=b=c d", ",", "a\x00", "x" * 5000, ",".join("a" * 500), "a in (b"])
def test_wrong_label_selectors(admin: Caller, selector: str) -> None:
    query = {"label_selector": selector}
    for collection in ("instances", "flavors"):
        document = admin.refused("GET", f"/v1/{collection}", status=422, code="invalid_input", query_string=query)
        assert document["errors"][0]["field"] == "label_selector"


def test_request_ids(admin: Caller) -> None:
    assert (
        admin.call("GET", "/v1/zones", headers={"X-Request-Id": "mine:1_2.3-4"}).headers["X-Request-Id"]
        == "mine:1_2.3-4"
    )
    for wrong in ("", "two words", "é", "x" * 65, "<script>"):
        answer = admin.call("GET", "/v1/zones", headers={"X-Request-Id": wrong})
        assert answer.headers["X-Request-Id"].startswith("req-")
    made = admin.call("POST", "/v1/instances", json=NEW, headers={"X-Request-Id": "mine"})
    events = admin.get("/v1/events", resource_id=made.json["instance"]["id"])["items"]
    assert {event["request_id"] for event in events} == {"mine"}


def test_the_request_id_of_a_create_is_on_all_its_events(admin: Caller, cloud: Cloud) -> None:
    made = admin.call("POST", "/v1/instances", json=NEW, headers={"X-Request-Id": "mine"})
    settle(cloud)
    events = admin.get("/v1/events", resource_id=made.json["instance"]["id"])["items"]
    assert [event["request_id"] for event in events] == ["mine"] * 3


@pytest.mark.parametrize("path", ["/v1/nothing", "/nothing", "/v1/instances/x/actions/fly", "/v1//instances", "/v2/x"])
def test_unknown_paths(admin: Caller, path: str) -> None:
    for method, body in (("GET", None), ("POST", {})):
        document = admin.refused(method, path, body, status=404, code="not_found")
        assert document["detail"] == f"there is nothing at {path}"


def test_a_long_unknown_path_is_not_repeated_as_a_whole(nobody: Caller) -> None:
    document = nobody.refused("GET", "/" + 5000 * "x", status=404, code="not_found")
    assert len(document["detail"]) < 300


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/instances", {"GET", "POST"}),
        ("DELETE", "/v1/zones/zone-1", {"GET", "PATCH"}),
        ("GET", "/v1/instances:batch", {"POST"}),
        ("GET", "/v1/instances/x/actions/stop", {"POST"}),
        ("POST", "/v1/capabilities", {"GET"}),
    ],
)
def test_methods_that_are_not_allowed(admin: Caller, method: str, path: str, allowed: set[str]) -> None:
    response = admin.call(method, path)
    assert response.status_code == 405
    assert response.json["code"] == "method_not_allowed"
    named = response.headers["Allow"].split(", ")
    assert allowed <= set(named)
    assert response.json["detail"] == f"{path} does not take {method}; it takes {', '.join(named)}"


def test_head_is_get_without_a_body(admin: Caller) -> None:
    for path in ("/v1/instances", "/v1/instances?limit=5&kind=vm", "/v1/zones/zone-1"):
        response = admin.call("HEAD", path)
        assert (response.status_code, response.data) == (200, b""), path
    assert admin.call("HEAD", "/v1/instances?colour=red").status_code == 422


def all_errors(base: type[errors.CloudError] = errors.CloudError) -> set[type[errors.CloudError]]:
    found = set(base.__subclasses__())
    return found.union(*(all_errors(each) for each in found))


def test_every_error_has_its_status() -> None:
    assert STATUS.keys() == all_errors()


@pytest.mark.parametrize("error", sorted(all_errors(), key=lambda each: each.__name__))
def test_every_error_is_shown_as_a_problem(
    app: Flask, admin: Caller, cloud: Cloud, error: type[errors.CloudError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object) -> None:
        raise error("what happened", detail="not for clients")

    monkeypatch.setattr(cloud.catalog, "get_zone", fail)
    response = app.test_client().get("/v1/zones/x", headers={"Authorization": f"Bearer {TOKEN}"})
    assert response.json is not None
    assert response.status_code == STATUS[error]
    assert response.json["code"] == error.code
    assert "not for clients" not in response.text


def test_a_fault_of_ours_says_nothing_of_the_inside(app: Flask, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object) -> None:
        raise LookupError("secret thing")

    monkeypatch.setattr(cloud.catalog, "get_zone", fail)
    response = app.test_client().get("/v1/zones/x", headers={"Authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 500
    assert response.mimetype == "application/problem+json"
    assert "secret thing" not in response.text
    assert response.json is not None
    assert response.json["request_id"] == response.headers["X-Request-Id"]


def test_the_server_says_who_it_is(nobody: Caller) -> None:
    assert nobody.call("GET", "/v1/health").headers["Server"].startswith("iaas/")
