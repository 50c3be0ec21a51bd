"""Server-sent events: the protocol, its refusals, and the whole server with clients that vanish."""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from flask import Flask

from iaas.api.v1 import events
from iaas.client import Client
from iaas.cloud import Cloud
from iaas.resources.common import Role
from tests.api.calling import Caller, make
from tests.factories import principal_in, settle, wait_for
from tests.server_process import ServerProcess

STREAM = {"Accept": "text/event-stream"}
BIN = Path(sys.executable).parent


def chunks(caller: Caller, path: str = "/v1/events", **headers: str) -> Iterator[str]:
    """Yield the parts of a stream as they are sent; closing the generator hangs up."""
    response = caller.call("GET", path, headers={**STREAM, **headers}, buffered=False)
    assert (response.status_code, response.mimetype) == (200, "text/event-stream")
    assert response.headers["Cache-Control"] == "no-store"
    try:
        for part in response.iter_encoded():
            yield part.decode()
    finally:
        response.close()


def told(part: str) -> list[dict[str, Any]]:
    """Return the events of one part; each frame's id is the event's."""
    found = []
    for frame in part.strip().split("\n\n"):
        first, second = frame.split("\n")
        document = json.loads(second.removeprefix("data: "))
        assert first == f"id: {document['id']}"
        found.append(document)
    return found


def test_a_stream_tells_what_a_page_tells(admin: Caller, cloud: Cloud) -> None:
    make(admin)
    settle(cloud)
    parts = chunks(admin)
    assert next(parts) == "retry: 2000\n\n"
    page = admin.get("/v1/events")["items"]
    assert told(next(parts)) == page
    make(admin)
    assert [event["type"] for event in told(next(parts))] == ["instance.creating"]
    parts.close()
    assert cloud.wait_slots.used["stream"] == 0


def test_last_event_id_resumes_and_goes_before_after(admin: Caller, cloud: Cloud) -> None:
    make(admin)
    settle(cloud)
    page = admin.get("/v1/events")["items"]
    for path, headers in (
        (f"/v1/events?after={page[0]['id']}", {}),
        ("/v1/events?after=0", {"Last-Event-ID": page[0]["id"]}),
    ):
        parts = chunks(admin, path, **headers)
        assert [*itertools.islice(parts, 1, 2)] == ["".join(_frames(page[1:]))]
        parts.close()


def _frames(page: list[dict[str, Any]]) -> Iterator[str]:
    for event in page:
        yield f"id: {event['id']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n"


def test_filters_choose_in_pages_and_streams(admin: Caller, cloud: Cloud) -> None:
    make(admin)
    mine = make(admin)["id"]
    settle(cloud)
    filters = {"resource_id": mine, "resource_type": "instance", "type_prefix": "instance.creat"}
    page = admin.get("/v1/events", **filters)["items"]
    assert [event["type"] for event in page] == ["instance.creating", "instance.created"]
    parts = chunks(admin, "/v1/events?" + urlencode(filters))
    assert told([*itertools.islice(parts, 2)][1]) == page
    parts.close()
    assert admin.get("/v1/events", resource_type="volume")["items"] == []


def test_every_admin_and_nobody_else_hears_of_hosts(admin: Caller, member: Caller, app: Flask, cloud: Cloud) -> None:
    second_admin = Caller(app, principal_in(cloud, "second", Role.ADMIN)[1])
    host = admin.get("/v1/hosts")["items"][0]
    path = f"/v1/hosts/{host['id']}"
    admin.send("PATCH", path, {"status": "draining"}, status=200)
    admin.send("PATCH", path, {"status": "draining", "labels": {"a": "b"}}, status=200)
    make(second_admin)
    settle(cloud)
    admin.send("PATCH", path, {"status": "up"}, status=200)
    filters = {"resource_type": "host", "type_prefix": "host."}
    page = second_admin.get("/v1/events", **filters)["items"]
    assert [(each["type"], each["resource"]["id"], each["project_id"]) for each in page] == [
        ("host.draining", host["id"], None),
        ("host.updated", host["id"], None),
        ("host.up", host["id"], None),
    ]
    assert page[0]["data"] == {"name": host["name"], "was": "up", "status": "draining", "reason": "admin"}
    parts = chunks(second_admin, "/v1/events?" + urlencode(filters))
    assert told([*itertools.islice(parts, 2)][1]) == page
    parts.close()
    everything = second_admin.get("/v1/events")["items"]
    ids = [int(each["id"]) for each in everything]
    assert ids == sorted(ids)
    assert {each["resource"]["type"] for each in everything} >= {"host", "instance"}
    walked, after = [], "0"
    while after is not None:  # in pages of one the two kinds still come in order, each once
        found = second_admin.get("/v1/events", after=after, limit=1)
        walked += found["items"]
        after = found["next_cursor"]
    assert walked == everything
    assert member.get("/v1/events", **filters)["items"] == []


def test_an_idle_stream_has_a_heartbeat(admin: Caller, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.05)
    parts = chunks(admin, "/v1/events?type_prefix=none")
    assert [*itertools.islice(parts, 3)] == ["retry: 2000\n\n", ": nothing new\n\n", ": nothing new\n\n"]
    parts.close()


def test_json_is_the_answer_unless_a_stream_is_asked_for(admin: Caller) -> None:
    for accept in ("*/*", "application/json", "text/html", "application/json, text/event-stream;q=0.5"):
        assert admin.call("GET", "/v1/events", headers={"Accept": accept}).mimetype == "application/json"
    assert admin.call("HEAD", "/v1/events", headers=STREAM).status_code == 200


