"""Which requests take turns, and that whoever must wait for something takes none."""

from __future__ import annotations

import io
from typing import Any

import pytest
from werkzeug.test import EnvironBuilder

from iaas.api.turns import InTurns
from iaas.kernel.turns import Turns


class Input(io.BytesIO):
    """A body that tells whether somebody had the turn while it was read."""

    def __init__(self, body: bytes, turns: Turns) -> None:
        super().__init__(body)
        self._turns = turns
        self.was_read_in_a_turn: bool | None = None

    def read(self, *args: Any) -> bytes:
        self.was_read_in_a_turn = self._turns.is_taken
        return super().read(*args)


def call(method: str, path: str, *, changes: dict[str, str] | None = None, **options: Any) -> tuple[bool, bool | None]:
    """Return whether the application ran in a turn, and whether its body was read in one."""
    turns = Turns()
    seen: list[bool] = []

    def app(environ: dict[str, Any], _start_response: Any) -> list[bytes]:
        seen.append(turns.is_taken)
        return []

    environ = EnvironBuilder(path, method=method, **options).get_environ()
    environ |= changes or {}
    body = Input(environ["wsgi.input"].read(), turns)
    environ["wsgi.input"] = body
    InTurns(app, turns)(environ, lambda *_args: None)  # type: ignore[arg-type, return-value]  # nobody writes here
    assert not turns.is_taken
    return seen[0], body.was_read_in_a_turn


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/instances"),
        ("POST", "/v1/instances:batch"),
        ("POST", "/v1/instances/web/actions/stop"),
        ("GET", "/v1/instances?limit=3"),
        ("GET", "/v1/jobs/job-1"),
        ("DELETE", "/v1/instances/web"),
    ],
)
def test_what_only_computes_takes_a_turn_and_its_body_is_there_before(method: str, path: str) -> None:
    in_turn, read_in_turn = call(method, path, data=b"{}" if method == "POST" else None)
    assert in_turn
    assert read_in_turn is (False if method == "POST" else None)


@pytest.mark.parametrize(
    ("method", "path", "options"),
    [
        ("GET", "/v1/jobs/job-1?wait=30", {}),
        ("GET", "/v1/events?wait=30", {}),
        ("GET", "/v1/instances/web/console", {}),
        ("POST", "/v1/instances/web/actions/exec", {}),
        ("POST", "/v1/doctor", {}),
        ("POST", "/v1/instances", {"changes": {"HTTP_TRANSFER_ENCODING": "chunked"}}),
        ("POST", "/v1/instances", {"changes": {"CONTENT_LENGTH": "-5"}}),
        ("POST", "/v1/instances", {"changes": {"CONTENT_LENGTH": "nine"}}),
        ("POST", "/v1/instances", {"data": b"x" * 1_100_000}),
        ("BREW", "/v1/instances", {}),
    ],
)
def test_what_may_wait_takes_none(method: str, path: str, options: dict[str, Any]) -> None:
    assert call(method, path, **options)[0] is False
