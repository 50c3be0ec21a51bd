"""Requests that come at the wrong moment: wrong state, in transition, no room, backend down."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from iaas.api.app import create_app
from iaas.cloud import Cloud
from iaas.db.models import EventRow, InstanceRow, JobRow
from iaas.drivers.interface import BackendDownError, DriverError, GuestUnavailableError, PermanentError, TransientError
from iaas.drivers.sim.compute import SimComputeDriver
from tests.api.calling import NEW, Caller, make
from tests.factories import TOKEN, assert_consistent, open_cloud, settle, used_capacity, world

VERBS: dict[str, dict[str, Any] | None] = {
    "start": None,
    "stop": None,
    "restart": None,
    "resize": {"flavor": "small"},
    "rebuild": None,
}


def snapshot(cloud: Cloud) -> list[Any]:
    """Return all rows that an accepted action would touch."""
    with cloud.store.read() as connection:
        tables = (InstanceRow.__table__, JobRow.__table__, EventRow.__table__)
        return [connection.execute(select(table)).all() for table in tables]


@pytest.mark.parametrize(("status", "refused"), [("running", ["start", "resize"]), ("stopped", ["stop", "restart"])])
def test_actions_in_the_wrong_state(admin: Caller, cloud: Cloud, status: str, refused: list[str]) -> None:
    made = make(admin, name="web")
    settle(cloud)
    if status == "stopped":
        admin.send("POST", "/v1/instances/web/actions/stop", status=202)
        settle(cloud)
    before = snapshot(cloud)
    for verb in refused:
        document = admin.refused(
            "POST", f"/v1/instances/web/actions/{verb}", VERBS[verb], status=409, code="invalid_state"
        )
        assert document["resource"] == {"type": "instance", "id": made["id"]}
        assert status in document["detail"]
        assert not document["retryable"]
    assert snapshot(cloud) == before


def test_a_failed_instance_can_only_be_deleted(admin: Caller, cloud: Cloud) -> None:
    world(cloud).faults.fail_next("ensure_machine", PermanentError("the disk is broken"))
    made = make(admin, name="web")
    settle(cloud)
    failed = admin.get(f"/v1/instances/{made['id']}")
    assert failed["status"] == "failed"
    assert failed["failure"] == {"code": "backend_error", "message": "the disk is broken"}
    job = admin.get("/v1/jobs")["items"][0]
    assert (job["status"], job["error"]["message"]) == ("failed", "the disk is broken")
    for verb, body in VERBS.items():
        path = f"/v1/instances/{made['id']}/actions/{verb}"
        admin.refused("POST", path, body, status=409, code="invalid_state")
    path = f"/v1/instances/{made['id']}"
    admin.refused("POST", f"{path}/actions/exec", {"command": ["id"]}, status=409, code="invalid_state")
    assert admin.get(f"{path}/console")["output"] == ""
    make(admin, name="web")  # a failed instance holds no name
    admin.send("DELETE", path, status=202)
    settle(cloud)
    admin.refused("GET", path, status=404, code="not_found")
    assert_consistent(cloud)


def test_a_failed_instance_cannot_take_a_name_that_it_lost(admin: Caller, cloud: Cloud) -> None:
    world(cloud).faults.fail_next("ensure_machine", PermanentError("no"))
    failed = make(admin, name="web")
    settle(cloud)
    second = make(admin, name="web")
    settle(cloud)
    admin.send("PATCH", f"/v1/instances/{failed['id']}", {"labels": {"a": "b"}}, status=200)
    assert admin.get("/v1/instances/web")["id"] == second["id"]
    admin.send("PATCH", f"/v1/instances/{failed['id']}", {"name": "old"}, status=200)
    admin.send("DELETE", f"/v1/instances/{failed['id']}", status=202)
    settle(cloud)
    assert_consistent(cloud)


@pytest.mark.parametrize("begun", ["create", *VERBS, "delete"])
def test_everything_is_refused_in_a_transition(admin: Caller, cloud: Cloud, begun: str) -> None:
    made = make(admin, name="web")
    path = f"/v1/instances/{made['id']}"
    if begun != "create":
        settle(cloud)
        if begun in ("start", "resize"):
            admin.send("POST", f"{path}/actions/stop", status=202)
            settle(cloud)
        if begun == "delete":
            admin.send("DELETE", path, status=202)
        else:
            admin.send("POST", f"{path}/actions/{begun}", VERBS[begun], status=202)
    before = snapshot(cloud)
    for method, target, body in [
        *(("POST", f"{path}/actions/{verb}", body) for verb, body in VERBS.items()),
        ("DELETE", path, None),
    ]:
        document = admin.refused(method, target, body, status=409, code="in_transition")
        assert document["resource"] == {"type": "instance", "id": made["id"]}
        assert document["retryable"]
    assert snapshot(cloud) == before
    settle(cloud)
    assert_consistent(cloud)


def test_exec_and_console_of_machines_that_do_not_run(admin: Caller, cloud: Cloud) -> None:
    make(admin, name="web", kind="vm")
    command = {"command": ["id"]}
    admin.refused("POST", "/v1/instances/web/actions/exec", command, status=409, code="invalid_state")
    assert admin.get("/v1/instances/web/console")["output"] == ""
    cloud.executor.run_due()
    while admin.get("/v1/instances/web")["status"] != "running":
        cloud.clock.advance(0.1)
        cloud.executor.run_due()
    document = admin.refused("POST", "/v1/instances/web/actions/exec", command, status=409, code="guest_unavailable")
    assert document["retryable"]
    settle(cloud)
    admin.send("POST", "/v1/instances/web/actions/stop", status=202)
    settle(cloud)
    admin.refused("POST", "/v1/instances/web/actions/exec", command, status=409, code="invalid_state")
    assert admin.get("/v1/instances/web/console")["output"]


def test_no_room(database_url: str | None) -> None:
    shape: dict[str, Any] = {"hosts_per_zone": 1, "vcpus": 3, "memory_mib": 1024, "disk_gib": 10}
    with open_cloud(zones=("zone-1",), database_url=database_url, **shape) as cloud:
        admin = Caller(create_app(cloud), TOKEN)
        for shape in ({"vcpus": 4, "memory_mib": 64}, {"vcpus": 1, "memory_mib": 1025}, {"flavor": "small"}):
            body = {"kind": "vm", "image": "tiny", "root_disk_gib": 11 if "flavor" in shape else 1, **shape}
            document = admin.refused("POST", "/v1/instances", body, status=409, code="out_of_capacity")
            assert document["retryable"]
        assert used_capacity(cloud) == (0, 0, 0)
        made = [make(admin)["id"] for _ in range(3)]
        admin.refused("POST", "/v1/instances", NEW, status=409, code="out_of_capacity")
        settle(cloud)
        admin.send("DELETE", f"/v1/instances/{made[0]}", status=202)
        admin.refused("POST", "/v1/instances", NEW, status=409, code="out_of_capacity")
        settle(cloud)
        make(admin)
        settle(cloud)
        admin.send("POST", f"/v1/instances/{made[1]}/actions/stop", status=202)
        settle(cloud)
        path = f"/v1/instances/{made[1]}/actions/resize"
        admin.refused("POST", path, {"vcpus": 2, "memory_mib": 64}, status=409, code="out_of_capacity")
        admin.refused("POST", path, {"vcpus": 1, "memory_mib": 1000}, status=409, code="out_of_capacity")
        admin.send("POST", path, {"vcpus": 1, "memory_mib": 768}, status=202)
        settle(cloud)
        assert_consistent(cloud)


@pytest.mark.parametrize("error", [BackendDownError("the daemon is away"), TransientError("not now")])
def test_a_backend_that_is_down(admin: Caller, cloud: Cloud, error: DriverError) -> None:
    made = make(admin, name="web")
    settle(cloud)
    before = snapshot(cloud)
    faults = world(cloud).faults
    path = f"/v1/instances/{made['id']}"
    for method, target, body in (
        ("POST", "/v1/instances", NEW),
        ("POST", "/v1/instances:batch", {"instances": [NEW, {**NEW, "kind": "vm"}]}),
        ("POST", f"{path}/actions/stop", None),
        ("POST", f"{path}/actions/restart", None),
        ("POST", f"{path}/actions/rebuild", None),
        ("DELETE", path, None),
    ):
        faults.fail_next("check_available", error)
        document = admin.refused(method, target, body, status=503, code="backend_unavailable")
        assert document["retryable"]
        assert document["detail"] == str(error)
        assert faults.waiting() == 0
    faults.fail_next("execute", error)
    admin.refused("POST", f"{path}/actions/exec", {"command": ["id"]}, status=503, code="backend_unavailable")
    faults.fail_next("read_console", error)
    admin.refused("GET", f"{path}/console", status=503, code="backend_unavailable")
    assert snapshot(cloud) == before
    assert_consistent(cloud)
    faults.fail_next("check_available", error)
    health = admin.get("/v1/health")
    assert (health["status"], list(health["problems"].values())) == ("degraded", [str(error)])
    assert admin.get("/v1/instances/web")["status"] == "running"


def test_other_faults_of_drivers(admin: Caller, cloud: Cloud) -> None:
    make(admin, name="web")
    settle(cloud)
    path = "/v1/instances/web/actions/exec"
    faults = world(cloud).faults
    for error, status, code in (
        (GuestUnavailableError("the agent is away"), 409, "guest_unavailable"),
        (PermanentError("never"), 409, "invalid_state"),
    ):
        faults.fail_next("execute", error)
        admin.refused("POST", path, {"command": ["id"]}, status=status, code=code)


def test_a_backend_without_exec_and_console(admin: Caller, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    make(admin, name="web")
    settle(cloud)
    for driver in cloud.backend.compute.values():
        assert isinstance(driver, SimComputeDriver)
        monkeypatch.setattr(driver, "capabilities", frozenset())
    admin.refused("POST", "/v1/instances/web/actions/exec", {"command": ["id"]}, status=409, code="not_supported")
    admin.refused("GET", "/v1/instances/web/console", status=409, code="not_supported")


def test_waiting_for_a_job_beyond_the_cap_answers_at_once() -> None:
    with open_cloud(max_waiters=0) as cloud:
        admin = Caller(create_app(cloud), TOKEN)
        job = admin.send("POST", "/v1/instances", NEW, status=202)["job"]
        assert admin.get(f"/v1/jobs/{job['id']}", wait=60)["status"] == "queued"
