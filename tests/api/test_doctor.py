"""/v1/doctor, the SDK and ``iaas doctor`` over it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from iaas.cloud import Cloud
from iaas.drivers.interface import MachineKind
from tests.api.calling import Caller, make
from tests.factories import settle
from tests.server_process import ServerProcess

CHECK, REPAIR = "/v1/doctor/actions/check", "/v1/doctor/actions/repair"

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


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


def test_what_the_page_says_to_try_works(tmp_path: Path) -> None:
    [commands] = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/doctor.md").read_text(), re.DOTALL)
    with ServerProcess(BIN / "iaas", tmp_path / "cloud"):
        done = subprocess.run(
            ["sh", "-c", f"{commands}\necho; iaas doctor"],
            cwd=tmp_path,
            env={
                "PATH": f"{BIN}:{os.environ['PATH']}",
                "HOME": str(tmp_path),
                "COLUMNS": "200",
                "IAAS_CREDENTIALS": str(tmp_path / "cloud/credentials.json"),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    words = [line.split()[:2] for line in done.stdout.splitlines()]
    drifts = ["lost_machine", "quota_counters"]
    assert [line for line in words if line[:1] == ["found"]] == [["found", drift] for drift in drifts], done
    assert [line for line in words if line[:1] == ["repaired"]] == [["repaired", drift] for drift in drifts]
    assert re.search(r" lost +container +failed ", done.stdout)
    assert done.stdout.count("doctor.drift_found") == done.stdout.count("doctor.drift_repaired") == 2
    assert done.stdout.count("all is well") == 3  # of the repair, and twice of a look
    assert done.stdout.splitlines()[-1].startswith("all is well (0 instances, 0 machines, ")
