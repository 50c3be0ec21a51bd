from __future__ import annotations

import base64
from datetime import UTC, datetime

import httpx
import pytest

from iaas.client import (
    Client,
    InstanceSpec,
    InvalidInput,
    InvalidState,
    JobFailed,
    NeverReady,
    NotFound,
    UnexpectedAnswer,
    WaitTimeout,
    wait_all,
)
from tests.unit.client.conftest import FakeTime
from tests.unit.client.fake_cloud import FakeCloud


def test_all_pages_are_walked_lazily(client: Client, cloud: FakeCloud) -> None:
    for number in range(5):
        cloud.add_instance(f"web-{number}")
    found = client.instances.iterate(page_size=2)
    assert next(found).name == "web-0"
    assert len(cloud.requests) == 1
    assert [each.name for each in found] == ["web-1", "web-2", "web-3", "web-4"]
    assert len(cloud.requests) == 3


def test_one_page_says_how_to_go_on(client: Client, cloud: FakeCloud) -> None:
    for number in range(3):
        cloud.add_instance(f"web-{number}")
    page = client.instances.list(limit=2)
    assert (len(page), page.next_cursor) == (2, "2")
    assert [each.name for each in client.instances.list(cursor=page.next_cursor)] == ["web-2"]


def test_filters_go_into_the_query(client: Client, cloud: FakeCloud) -> None:
    client.instances.list(status="running", label_selector={"a": "b", "c": "d"}, sort="-created_at", name=None)
    assert dict(cloud.requests[-1].url.params) == {
        "status": "running",
        "label_selector": "a=b,c=d",
        "sort": "-created_at",
    }
    with pytest.raises(InvalidInput) as caught:
        client.instances.list(colour="red")
    assert caught.value.errors[0].field == "colour"


def test_get_takes_id_or_name_and_quotes_it(client: Client, cloud: FakeCloud) -> None:
    made = cloud.add_instance("a/b ?")
    assert client.instances.get("a/b ?").id == made["id"]
    assert client.instances.get(made["id"]).name == "a/b ?"
    for odd in ("", ".", "..", "none"):
        with pytest.raises(NotFound):
            client.instances.get(odd)


def test_find_wants_the_exact_name(client: Client, cloud: FakeCloud) -> None:
    made = cloud.add_instance("web")
    found = client.instances.find("web")
    assert found is not None
    assert found.id == made["id"]
    assert client.instances.find(made["id"]) is None


def test_fields_are_typed_and_unknown_ones_kept_raw(client: Client, cloud: FakeCloud) -> None:
    instance = client.instances.get(cloud.add_instance("web", failure={"code": "x", "message": "m"})["id"])
    assert instance.created_at == datetime(2026, 1, 31, 12, 0, 0, 123000, tzinfo=UTC)
    assert instance.nics[0].address == "10.128.0.9"
    assert instance.failure is not None
    assert instance.failure.message == "m"
    assert instance.raw["new_in_version_9"] == {"a": 1}
    assert hash(instance) == hash(instance.refresh())
    assert "client" not in repr(instance)


@pytest.mark.parametrize(
    "broken", [{"name": "x"}, {"id": "i-1", "created_at": "yesterday"}, {"id": "i-1", "nics": 5}, [], 3]
)
def test_resource_of_another_shape_is_unexpected(client: Client, cloud: FakeCloud, broken: object) -> None:
    cloud.answer_next(httpx.Response(200, json=broken))
    with pytest.raises(UnexpectedAnswer):
        client.instances.get("web")


def test_create_waits_for_the_job_and_returns_the_machine(client: Client, cloud: FakeCloud) -> None:
    action = client.instances.create(
        kind="container", image="tiny", flavor="small", name="web", labels={"a": "b"}, user_data=b"\xff", nesting=True
    )
    assert action.resource.transition == "creating"
    seen: list[str] = []
    instance = action.wait(on_progress=lambda job: seen.append(job.status))
    assert (instance.status, instance.transition) == ("running", None)
    assert seen == ["queued", "running", "succeeded"]
    assert cloud.body(0) == {
        "kind": "container",
        "image": "tiny",
        "flavor": "small",
        "name": "web",
        "labels": {"a": "b"},
        "nesting": True,
        "user_data": base64.b64encode(b"\xff").decode(),
        "user_data_encoding": "base64",
    }


def test_batch_pairs_jobs_with_their_instances(client: Client, cloud: FakeCloud) -> None:
    specs = [InstanceSpec(kind="vm", image="tiny", flavor="small", name=f"n{i}") for i in range(3)]
    actions = client.instances.create_many(specs)
    assert [each.resource.name for each in actions] == ["n0", "n1", "n2"]
    assert all(each.job.resources[0].id == each.resource.id for each in actions)
    assert [each.status for each in wait_all(actions)] == ["running"] * 3


def test_verbs_send_only_what_was_given(client: Client, cloud: FakeCloud) -> None:
    instance = client.instances.get(cloud.add_instance("web")["id"])
    stopped = instance.stop(timeout_s=5).wait()
    assert cloud.requests[1].url.path.endswith("/actions/stop")
    assert cloud.body(1) == {"timeout_s": 5}
    assert stopped.status == "stopped"
    stopped.resize(vcpus=2, memory_mib=512).wait()
    running = stopped.start().wait()
    running.restart(force=True).wait()
    running.rebuild().wait()
    with pytest.raises(InvalidState):
        running.refresh().start()


