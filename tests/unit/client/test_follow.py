"""Following events: a stream that breaks is taken up again after the last event."""

from __future__ import annotations

import json
from itertools import islice

import httpx
import pytest

from iaas.client import Client, ConnectionFailed, EventsExpired, Unauthenticated, UnexpectedAnswer
from tests.unit.client.conftest import FakeTime
from tests.unit.client.fake_cloud import FakeCloud, problem


def stream(*ids: int, more: str = "") -> httpx.Response:
    frames = []
    for each in ids:
        document = {"id": str(each), "type": "instance.created", "resource": {"type": "instance", "id": "i-1"}}
        frames.append(f"id: {each}\ndata: {json.dumps(document)}\n\n")
    text = "retry: 2000\n\n: nothing new\n\n" + "".join(frames) + more
    return httpx.Response(200, text=text, headers={"content-type": "text/event-stream; charset=utf-8"})


def ids(client: Client, count: int, **filters: str) -> list[str]:
    return [event.id for event in islice(client.events.follow(**filters), count)]


def test_each_event_comes_once_over_broken_connections(client: Client, cloud: FakeCloud, wall: FakeTime) -> None:
    cloud.answer_next(stream(3, 4, more="id: 5\ndata: {half of an ev"), httpx.ReadError("gone"), stream(), stream(5, 6))
    assert ids(client, 4, after="2", resource_id="i-1", type_prefix="instance.") == ["3", "4", "5", "6"]
    assert [dict(request.url.params) for request in cloud.requests[:2]] == [
        {"after": "2", "resource_id": "i-1", "type_prefix": "instance."},
        {"after": "4", "resource_id": "i-1", "type_prefix": "instance."},
    ]
    assert {request.headers["accept"] for request in cloud.requests} == {"text/event-stream"}
    assert len(wall.slept_s) == 3


def test_an_event_is_decoded(client: Client, cloud: FakeCloud) -> None:
    cloud.answer_next(stream(7))
    event = next(client.events.follow())
    assert event.type == "instance.created"
    assert event.resource is not None
    assert event.resource.id == "i-1"


def test_a_full_server_is_asked_again_when_it_says(client: Client, cloud: FakeCloud, wall: FakeTime) -> None:
    cloud.answer_next(problem(429, "rate_limited", headers={"retry-after": "3"}), stream(1))
    assert ids(client, 1) == ["1"]
    assert wall.slept_s == [3.0]


def test_what_is_no_longer_kept_is_said(client: Client, cloud: FakeCloud) -> None:
    cloud.answer_next(problem(410, "events_expired"))
    with pytest.raises(EventsExpired):
        ids(client, 1, after="1")


def test_a_refusal_is_not_tried_again(client: Client, cloud: FakeCloud, wall: FakeTime) -> None:
    cloud.answer_next(problem(401, "unauthenticated"))
    with pytest.raises(Unauthenticated):
        ids(client, 1)
    assert wall.slept_s == []


def test_a_server_that_stays_away_is_given_up(client: Client, cloud: FakeCloud, wall: FakeTime) -> None:
    cloud.answer_next(*[httpx.ConnectError("refused") for _ in range(100)])
    with pytest.raises(ConnectionFailed):
        ids(client, 1)
    assert sum(wall.slept_s) <= client.transport.timeout_s


def test_another_media_type_is_no_stream(client: Client, cloud: FakeCloud) -> None:
    cloud.answer_next(httpx.Response(200, json={"items": []}))
    with pytest.raises(UnexpectedAnswer):
        ids(client, 1)