def test_refusals(admin: Caller, nobody: Caller, cloud: Cloud) -> None:
    def refused(caller: Caller, path: str, status: int, code: str, **headers: str) -> Any:
        return caller.refused("GET", path, status=status, code=code, headers={**STREAM, **headers})

    refused(nobody, "/v1/events", 401, "unauthenticated")
    refused(admin, "/v1/events?after=x", 422, "invalid_input")
    refused(admin, "/v1/events?nothing=1", 422, "invalid_input")
    problem = refused(admin, "/v1/events", 422, "invalid_input", **{"Last-Event-ID": "1; drop"})
    assert problem["errors"][0]["field"] == "Last-Event-ID"
    make(admin)
    settle(cloud)
    make(admin)
    cloud.clock.advance(cloud.config.event_retention.age_s + 1)
    cloud.events.purge()
    refused(admin, "/v1/events?after=1", 410, "events_expired")
    admin.refused("GET", "/v1/events?after=1", status=410, code="events_expired")
    assert admin.get("/v1/events") == {"items": [], "next_cursor": None}


def test_an_id_that_no_event_has_yet_is_refused(admin: Caller, member: Caller, cloud: Cloud) -> None:
    make(admin)
    settle(cloud)
    last = int(admin.get("/v1/events")["items"][-1]["id"])
    for purged in (False, True):
        for caller in (admin, member):
            assert caller.get("/v1/events", after=last)["items"] == []
            next(chunks(caller, **{"Last-Event-ID": str(last)}))
            for path, headers in (
                (f"/v1/events?after={last + 1}", {}),
                (f"/v1/events?after={last + 1}", STREAM),
                ("/v1/events", {**STREAM, "Last-Event-ID": str(last + 1)}),
            ):
                problem = caller.refused("GET", path, status=410, code="events_expired", headers=headers)
                assert problem["detail"].startswith(f"this server has no event {last + 1} yet"), purged
        cloud.clock.advance(cloud.config.event_retention.age_s + 1)
        cloud.events.purge()


def test_beyond_the_bound_the_answer_is_429_at_once(admin: Caller, cloud: Cloud) -> None:
    taken = []
    while (flag := cloud.event_feed.subscribe()) is not None:
        taken.append(flag)
    began_at_s = time.monotonic()
    admin.refused("GET", "/v1/events", status=429, code="rate_limited", headers=STREAM)
    assert time.monotonic() - began_at_s < 2
    for flag in taken:
        cloud.event_feed.leave(flag)


# -- the whole server -----------------------------------------------------------------------------------------


def test_streams_over_the_server(tmp_path: Path) -> None:
    """At once and unbuffered to followers, also beside one that reads nothing; ended by the server's stop."""
    credentials = tmp_path / "state" / "credentials.json"
    with ExitStack() as stack:
        running = stack.enter_context(ExitStack())
        running.enter_context(ServerProcess(BIN / "iaas", tmp_path / "state"))
        client = stack.enter_context(Client(credentials_file=credentials))
        follower = stack.enter_context(Client(credentials_file=credentials))
        sleeper = follower.transport.stream_lines("/v1/events", accept="text/event-stream", silence_s=60)
        next(sleeper)
        heard: list[tuple[float, str]] = []

        def listen() -> None:
            for event in itertools.islice(follower.events.follow(type_prefix="instance.creat"), 2):
                heard.append((time.monotonic(), event.type))

        thread = threading.Thread(target=listen)
        thread.start()
        began_at_s = time.monotonic()
        client.instances.create(kind="vm", image="tiny", flavor="nano").wait()
        wait_for(lambda: len(heard) == 2, what="both events")
        thread.join(5)
        assert [kind for _, kind in heard] == ["instance.creating", "instance.created"]
        assert heard[0][0] - began_at_s < 1
        stopped_at_s = time.monotonic()
        running.close()
        assert time.monotonic() - stopped_at_s < 10
        assert [*sleeper][-1] == "", "the stream ended as a whole"


def test_every_write_of_the_api_tells_an_event(admin: Caller) -> None:
    """Resources without jobs: one event for each create, change and delete, named after it."""
    shape = {"vcpus": 1, "memory_mib": 64, "root_disk_gib": 1}
    bodies: dict[str, dict[str, Any]] = {
        "key_pairs": {"name": "k"},
        "flavors": {"name": "odd", **shape},
        "projects": {"name": "p"},
        "api_tokens": {"name": "t"},
        "access_keys": {"name": "a"},
    }
    expected = []
    for collection, body in bodies.items():
        made = admin.send("POST", f"/v1/{collection}", body, status=201)
        path = f"/v1/{collection}/{made['id']}"
        admin.send("PATCH", path, {"labels": {"a": "b"}}, status=200)
        admin.send("DELETE", path, status=204)
        expected += [(f"{collection[:-1]}.{what}", made["id"]) for what in ("created", "updated", "deleted")]
    for collection in ("zones", "hosts", "images"):
        each = admin.get(f"/v1/{collection}")["items"][0]["id"]
        admin.send("PATCH", f"/v1/{collection}/{each}", {"labels": {"a": "b"}}, status=200)
        expected.append((f"{collection[:-1]}.updated", each))
    assert [(event["type"], event["resource"]["id"]) for event in admin.get("/v1/events")["items"]] == expected
