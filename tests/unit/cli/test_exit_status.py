from __future__ import annotations

import inspect

import httpx
import pytest

from iaas.cli.exit_status import CommandError, ExitStatus, exit_status, one_line
from iaas.client import errors
from iaas.client.errors import api_error
from tests.unit.cli.conftest import Run
from tests.unit.client.fake_cloud import FakeCloud, problem

SERVER = ("serve=iaas.api.commands:register_serve",)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (problem(404, "not_found"), 3),
        (problem(409, "invalid_state"), 4),
        (problem(409, "out_of_capacity"), 4),
        (problem(412, "precondition_failed"), 4),
        (problem(401, "unauthenticated"), 5),
        (problem(403, "permission_denied"), 5),
        (problem(403, "quota_exceeded"), 5),
        (problem(503, "backend_unavailable"), 6),
        (httpx.ReadTimeout("late"), 6),
        (httpx.Response(502, text="bad gateway"), 6),
        (problem(422, "invalid_input"), 1),
        (problem(500, "internal"), 1),
        (httpx.Response(200, text="<html>"), 1),
    ],
)
def test_each_failure_has_its_status_and_one_line(
    run: Run, cloud: FakeCloud, answer: httpx.Response | Exception, status: int
) -> None:
    cloud.answer_next(answer)
    result = run("instance", "list")
    assert (result.status, result.out) == (status, "")
    assert result.err.startswith("iaas: ")
    assert result.err.count("\n") == 1


def test_faulty_fields_and_blockers_are_named(run: Run, cloud: FakeCloud) -> None:
    fault = {"field": "flavor", "code": "unknown", "message": "there is no flavor huge"}
    cloud.answer_next(problem(422, "invalid_input", "the request is not valid", errors=[fault]))
    result = run("instance", "create", "--kind", "vm", "--image", "tiny", "--flavor", "huge")
    assert result.err == "iaas: the request is not valid (flavor: there is no flavor huge)\n"
    cloud.answer_next(problem(422, "invalid_input", "flavor: there is no flavor huge", errors=[fault]))
    assert run("zone", "list").err == "iaas: flavor: there is no flavor huge\n"
    quota = {"field": "instances", "code": "quota", "message": "the quota of instances is 4: 4 in use"}
    cloud.answer_next(problem(403, "quota_exceeded", "the quota of instances is 4: 4 in use", errors=[quota]))
    assert run("zone", "list").err == "iaas: the quota of instances is 4: 4 in use\n"
    cloud.answer_next(problem(409, "in_use", "the project is in use", blockers=[{"type": "instance", "id": "i-1"}]))
    assert run("project", "delete", "p").err == "iaas: the project is in use (in the way: instance i-1)\n"


@pytest.mark.parametrize(
    "line",
    [
        ("instance", "lst"),
        ("nothing",),
        ("instance", "list", "--colour"),
        ("instance", "get"),
        ("instance", "create", "--kind", "toaster", "--image", "tiny"),
        ("instance", "create", "--kind", "vm", "--image", "tiny", "--label", "novalue"),
        ("instance", "update", "web"),
        ("instance", "forward", "web", "a:b"),
        ("key-pair", "create", "me"),
        ("-o", "yaml", "zone", "list"),
        ("instance", "list", "--endpoint", "nowhere"),
        ("instance", "list", "--credentials", "/nonexistent/c.json"),
        ("serve", "--listen", "nonsense"),
        ("serve", "--backend", "nonsense"),
        ("serve", "--quota", "bananas=3"),
    ],
)
def test_wrong_use_is_status_2_and_sends_nothing(run: Run, cloud: FakeCloud, line: tuple[str, ...]) -> None:
    result = run(*line, plugins=SERVER)
    assert result.status == 2
    assert result.err.startswith("iaas: ")
    assert ("No such command" in result.err) == (line in (("nothing",), ("instance", "lst")))
    assert result.err.count("\n") == 1
    assert cloud.requests == []


@pytest.mark.parametrize("option", [("--doctor-every", "600"), ("--doctor-every", "0"), ("--doctor-repairs",)])
def test_a_server_of_a_fleet_takes_no_option_that_it_would_not_heed(run: Run, option: tuple[str, ...]) -> None:
    fleet = ("serve", "--workers", "external", "--database", "postgresql+psycopg://nobody@127.0.0.1:1/none")
    result = run(*fleet, *option, plugins=SERVER)
    assert result.status == 2
    assert option[0] in result.err
    assert "iaas worker" in result.err


def test_typo_is_met_with_a_suggestion(run: Run) -> None:
    assert "Did you mean 'list'" in run("instance", "lst").err


def test_ctrl_c_is_quiet(run: Run, cloud: FakeCloud) -> None:
    def interrupt(_: httpx.Request) -> None:
        raise KeyboardInterrupt

    cloud.overrides.append(interrupt)
    result = run("instance", "list")
    assert (result.status, result.out, result.err) == (130, "", "")


def test_missing_file_is_one_line(run: Run) -> None:
    result = run("instance", "create", "--kind", "vm", "--image", "tiny", "--user-data", "/nonexistent/file")
    assert (result.status, result.err) == (1, "iaas: /nonexistent/file: No such file or directory\n")


def test_text_of_others_cannot_drive_the_terminal() -> None:
    assert one_line(CommandError("a\x1b[31m\nb")) == "a\N{REPLACEMENT CHARACTER}[31m b"


def test_every_class_of_the_sdk_has_a_status() -> None:
    for _, cls in inspect.getmembers(errors, inspect.isclass):
        if issubclass(cls, errors.APIError):
            assert exit_status(cls("m", status=400, code="c")) in ExitStatus
    assert exit_status(api_error(504, b"", {})) is ExitStatus.UNAVAILABLE
