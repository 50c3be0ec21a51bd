"""/metrics, and what one create leaves in the log."""

from __future__ import annotations

from flask import Flask

from iaas.api.app import create_app
from iaas.cloud import Cloud
from iaas.drivers.interface import BackendDownError
from tests.api.calling import Caller, make
from tests.factories import open_cloud, settle, world

TEXT = "text/plain"


def lines(app: Flask, admin: Caller) -> dict[str, float]:
    """Return all samples by name and labels."""
    response = admin.call("GET", "/metrics")
    assert response.status_code == 200
    assert response.mimetype == TEXT
    samples = (line.rpartition(" ") for line in response.text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


def test_requests_jobs_steps_and_capacity_are_counted(app: Flask, admin: Caller, cloud: Cloud) -> None:
    instance = make(admin)["id"]
    settle(cloud)
    admin.get(f"/v1/instances/{instance}")
    admin.refused("GET", "/v1/instances/i-none0000", status=404, code="not_found")
    admin.refused("GET", "/nowhere/at/all", status=404, code="not_found")
    found = lines(app, admin)
    route = 'route="/v1/instances/<instance>"'
    assert found[f'iaas_http_requests_total{{method="GET",{route},status="200"}}'] == 1
    assert found[f'iaas_http_requests_total{{method="GET",{route},status="404"}}'] == 1
    assert found[f'iaas_http_request_seconds_count{{method="GET",{route}}}'] == 2
    assert found['iaas_http_requests_total{method="GET",route="(none)",status="404"}'] == 1
    assert found['iaas_jobs_finished_total{action="instance.create",status="succeeded"}'] == 1
    assert found['iaas_step_seconds_count{action="instance.create",outcome="done",step="start_machine"}'] == 1
    assert found['iaas_instances{kind="container",status="running"}'] == 1
    assert sum(value for name, value in found.items() if name.startswith("iaas_host_used{") and "vcpus" in name) == 1
    assert found["iaas_agenda_jobs"] == 0
    assert found["iaas_store_group_size_count"] > 0
    assert found['iaas_waits{what="stream"}'] == 0
    assert not any(instance in name for name in found), "a tenant's id is in the metrics"
    assert not any(name.partition("{")[0].endswith("_created") for name in found), "one more series for each counter"


def test_retries_failures_and_the_agenda(app: Flask, admin: Caller, cloud: Cloud) -> None:
    world(cloud).faults.fail_next("ensure_machine", BackendDownError("not now"), count=3)
    make(admin)
    cloud.executor.run_due()
    cloud.clock.advance(100)
    found = lines(app, admin)
    assert found["iaas_agenda_jobs"] == 1
    assert 90 < found["iaas_agenda_oldest_due_seconds"] <= 100
    assert found['iaas_step_retries_total{action="instance.create",step="ensure_machine"}'] == 1
    settle(cloud)
    assert lines(app, admin)['iaas_step_retries_total{action="instance.create",step="ensure_machine"}'] == 3


def test_who_may_read_them(app: Flask, member: Caller, nobody: Caller, cloud: Cloud) -> None:
    nobody.refused("GET", "/metrics", status=401, code="unauthenticated")
    member.refused("GET", "/metrics", status=403, code="permission_denied")
    opened = Caller(create_app(cloud, metrics_open=True), None)
    assert opened.call("GET", "/metrics").status_code == 200
    opened.refused("GET", "/v1/instances", status=401, code="unauthenticated")


def test_each_cloud_has_its_own(admin: Caller, cloud: Cloud) -> None:
    make(admin)
    settle(cloud)
    with open_cloud() as other:
        assert b"instance.create" not in other.metrics.text()


def test_counting_in_the_database_is_cached(app: Flask, admin: Caller, cloud: Cloud) -> None:
    lines(app, admin)
    make(admin)
    settle(cloud)
    assert not any(name.startswith("iaas_instances{") for name in lines(app, admin))
