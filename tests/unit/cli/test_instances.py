from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run
from tests.unit.client.fake_cloud import FakeCloud, problem

CREATE = ("instance", "create", "--kind", "vm", "--image", "tiny", "--name", "web")


def test_list_is_an_aligned_table_without_trailing_blanks(run: Run, cloud: FakeCloud) -> None:
    cloud.add_instance("web", transition="stopping")
    cloud.add_instance("a-much-longer-name", flavor=None, address=None)
    result = run("instance", "list")
    head, first, second = result.out.splitlines()
    assert head.split() == ["ID", "NAME", "KIND", "STATUS", "FLAVOR", "IMAGE", "ADDRESS", "READY"]
    assert "running (stopping)" in first
    assert "1 vCPU, 256 MiB" in second
    assert first.index("web") == second.index("a-much-longer-name") == head.index("NAME")
    assert first == first.rstrip()
    assert (result.status, result.err) == (0, "")


def test_empty_list_is_the_head_alone(run: Run) -> None:
    assert run("instance", "list").out.startswith("ID   NAME")


def test_json_is_what_the_api_gave(run: Run, cloud: FakeCloud) -> None:
    made = [cloud.add_instance(f"web-{i}") for i in range(3)]
    assert json.loads(run("-o", "json", "instance", "list").out) == {"items": made, "next_cursor": None}
    page = run("instance", "list", "--limit", "2", "--output", "json").out
    assert json.loads(page) == {"items": made[:2], "next_cursor": "2"}
    assert json.loads(run("instance", "get", "web-1", "-o", "json").out) == made[1]


def test_later_global_option_counts(run: Run, cloud: FakeCloud) -> None:
    cloud.add_instance("web")
    assert run("-o", "json", "instance", "list", "-o", "table").out.startswith("ID")


def test_get_shows_all_fields_also_unknown_ones(run: Run, cloud: FakeCloud) -> None:
    cloud.add_instance("we\x1b[2Jb", labels={"a": "b", "c": "d"})
    result = run("instance", "get", "i-00000001")
    assert "\x1b" not in result.out
    lines = dict(line.split("   ", 1) for line in result.out.splitlines())
    assert {name.strip(): value.strip() for name, value in lines.items()}["labels"] == "a=b, c=d"
    assert "new_in_version_9" in result.out


def test_filters_are_sent(run: Run, cloud: FakeCloud) -> None:
    run("instance", "list", "--label", "a=b", "--label", "!c", "--status", "running", "--sort", "-name")
    query = dict(cloud.requests[-1].url.params)
    assert query == {"label_selector": "a=b,!c", "status": "running", "sort": "-name"}


