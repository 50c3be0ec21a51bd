from __future__ import annotations

import json

import httpx
import pytest

from tests.unit.cli.conftest import Run
from tests.unit.client.fake_cloud import FakeCloud

QUOTAS = {"items": [{"resource": "instances", "limit": 5, "used": 2}], "next_cursor": None}


def test_list(run: Run, cloud: FakeCloud) -> None:
    cloud.answer_next(*[httpx.Response(200, json=QUOTAS)] * 3)
    assert [line.split() for line in run("quota", "list").out.splitlines()] == [
        ["RESOURCE", "USED", "LIMIT"],
        ["instances", "2", "5"],
    ]
    assert json.loads(run("quota", "list", "-o", "json").out) == QUOTAS
    assert run("quota", "list", "--project", "a b").status == 0
    paths = [request.url.raw_path.decode() for request in cloud.requests]
    assert paths == ["/v1/quotas", "/v1/quotas", "/v1/projects/a%20b/quotas"]


def test_set(run: Run, cloud: FakeCloud) -> None:
    cloud.answer_next(httpx.Response(200, json=QUOTAS))
    assert run("quota", "set", "team", "instances=5", "vcpus=default").status == 0
    assert cloud.requests[-1].method == "PATCH"
    assert cloud.body() == {"instances": 5, "vcpus": None}


@pytest.mark.parametrize("term", ["instances", "=5", "instances=", "instances=-1", "instances=many", "instances=1.5"])
def test_what_is_no_limit(run: Run, cloud: FakeCloud, term: str) -> None:
    assert run("quota", "set", "team", term).status == 2
    assert cloud.requests == []


def test_a_project_that_no_path_can_name(run: Run, cloud: FakeCloud) -> None:
    assert run("quota", "list", "--project", "..").status == 3
    assert cloud.requests == []
