from __future__ import annotations

import re

import httpx
import pytest

from iaas.client import (
    BackendUnavailable,
    Client,
    Conflict,
    ConnectionFailed,
    InvalidInput,
    RateLimited,
    UnexpectedAnswer,
)
from iaas.client.transport import is_loopback
from tests.unit.client.conftest import FakeTime
from tests.unit.client.fake_cloud import ENDPOINT, FakeCloud, problem


def busy(after: str | None = "2") -> httpx.Response:
    return problem(503, "backend_unavailable", "libvirt is down", headers={"Retry-After": after} if after else {})


def test_sends_token_agent_and_a_fresh_request_id(client: Client, cloud: FakeCloud) -> None:
    client.instances.list()
    client.instances.list()
    first, second = cloud.requests
    assert re.fullmatch(r"iaas-python/\S+ python/3\.\d+", first.headers["user-agent"])
    assert re.fullmatch(r"req-[a-z0-9]{8}", first.headers["x-request-id"])
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert first.headers["authorization"] == "Bearer tok-secret"


def test_read_is_tried_again_after_the_connection_broke(client: Client, cloud: FakeCloud, wall: FakeTime) -> None:
    cloud.answer_next(httpx.ConnectError("refused"), httpx.ReadError("reset"))
    assert len(client.instances.list()) == 0
    assert len(cloud.requests) == 3
    assert wall.slept_s == [0.1, 0.2]


def keys(cloud: FakeCloud) -> list[str]:
    return [request.headers["idempotency-key"] for request in cloud.requests]


def test_create_is_tried_again_with_the_same_key(client: Client, cloud: FakeCloud) -> None:
    cloud.answer_next(httpx.ConnectError("refused"), httpx.ReadError("reset"))
    client.instances.create(kind="vm", image="tiny", flavor="small")
    first = keys(cloud)
    assert len(first) == 3
    assert len(set(first)) == 1
    assert re.fullmatch(r"[0-9a-f-]{36}", first[0])
    client.instances.create(kind="vm", image="tiny", flavor="small")
    assert keys(cloud)[-1] not in first


def test_a_key_of_ones_own_is_kept(client: Client, cloud: FakeCloud) -> None:
    client.request("POST", "/v1/key_pairs", body={"name": "me"}, headers={"Idempotency-Key": "mine"})
    assert keys(cloud) == ["mine"]


def test_other_writes_are_tried_again_only_when_they_were_never_sent(client: Client, cloud: FakeCloud) -> None:
    project = client.projects.create(name="p")
    cloud.answer_next(httpx.ConnectError("refused"))
    project.update(description="d")
    for change in (lambda: project.update(description="e"), project.delete):
        cloud.answer_next(httpx.ReadError("reset"))
        sent = len(cloud.requests)
        with pytest.raises(ConnectionFailed, match="reset"):
            change()
        assert len(cloud.requests) == sent + 1
        assert "idempotency-key" not in cloud.requests[-1].headers


def test_a_first_try_that_still_runs_is_waited_for(client: Client, cloud: FakeCloud, wall: FakeTime) -> None:
    busy_still = problem(409, "idempotency_in_progress", retryable=True)
    cloud.answer_next(httpx.ReadError("reset"), busy_still, busy_still)
    client.instances.create(kind="vm", image="tiny", flavor="small")
    assert wall.slept_s == [0.1, 0.2, 0.4]
    cloud.answer_next(busy_still)  # without a lost answer it is somebody else's use of the key
    with pytest.raises(Conflict, match="no"):
        client.instances.create(kind="vm", image="tiny", flavor="small")


def test_gives_up_after_a_bounded_number_of_tries(client: Client, cloud: FakeCloud) -> None:
    cloud.answer_next(*[httpx.ConnectError("refused")] * 10)
    with pytest.raises(ConnectionFailed, match=re.escape(f"cannot connect to {ENDPOINT}: refused")):
        client.zones.list()
    assert len(cloud.requests) == 4


def test_retry_after_is_honoured(client: Client, cloud: FakeCloud, wall: FakeTime) -> None:
    cloud.answer_next(problem(429, "rate_limited", headers={"Retry-After": "3"}), busy())
    client.instances.create(kind="vm", image="tiny", flavor="small")
    assert wall.slept_s == [3.0, 2.0]


def test_retry_after_is_not_honoured_for_ever(client: Client, cloud: FakeCloud, wall: FakeTime) -> None:
    cloud.answer_next(*[busy()] * 10)
    with pytest.raises(BackendUnavailable, match="libvirt is down"):
        client.zones.list()
    assert len(cloud.requests) == 4


def test_retry_after_beyond_the_time_limit_is_told_at_once(client: Client, cloud: FakeCloud, wall: FakeTime) -> None:
    cloud.answer_next(problem(429, "rate_limited", headers={"Retry-After": "3600"}))
    with pytest.raises(RateLimited) as caught:
        client.zones.list()
    assert caught.value.retry_after_s == 3600
    assert caught.value.retryable
    assert wall.slept_s == []


def test_without_retry_after_nothing_is_repeated(client: Client, cloud: FakeCloud) -> None:
    cloud.answer_next(busy(None))
    with pytest.raises(BackendUnavailable):
        client.zones.list()
    assert len(cloud.requests) == 1


def test_time_out_is_not_repeated(client: Client, cloud: FakeCloud) -> None:
    cloud.answer_next(httpx.ReadTimeout("late"))
    with pytest.raises(ConnectionFailed, match="late"):
        client.zones.list()
    assert len(cloud.requests) == 1


@pytest.mark.parametrize(
    "answer", [httpx.Response(200, text="<html>"), httpx.Response(200, json=[1]), httpx.Response(200)]
)
def test_answer_of_something_else_is_unexpected(client: Client, cloud: FakeCloud, answer: httpx.Response) -> None:
    cloud.answer_next(answer)
    with pytest.raises(UnexpectedAnswer):
        client.zones.list()


def test_text_that_is_not_utf8_is_refused_here(client: Client) -> None:
    with pytest.raises(InvalidInput, match="UTF-8"):
        client.instances.create(kind="vm", image="ti\udcffny")
    with pytest.raises(InvalidInput, match="UTF-8"):
        client.instances.list(name="\udcff")


@pytest.mark.parametrize(
    ("url", "expected"),
    [("http://127.0.0.9:1", True), ("http://[::1]:1", True), ("http://localhost", True), ("http://cloud.test", False)],
)
def test_loopback_is_recognised(url: str, expected: bool) -> None:
    assert is_loopback(url) is expected