def test_create_does_not_wait_by_itself(run: Run, cloud: FakeCloud, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_text("#!/bin/sh\n")
    result = run(*CREATE, "--label", "a=b=c", "--key-pair", "me", "--user-data", str(data), "-o", "json")
    assert cloud.body() == {
        "kind": "vm",
        "image": "tiny",
        "flavor": "micro",
        "name": "web",
        "labels": {"a": "b=c"},
        "key_pairs": ["me"],
        "user_data": "#!/bin/sh\n",
    }
    answer = json.loads(result.out)
    assert answer["instance"]["transition"] == "creating"
    assert answer["job"]["status"] == "queued"
    assert len(cloud.requests) == 1


def test_wait_tells_steps_on_standard_error(run: Run, cloud: FakeCloud) -> None:
    result = run(*CREATE, "--wait")
    assert result.err.splitlines() == [
        "web: instance.create 0/2 wait",
        "web: instance.create 1/2 start_machine",
        "web: instance.create succeeded",
    ]
    assert "running" in result.out
    assert json.loads(run(*CREATE, "--wait", "-o", "json").out)["job"]["status"] == "succeeded"


def test_ready_waits_for_the_guest(run: Run, cloud: FakeCloud) -> None:
    result = run(*CREATE, "--ready")
    assert result.err.endswith("web: waiting for its guest\n")
    assert "2026-01-31T12:00:00Z" in result.out


def test_failed_job_is_status_8(run: Run, cloud: FakeCloud) -> None:
    cloud.job_error = {"code": "no_capacity", "message": "the pool is full"}
    result = run(*CREATE, "--wait")
    assert result.status == 8
    assert result.err.endswith("iaas: instance.create: the pool is full\n")


def test_wait_that_takes_too_long_is_status_7(run: Run, cloud: FakeCloud) -> None:
    cloud.polls_per_job = 10**6
    result = run(*CREATE, "--wait", "--wait-timeout", "0.2")
    assert (result.status, result.err.splitlines()[-1]) == (7, "iaas: instance.create is not through after 0.2 s")


def test_count_makes_a_batch(run: Run, cloud: FakeCloud) -> None:
    result = run(*CREATE, "--count", "3", "--wait", "-o", "json")
    assert [each["name"] for each in cloud.body(0)["instances"]] == ["web-1", "web-2", "web-3"]
    assert [each["status"] for each in json.loads(result.out)["instances"]] == ["running"] * 3


def test_numbers_replace_the_default_flavor(run: Run, cloud: FakeCloud) -> None:
    run(*CREATE, "--vcpus", "2", "--memory-mib", "512", "--nesting")
    assert cloud.body() == {
        "kind": "vm",
        "image": "tiny",
        "name": "web",
        "vcpus": 2,
        "memory_mib": 512,
        "nesting": True,
    }


@pytest.mark.parametrize(
    ("line", "path", "body"),
    [
        (("stop", "web", "--force", "--timeout", "5"), "stop", {"force": True, "timeout_s": 5}),
        (("restart", "web"), "restart", {}),
        (("resize", "web", "--flavor", "large"), "resize", {"flavor": "large"}),
        (("rebuild", "web", "--image", "debian"), "rebuild", {"image": "debian"}),
    ],
)
def test_verbs(run: Run, cloud: FakeCloud, line: tuple[str, ...], path: str, body: object) -> None:
    cloud.add_instance("web")
    assert run("instance", *line, "--wait").status == 0
    call = next(i for i, request in enumerate(cloud.requests) if request.method == "POST")
    assert cloud.requests[call].url.path == f"/v1/instances/i-00000001/actions/{path}"
    assert cloud.body(call) == body


def test_wrong_state_is_status_4(run: Run, cloud: FakeCloud) -> None:
    cloud.add_instance("web")
    result = run("instance", "start", "web")
    assert (result.status, result.err) == (4, "iaas: instance is running\n")


def test_delete_of_several_touches_none_when_one_is_unknown(run: Run, cloud: FakeCloud) -> None:
    cloud.add_instance("a")
    cloud.add_instance("b")
    result = run("instance", "delete", "a", "c", "b")
    assert (result.status, result.err) == (3, "iaas: there is no instance c\n")
    assert [request.method for request in cloud.requests] == ["GET", "GET"]
    assert run("instance", "delete", "a", "b", "--wait").status == 0
    assert cloud.instances == {}


def test_update(run: Run, cloud: FakeCloud) -> None:
    cloud.add_instance("web")
    assert "db" in run("instance", "update", "web", "--name", "db", "--label", "a=b", "--remove-label", "c").out
    assert cloud.body() == {"name": "db", "labels": {"a": "b", "c": None}}


def test_exec_passes_output_and_status_through(run: Run, cloud: FakeCloud) -> None:
    cloud.add_instance("web")
    cloud.exec_result = {"exit_code": 42, "stdout": "out\n", "stderr": "err", "truncated": False}
    result = run("instance", "exec", "web", "--timeout", "5", "--", "sh", "-c", "exit 42", "-o")
    assert (result.status, result.out, result.err) == (42, "out\n", "err")
    assert cloud.body() == {"command": ["sh", "-c", "exit 42", "-o"], "timeout_s": 5}


def test_exec_where_nobody_answers(run: Run, cloud: FakeCloud) -> None:
    cloud.add_instance("web")
    cloud.overrides.append(
        lambda request: problem(409, "guest_unavailable", "no agent") if request.method == "POST" else None
    )
    assert (run("instance", "exec", "web", "true").status) == 4


def test_console(run: Run, cloud: FakeCloud) -> None:
    cloud.add_instance("web")
    assert run("instance", "console", "web").out == "login: \n"
    assert json.loads(run("instance", "console", "web", "-o", "json").out) == {"output": "login: "}