def test_delete_returns_what_was_there(client: Client, cloud: FakeCloud) -> None:
    instance = client.instances.get(cloud.add_instance("web")["id"])
    assert instance.delete().wait().name == "web"
    with pytest.raises(NotFound):
        instance.refresh()


def test_update_merges_and_guards(client: Client, cloud: FakeCloud) -> None:
    instance = client.instances.get(cloud.add_instance("web")["id"])
    assert instance.update(name="db").name == "db"
    assert cloud.body() == {"name": "db"}
    instance.update(labels={"a": None}, only_if_unchanged=True)
    assert cloud.body() == {"labels": {"a": None}}
    assert cloud.requests[-1].headers["if-match"] == '"3"'


def test_execute_and_console(client: Client, cloud: FakeCloud) -> None:
    instance = client.instances.get(cloud.add_instance("web")["id"])
    cloud.exec_result = {"exit_code": 3, "stdout": "out", "stderr": "err", "truncated": True}
    result = instance.execute(["sh", "-c", "exit 3"], timeout_s=100, stdin="in")
    assert (result.exit_code, result.stdout, result.stderr, result.truncated) == (3, "out", "err", True)
    assert cloud.body() == {"command": ["sh", "-c", "exit 3"], "timeout_s": 100, "stdin": "in"}
    assert cloud.requests[-1].extensions["timeout"]["read"] == 130
    assert instance.console(tail_bytes=10) == "login: "
    assert dict(cloud.requests[-1].url.params) == {"tail_bytes": "10"}


def test_failed_job_raises_with_its_reason(client: Client, cloud: FakeCloud) -> None:
    cloud.job_error = {"code": "no_capacity", "message": "the pool is full"}
    with pytest.raises(JobFailed, match=r"instance\.create: the pool is full") as caught:
        client.instances.create(kind="vm", image="tiny").wait()
    assert caught.value.code == "no_capacity"
    assert caught.value.job.status == "failed"


def test_wait_ends_by_the_wall_clock(client: Client, cloud: FakeCloud, wall: FakeTime) -> None:
    cloud.polls_per_job = 10**6
    action = client.instances.create(kind="vm", image="tiny")
    with pytest.raises(WaitTimeout) as caught:
        action.wait(timeout_s=20)
    assert wall.now_s == pytest.approx(1020)
    assert caught.value.job is not None
    assert caught.value.job.status == "running"
    # The server answered every long poll at once: the polling slowed down.
    assert len(cloud.requests) < 25


def test_wait_without_time_still_asks_once(client: Client, cloud: FakeCloud) -> None:
    cloud.polls_per_job = 1
    assert client.instances.create(kind="vm", image="tiny").wait(timeout_s=0).status == "running"


def test_long_poll_fits_the_time_left(client: Client, cloud: FakeCloud, wall: FakeTime) -> None:
    action = client.instances.create(kind="vm", image="tiny")
    waits: list[str | None] = []

    def answer_late(request: httpx.Request) -> httpx.Response | None:
        if "/jobs/" in request.url.path:
            waits.append(request.url.params.get("wait"))
            wall.now_s += float(waits[-1] or 0)
        return None

    cloud.polls_per_job = 10**6
    cloud.overrides.append(answer_late)
    with pytest.raises(WaitTimeout):
        action.wait(timeout_s=70.5)
    assert waits[:3] == ["30", "30", "10"]
    assert wall.slept_s[0] <= 0.5


def test_ready_is_waited_for(client: Client, cloud: FakeCloud, wall: FakeTime) -> None:
    made = cloud.add_instance("web", guest_ready_at=None)
    instance = client.instances.get("web")
    with pytest.raises(WaitTimeout):
        instance.wait_until_ready(timeout_s=3)
    made["guest_ready_at"] = "2026-01-31T12:00:01Z"
    assert instance.wait_until_ready(timeout_s=3).guest_ready_at is not None
    made.update(status="failed", guest_ready_at=None, failure={"code": "x", "message": "QEMU died"})
    with pytest.raises(NeverReady, match="QEMU died"):
        instance.wait_until_ready()


def test_other_resources(client: Client, cloud: FakeCloud) -> None:
    key = client.key_pairs.create(name="me")
    assert key.private_key == "PRIVATE\n"
    assert "PRIVATE" not in repr(key)
    assert key.update(name="you").name == "you"
    key.delete()
    assert len(client.key_pairs.list()) == 0
    token = client.api_tokens.create(name="ci", role="member", expires_at=datetime(2027, 1, 1, tzinfo=UTC))
    assert token.token == "fresh-token"
    assert cloud.body(-1)["expires_at"] == "2027-01-01T00:00:00.000Z"
    token.delete()
    project = client.projects.create(name="p")
    assert project.update(description="d").description == "d"
    project.delete()
    client.access_keys.create(name="k").delete()
    client.flavors.create(name="large", vcpus=4, memory_mib=4096, root_disk_gib=9).delete()
    assert client.images.get("tiny").kinds == ("vm", "container")
    assert [zone.name for zone in client.zones.iterate()] == ["zone-a"]
    assert client.capabilities().compute["vm"] == ["exec", "console"]
    assert client.health().status == "ok"


def test_events_are_paged_by_their_ids(client: Client, cloud: FakeCloud) -> None:
    for number in range(3):
        cloud.plain["events"].append({"id": str(number), "type": "instance.started"})
    assert [event.id for event in client.events.iterate(page_size=2)] == ["0", "1", "2"]
    assert cloud.requests[-1].url.params["after"] == "2"  # the fake's cursor, where events take it
