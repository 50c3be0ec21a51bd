from __future__ import annotations

import json

from tests.unit.cli.conftest import Run
from tests.unit.client.fake_cloud import FakeCloud, problem

CREATE = ("instance", "create", "--kind", "vm", "--image", "tiny", "--name", "web")


def test_rules_of_placement(run: Run, cloud: FakeCloud) -> None:
    run(*CREATE, "--anti-affinity", "app=db", "--prefer", "--host", "one")
    assert cloud.body()["placement"] == {"anti_affinity": {"label_selector": "app=db", "strict": False}, "host": "one"}
    run(*CREATE, "--affinity", "app=web")
    assert cloud.body()["placement"] == {"affinity": {"label_selector": "app=web", "strict": True}}
    run(*CREATE)
    assert "placement" not in cloud.body()


def test_deleted_ones_are_listed_recovered_and_purged(run: Run, cloud: FakeCloud) -> None:
    cloud.add_instance("web", status="deleted")
    assert run("instance", "recover", "i-00000001", "--name", "web-2").status == 0
    assert cloud.body() == {"name": "web-2"}
    assert run("instance", "delete", "i-00000001", "--purge").status == 0
    assert dict(cloud.requests[-1].url.params) == {"purge": "true"}
    run("instance", "list", "--deleted")
    assert dict(cloud.requests[-1].url.params) == {"deleted": "true"}


def test_a_deleted_one_is_shown_when_asked_for(run: Run, cloud: FakeCloud) -> None:
    cloud.add_instance("web", status="deleted")
    cloud.answer_next(problem(404, "not_found"))
    assert run("instance", "get", "i-00000001").status == 3
    cloud.answer_next(problem(404, "not_found"))
    result = run("instance", "get", "i-00000001", "--deleted", "-o", "json")
    assert (result.status, json.loads(result.out)["status"]) == (0, "deleted")
    assert [dict(request.url.params) for request in cloud.requests[-2:]] == [{}, {"deleted": "true"}]


def test_deleted_ones_say_until_when_they_can_be_recovered(run: Run, cloud: FakeCloud) -> None:
    cloud.add_instance("kept", status="deleted", purge_at="2026-01-01T02:00:00.000Z")
    cloud.add_instance("gone", status="deleted", purged_at="2026-01-01T00:00:00.000Z")
    listed = run("instance", "list").out
    assert "deleted (until 2026-01-01T02:00:00Z)" in listed
    assert "deleted (purged)" in listed


def test_a_host_is_drained(run: Run, cloud: FakeCloud) -> None:
    cloud.plain["hosts"].append({"id": "host-00000001", "name": "one", "status": "up"})
    assert "draining" in run("host", "update", "one", "--status", "draining").out
    assert cloud.body() == {"status": "draining"}
    assert run("host", "update", "one").status != 0
