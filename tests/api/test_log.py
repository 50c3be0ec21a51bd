"""What a real server writes into its log: every line of one request, from HTTP to the driver's call."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from iaas.client import Client
from tests.server_process import ServerProcess

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The log of a server that made one instance, asked for by request id ``find-me``."""
    folder = tmp_path_factory.mktemp("log")
    extra = ["--log-json", "--log-level", "debug"]
    with ServerProcess(BIN / "iaas", folder / "state", extra=extra, log=folder / "log") as server:
        assert server.url
        with Client(credentials_file=folder / "state" / "credentials.json") as client:
            body = {"kind": "vm", "image": "tiny", "flavor": "nano", "name": "web"}
            answer = client.request("POST", "/v1/instances", body=body, headers={"X-Request-Id": "find-me"})
            client.jobs.get(answer["job"]["id"]).wait()
            client.instances.get("web").wait_until_ready()
    return [json.loads(line) for line in (folder / "log").read_text().splitlines()]


def test_every_line_is_json_with_time_level_and_event(written: list[dict[str, Any]]) -> None:
    for line in written:
        assert {"timestamp", "level", "event"} <= line.keys()
        assert None not in line.values()


def test_one_request_is_followed_from_http_to_the_driver(written: list[dict[str, Any]]) -> None:
    mine = [line for line in written if line.get("request_id") == "find-me"]
    [answered] = [line for line in mine if line["event"] == "request"]
    assert (answered["method"], answered["route"], answered["status"]) == ("POST", "/v1/instances", 202)
    assert answered["ms"] > 0
    ended = {line["action"]: line for line in mine if line["event"] == "job_ended"}
    assert ended.keys() == {"instance.create", "instance.watch_guest"}
    assert ended["instance.create"]["status"] == "succeeded"
    calls = [line for line in mine if line.get("logger") == "iaas.drivers.calls"]
    by_step = {(line.get("action"), line.get("step")) for line in calls}
    assert {
        ("instance.create", "ensure_image"),
        ("instance.create", "ensure_network"),
        ("instance.create", "ensure_machine"),
        ("instance.create", "start_machine"),
        ("instance.create", "await_running"),
        ("instance.watch_guest", "await_guest"),
    } <= by_step
    jobs = {line["job_id"] for line in calls if "job_id" in line}
    assert jobs == {line["job_id"] for line in ended.values()}
    assert any("vm.start_machine(i-" in line["event"] for line in calls)


def test_no_secret_is_written(written: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> None:
    text = json.dumps(written)
    assert "Bearer" not in text
    assert "iaas_" not in text.replace("iaas_http", "")
