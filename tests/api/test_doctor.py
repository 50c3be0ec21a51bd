"""/v1/doctor, the SDK and ``iaas doctor`` over it."""

from __future__ import annotations

import json

from iaas.cloud import Cloud
from iaas.drivers.interface import MachineKind
from tests.api.calling import Caller, make
from tests.factories import settle

CHECK, REPAIR = "/v1/doctor/actions/check", "/v1/doctor/actions/repair"


def test_a_report_of_nothing_before_the_first_look(admin: Caller) -> None:
    assert admin.get("/v1/doctor") == {
        "looked_at": None,
        "duration_s": 0.0,
        "checked": {},
        "unchecked": {},
        "findings": [],
        "omitted": {},
        "repaired": [],
    }


def test_check_finds_and_repair_repairs(admin: Caller, cloud: Cloud) -> None:
    lost = make(admin)["id"]
    settle(cloud)
    assert admin.send("POST", CHECK, status=200)["checked"]["machines"] == 1
    cloud.backend.compute[MachineKind.CONTAINER].remove_machine(lost)
    report = admin.send("POST", CHECK, status=200)
    [finding] = report["findings"]
    assert (finding["drift"], finding["resource"]) == ("lost_machine", {"type": "instance", "id": lost})
    assert finding["repair"]
    assert finding["reason"] is None
    assert admin.get("/v1/doctor") == report
    assert admin.get(f"/v1/instances/{lost}")["status"] == "running", "a check changes nothing"
    report = admin.send("POST", REPAIR, status=200)
    assert report["findings"] == []
    assert [each["drift"] for each in report["repaired"]] == ["lost_machine"]
    shown = admin.get(f"/v1/instances/{lost}")
    assert (shown["status"], shown["failure"]["code"]) == ("failed", "machine_lost")


def test_a_key_makes_one_repair_of_two_requests(admin: Caller, cloud: Cloud) -> None:
    headers = {"Idempotency-Key": "once"}
    first = admin.call("POST", REPAIR, headers=headers)
    again = admin.call("POST", REPAIR, headers=headers)
    assert (first.status_code, first.json) == (200, json.loads(again.data))


def test_it_is_for_the_operator(member: Caller, reader: Caller, nobody: Caller) -> None:
    for path, method in ((CHECK, "POST"), (REPAIR, "POST"), ("/v1/doctor", "GET")):
        for caller in (member, reader):
            caller.refused(method, path, status=403, code="permission_denied")
        nobody.refused(method, path, status=401, code="unauthenticated")


def test_two_at_once_are_one_too_many(admin: Caller, cloud: Cloud) -> None:
    with cloud.doctor._alone():
        admin.refused("POST", CHECK, status=409, code="in_transition")


def test_bodies_and_parameters_are_refused(admin: Caller) -> None:
    admin.refused("POST", CHECK, {"repair": True}, status=422, code="invalid_input")
    admin.refused("GET", "/v1/doctor?fresh=1", status=422, code="invalid_input")
