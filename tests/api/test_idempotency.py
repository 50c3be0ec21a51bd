"""Idempotency-Key on every POST: the same request twice is one effect and one answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import func, select
from werkzeug.test import TestResponse

from iaas.api import access
from iaas.api.app import create_app
from iaas.cloud import Cloud
from iaas.db.models import IdempotencyRow
from iaas.kernel.errors import GuestUnavailable
from iaas.resources.common import Role
from iaas.resources.instances import ExecOutcome
from iaas.services.idempotency import LOST_AFTER
from tests.api.calling import NEW, Caller, make, make_nic, make_subnet, make_vpc
from tests.factories import TOKEN, open_cloud, operator, principal_in, settle

POSTS = sorted(rule for rule, methods in access.ROUTES.items() if "POST" in methods)
KEY = {"Idempotency-Key": "one"}


def stopped(admin: Caller, cloud: Cloud) -> None:
    make(admin, name="web")
    settle(cloud)
    admin.send("POST", "/v1/instances/web/actions/stop", {"force": True}, status=202)
    settle(cloud)


def running(admin: Caller, cloud: Cloud) -> None:
    make(admin, name="web")
    settle(cloud)


def begun(admin: Caller, cloud: Cloud) -> None:
    make(admin, name="web")


def removed(admin: Caller, cloud: Cloud) -> str:
    cloud.instances.retention_s = 3600.0
    instance_id: str = make(admin, name="web")["id"]
    settle(cloud)
    admin.send("DELETE", "/v1/instances/web", status=202)
    settle(cloud)
    return instance_id


def nothing(admin: Caller, cloud: Cloud) -> None:
    pass


def networked(admin: Caller, cloud: Cloud) -> None:
    make_vpc(admin, cloud)
    make_subnet(admin, cloud)


def bare(admin: Caller, cloud: Cloud) -> None:
    make_vpc(admin, cloud)
    make_subnet(admin, cloud, vpc=None, cidr=None)


def unattached(admin: Caller, cloud: Cloud) -> None:
    networked(admin, cloud)
    make_nic(admin)
    running(admin, cloud)


def attached(admin: Caller, cloud: Cloud) -> None:
    unattached(admin, cloud)
    admin.send("POST", "/v1/nics/nic/actions/attach", {"instance": "web"}, status=202)
    settle(cloud)


def two_nics(admin: Caller, cloud: Cloud) -> None:
    networked(admin, cloud)
    make_nic(admin)
    make_nic(admin, "other")


ROUTE = {"destination": "10.9.0.0/16", "address": "10.0.1.9"}

Preparation = Callable[[Caller, Cloud], str | None]  # returns the instance's id where its name will not do
# A body that each POST accepts, and what has to be there before. A route that is missing here fails the test.
EXAMPLES: Mapping[str, tuple[Preparation, Any]] = {
    "/v1/instances": (nothing, {**NEW, "name": "web"}),
    "/v1/instances:batch": (nothing, {"instances": [NEW, {**NEW, "name": "web"}]}),
    "/v1/instances/<instance>/actions/start": (stopped, {}),
    "/v1/instances/<instance>/actions/stop": (running, {}),
    "/v1/instances/<instance>/actions/restart": (running, {}),
    "/v1/instances/<instance>/actions/resize": (stopped, {"flavor": "micro"}),
    "/v1/instances/<instance>/actions/rebuild": (running, {}),
    "/v1/instances/<instance>/actions/exec": (running, {"command": ["hostname"]}),
    "/v1/instances/<instance>/actions/recover": (removed, {}),
    "/v1/vpcs": (nothing, {"cidr": "10.0.0.0/16"}),
    "/v1/vpcs/<vpc>/routes": (networked, ROUTE),
    "/v1/vpcs/<vpc>/routes:batch": (networked, {"routes": [ROUTE]}),
    "/v1/vpcs/<vpc>/dns_records": (networked, {"name": "db", "type": "A", "values": ["10.0.1.9"]}),
    "/v1/subnets": (networked, {"vpc": "shop", "cidr": "10.0.2.0/24"}),
    "/v1/subnets/<subnet>/actions/join": (bare, {"vpc": "shop", "cidr": "10.0.2.0/24"}),
    "/v1/subnets/<subnet>/actions/leave": (networked, {}),
    "/v1/nics": (networked, {"subnet": "tier"}),
    "/v1/nics/<nic>/actions/attach": (unattached, {"instance": "web"}),
    "/v1/nics/<nic>/actions/detach": (attached, {}),
    "/v1/address_reservations": (networked, {"subnet": "tier"}),
    "/v1/reachability": (two_nics, {"source": {"nic": "nic"}, "target": {"nic": "other"}}),
    "/v1/jobs/<job_id>/actions/cancel": (begun, {}),
    "/v1/doctor/actions/check": (nothing, {}),
    "/v1/doctor/actions/repair": (nothing, {}),
    "/v1/key_pairs": (nothing, {"name": "me"}),
    "/v1/flavors": (nothing, {"name": "odd", "vcpus": 1, "memory_mib": 64, "root_disk_gib": 1}),
    "/v1/projects": (nothing, {"name": "p"}),
    "/v1/api_tokens": (nothing, {"name": "t"}),
    "/v1/access_keys": (nothing, {"name": "t"}),
}


def told(answer: TestResponse) -> tuple[int, bytes, str | None]:
    return answer.status_code, answer.data, answer.headers.get("Location")


def post(caller: Caller, path: str, body: Any, key: str = "one", **headers: str) -> TestResponse:
    return caller.call("POST", path, json=body, headers={"Idempotency-Key": key, **headers})


def records(cloud: Cloud) -> int:
    with cloud.store.read() as connection:
        return connection.execute(select(func.count()).select_from(IdempotencyRow)).scalar_one()


@pytest.mark.parametrize("rule", POSTS)
def test_every_post_is_done_once(app: Flask, admin: Caller, cloud: Cloud, rule: str) -> None:
    prepare, body = EXAMPLES[rule]
    path = rule.replace("<instance>", prepare(admin, cloud) or "web")
    for variable, name in (("vpc", "shop"), ("subnet", "tier"), ("nic", "nic")):
        path = path.replace(f"<{variable}>", name)
    if "<job_id>" in rule:
        path = path.replace("<job_id>", admin.get("/v1/jobs")["items"][0]["id"])
    first = post(admin, path, body)
    assert first.status_code in (200, 201, 202), first.text
    assert "Idempotency-Replayed" not in first.headers
    for _ in range(2):
        again = post(admin, path, body)
        assert told(again) == told(first)
        assert again.headers["Idempotency-Replayed"] == "true"
        assert again.mimetype == first.mimetype == "application/json"
        settle(cloud)  # the answer stays what it was, whatever became of the resource
    refused = post(admin, path, {**body, "name": "another"})
    assert (refused.status_code, refused.json["code"]) == (422, "idempotency_key_reused")
    assert [error["field"] for error in refused.json["errors"]] == ["Idempotency-Key"]


@pytest.mark.parametrize("rule", ["/v1/key_pairs", "/v1/api_tokens", "/v1/access_keys"])
def test_secrets_are_not_kept_in_clear(admin: Caller, cloud: Cloud, rule: str) -> None:
    made = post(admin, rule, EXAMPLES[rule][1]).json
    [secret] = [made[name] for name in ("private_key", "token", "secret_access_key") if name in made]
    with cloud.store.read() as connection:
        kept = connection.execute(select(IdempotencyRow.__table__.c.body)).scalar_one()
    for part in (secret, secret[:20], made["id"]):
        assert json.dumps(part)[1:-1].encode() not in kept


def test_an_answer_is_not_given_to_a_lesser_role(app: Flask, cloud: Cloud) -> None:
    boss, member = (Caller(app, principal_in(cloud, "team", role)[1]) for role in (Role.ADMIN, Role.MEMBER))
    assert post(boss, "/v1/api_tokens", {"name": "t"}).json["role"] == "admin"
    answer = post(member, "/v1/api_tokens", {"name": "t"})
    assert (answer.status_code, answer.json["code"]) == (403, "permission_denied")
    assert post(member, "/v1/api_tokens", {"name": "t"}, key="two").json["role"] == "member"
    assert post(boss, "/v1/api_tokens", {"name": "t"}, key="two").json["role"] == "member"


def test_the_same_body_in_other_words_is_the_same(admin: Caller) -> None:
    first = post(admin, "/v1/key_pairs", {"name": "me", "labels": {"a": "b", "c": "d"}})
    spaced = '{ "labels": {"c": "d", "a":"b"},\n "name":"me" }'
    headers = {**KEY, "Content-Type": "application/json"}
    assert told(admin.call("POST", "/v1/key_pairs", data=spaced, headers=headers)) == told(first)


def test_another_path_or_precondition_is_another_request(admin: Caller, cloud: Cloud) -> None:
    for name in ("a", "b"):
        make(admin, name=name)
    settle(cloud)
    assert post(admin, "/v1/instances/a/actions/stop", {}).status_code == 202
    for path, headers in (
        ("/v1/instances/b/actions/stop", {}),
        ("/v1/instances/a/actions/restart", {}),
        ("/v1/instances/a/actions/stop", {"If-Match": '"7"'}),
        ("/v1/instances", {}),
    ):
        answer = post(admin, path, {}, **headers)
        assert (answer.status_code, answer.json["code"]) == (422, "idempotency_key_reused")


def test_keys_are_the_projects_own(admin: Caller, member: Caller, stranger: Caller) -> None:
    ids = {post(caller, "/v1/instances", NEW).json["instance"]["id"] for caller in (admin, member, stranger)}
    assert len(ids) == 3


def test_a_refusal_frees_the_key(admin: Caller, cloud: Cloud) -> None:
    assert post(admin, "/v1/instances", {**NEW, "flavor": "none"}).status_code == 422
    assert post(admin, "/v1/instances/web/actions/start", {}).status_code == 404
    assert post(admin, "/v1/instances/web/actions/exec", {"command": ["x"]}).status_code == 404
    assert post(admin, "/v1/nothing", {}).status_code == 404
    assert records(cloud) == 0
    assert post(admin, "/v1/instances", {**NEW, "name": "web"}).status_code == 202
    assert post(admin, "/v1/instances", {**NEW, "name": "web"}, key="two").status_code == 409  # name_taken
    admin.send("DELETE", "/v1/instances/web", status=409)  # it still comes
    settle(cloud)
    admin.send("DELETE", "/v1/instances/web", status=202)
    settle(cloud)
    assert post(admin, "/v1/instances", {**NEW, "name": "web"}, key="two").status_code == 202


@pytest.mark.parametrize("key", ["", "x" * 129, "é", "a\tb", "\x7f"])
def test_keys_of_another_form(admin: Caller, key: str) -> None:
    answer = post(admin, "/v1/instances", NEW, key=key)
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_input")
    assert [error["field"] for error in answer.json["errors"]] == ["Idempotency-Key"]
    assert admin.get("/v1/instances")["items"] == []


@pytest.mark.parametrize("key", ["x", "x" * 128, "two words", "!~{}\"'", "%00"])
def test_keys_of_this_form(admin: Caller, key: str) -> None:
    assert told(post(admin, "/v1/instances", NEW, key=key)) == told(post(admin, "/v1/instances", NEW, key=key))


def test_other_methods_take_no_notice(admin: Caller, cloud: Cloud) -> None:
    post(admin, "/v1/key_pairs", {"name": "me"})
    for labels in ({"a": "b"}, {"a": "c"}):
        admin.send("PATCH", "/v1/key_pairs/me", {"labels": labels}, status=200, headers=KEY)
    admin.send("DELETE", "/v1/key_pairs/me", status=204, headers=KEY)
    admin.refused("DELETE", "/v1/key_pairs/me", status=404, code="not_found", headers=KEY)


def test_answers_are_kept_for_a_day_of_the_cloud(admin: Caller, cloud: Cloud) -> None:
    first = post(admin, "/v1/instances", NEW)
    cloud.clock.advance(24 * 3600 - 1)
    assert told(post(admin, "/v1/instances", NEW)) == told(first)
    cloud.clock.advance(1)
    later = post(admin, "/v1/instances", {**NEW, "kind": "vm"})
    assert later.json["instance"]["id"] != first.json["instance"]["id"]
    assert "Idempotency-Replayed" not in later.headers
    assert told(post(admin, "/v1/instances", {**NEW, "kind": "vm"})) == told(later)


def test_expired_records_go_by_themselves(admin: Caller, cloud: Cloud) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl x"
    for number in range(130):
        assert post(admin, "/v1/key_pairs", {"name": f"k{number}", "public_key": key}, key=str(number)).status_code
    cloud.clock.advance(24 * 3600)
    for number in range(64):
        post(admin, "/v1/key_pairs", {"name": f"l{number}", "public_key": key}, key=f"l{number}")
    assert records(cloud) <= 64


def test_answers_outlive_a_restart(tmp_path: Path, database_url: str | None) -> None:
    bodies = {"/v1/instances": NEW, "/v1/api_tokens": {"name": "t"}}
    with open_cloud(tmp_path, database_url=database_url) as cloud:
        admin = Caller(create_app(cloud), TOKEN)
        first = {path: told(post(admin, path, body, key=path)) for path, body in bodies.items()}
        clock = cloud.clock
    with open_cloud(tmp_path, seed=2, clock=clock, database_url=database_url) as cloud:
        admin = Caller(create_app(cloud), TOKEN)
        assert {path: told(post(admin, path, body, key=path)) for path, body in bodies.items()} == first
        assert len(admin.get("/v1/instances")["items"]) == 1


def test_a_command_whose_end_the_server_did_not_see(
    tmp_path: Path, database_url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"command": ["hostname"]}
    with open_cloud(tmp_path, database_url=database_url) as cloud:
        admin = Caller(create_app(cloud), TOKEN)
        running(admin, cloud)

        def die(*_args: object, **_more: object) -> ExecOutcome:
            raise SystemExit

        monkeypatch.setattr(cloud.instances, "execute", die)
        with pytest.raises(SystemExit):
            post(admin, "/v1/instances/web/actions/exec", body)
        clock = cloud.clock
    with open_cloud(tmp_path, seed=2, clock=clock, database_url=database_url) as cloud:
        admin = Caller(create_app(cloud), TOKEN)
        if database_url is not None:  # it may still run in another process of a fleet, for as long as a command may
            assert post(admin, "/v1/instances/web/actions/exec", body).json["code"] == "idempotency_in_progress"
            clock.advance(LOST_AFTER.total_seconds())
        for _ in range(2):
            answer = post(admin, "/v1/instances/web/actions/exec", body)
            assert (answer.status_code, answer.json["code"]) == (409, "idempotency_outcome_unknown")
            assert answer.json["retryable"] is False
        assert post(admin, "/v1/instances/web/actions/exec", body, key="two").status_code == 200


def test_a_command_that_failed_frees_its_key(admin: Caller, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    running(admin, cloud)

    def fail(*_args: object, **_more: object) -> ExecOutcome:
        raise GuestUnavailable("nobody answers")

    with monkeypatch.context() as patch:
        patch.setattr(cloud.instances, "execute", fail)
        assert post(admin, "/v1/instances/web/actions/exec", {"command": ["x"]}).json["code"] == "guest_unavailable"
    assert post(admin, "/v1/instances/web/actions/exec", {"command": ["hostname"]}).status_code == 200


def test_while_the_first_runs_the_second_is_told_so(
    app: Flask, admin: Caller, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(admin, cloud)
    began, go_on = threading.Event(), threading.Event()

    def slow(*_args: object, **_more: object) -> ExecOutcome:
        began.set()
        assert go_on.wait(20)
        return ExecOutcome(exit_code=0, stdout="done", stderr="", truncated=False)

    monkeypatch.setattr(cloud.instances, "execute", slow)
    answers: list[TestResponse] = []
    path, body = "/v1/instances/web/actions/exec", {"command": ["sleep"]}
    thread = threading.Thread(target=lambda: answers.append(post(Caller(app, TOKEN), path, body)))
    thread.start()
    try:
        assert began.wait(20)
        second = post(admin, path, body)
        assert (second.status_code, second.json["code"]) == (409, "idempotency_in_progress")
        assert second.json["retryable"] is True
        assert post(admin, path, {"command": ["other"]}).json["code"] == "idempotency_key_reused"
    finally:
        go_on.set()
        thread.join()
    assert told(post(admin, path, body)) == told(answers[0])


def test_of_many_at_once_one_is_done(tmp_path: Path, database_url: str | None) -> None:
    with open_cloud(tmp_path, database_url=database_url) as cloud:
        app = create_app(cloud)
        for round_number in range(5):
            barrier, answers = threading.Barrier(8), []

            def send(
                key: str = f"k{round_number}",
                barrier: threading.Barrier = barrier,
                answers: list[TestResponse] = answers,
            ) -> None:
                caller = Caller(app, TOKEN)
                barrier.wait(20)
                answers.append(post(caller, "/v1/instances", NEW, key=key))

            threads = [threading.Thread(target=send) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            accepted = {told(answer) for answer in answers if answer.status_code == 202}
            refused = {answer.json["code"] for answer in answers if answer.status_code != 202}
            assert len(accepted) == 1
            assert refused <= {"idempotency_in_progress"}
            assert len(Caller(app, TOKEN).get("/v1/instances")["items"]) == round_number + 1


def test_two_servers_on_one_database_do_it_once(
    tmp_path: Path, database_url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory of one process does not help here: the record's key in the database decides."""
    with (
        open_cloud(tmp_path, database_url=database_url) as one,
        open_cloud(tmp_path, seed=2, clock=one.clock, database_url=database_url) as two,
    ):
        first, second = (Caller(create_app(cloud), TOKEN) for cloud in (one, two))
        answers: list[TestResponse] = []
        original = two.instances.create

        def create_late(*args: Any, **more: Any) -> Any:
            answers.append(post(first, "/v1/instances", NEW))  # comes in between
            return original(*args, **more)

        monkeypatch.setattr(two.instances, "create", create_late)
        answers.append(post(second, "/v1/instances", NEW))
        assert told(answers[0]) == told(answers[1])
        assert len(second.get("/v1/instances")["items"]) == 1


def test_a_deleted_project_takes_its_records_along(app: Flask, admin: Caller, cloud: Cloud) -> None:
    _, token = principal_in(cloud, "gone", Role.MEMBER)
    caller = Caller(app, token)
    post(caller, "/v1/api_tokens", {"name": "t"})
    assert records(cloud) == 1
    cloud.identity.delete_project(operator(cloud), "gone")
    assert records(cloud) == 0
    assert post(caller, "/v1/api_tokens", {"name": "t"}).status_code == 401
