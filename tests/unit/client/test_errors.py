from __future__ import annotations

import inspect
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from iaas.client import APIError, Conflict, ServerError
from iaas.client import errors as sdk
from iaas.client.errors import api_error
from iaas.kernel import errors as kernel

TABLE = [
    (400, "malformed", sdk.InvalidInput),
    (401, "unauthenticated", sdk.Unauthenticated),
    (403, "permission_denied", sdk.PermissionDenied),
    (403, "quota_exceeded", sdk.QuotaExceeded),
    (404, "not_found", sdk.NotFound),
    (405, "method_not_allowed", sdk.InvalidInput),
    (413, "payload_too_large", sdk.InvalidInput),
    (415, "unsupported_media_type", sdk.InvalidInput),
    (409, "in_transition", sdk.InTransition),
    (409, "invalid_state", sdk.InvalidState),
    (409, "in_use", sdk.InUse),
    (409, "not_cancellable", sdk.NotCancellable),
    (409, "name_taken", sdk.NameTaken),
    (409, "out_of_capacity", sdk.OutOfCapacity),
    (409, "guest_unavailable", sdk.GuestUnavailable),
    (409, "not_supported", sdk.NotSupported),
    (410, "events_expired", sdk.EventsExpired),
    (412, "precondition_failed", sdk.PreconditionFailed),
    (422, "invalid_input", sdk.InvalidInput),
    (429, "rate_limited", sdk.RateLimited),
    (500, "internal", sdk.ServerError),
    (503, "backend_unavailable", sdk.BackendUnavailable),
]


def answer(status: int, **body: object) -> APIError:
    return api_error(status, json.dumps(body).encode(), {})


@pytest.mark.parametrize(("status", "code", "expected"), TABLE)
def test_each_code_has_its_class(status: int, code: str, expected: type[APIError]) -> None:
    error = answer(status, code=code, detail="a sentence")
    assert type(error) is expected
    assert (error.status, error.code, str(error)) == (status, code, "a sentence")


def test_no_code_of_the_cloud_is_missing_in_the_table() -> None:
    codes = {cls.code for _, cls in inspect.getmembers(kernel, inspect.isclass) if issubclass(cls, kernel.CloudError)}
    assert codes <= {code for _, code, _ in TABLE}


def test_code_of_a_newer_server_falls_back_to_its_status() -> None:
    assert type(answer(409, code="moon_phase")) is Conflict
    assert answer(409, code="moon_phase").code == "moon_phase"
    assert type(answer(418, code="teapot")) is APIError
    assert type(answer(599)) is ServerError


def test_problem_is_kept_whole() -> None:
    error = answer(
        422,
        code="invalid_input",
        detail="d",
        errors=[{"field": "labels.a", "code": "too_long", "message": "is too long"}],
        blockers=[{"type": "nic", "id": "nic-1"}],
        resource={"type": "instance", "id": "i-1"},
        retryable=False,
        request_id="req-1",
    )
    assert error.errors == (kernel.FieldError("labels.a", "too_long", "is too long"),)
    assert error.blockers == (kernel.ResourceRef("nic", "nic-1"),)
    assert error.resource == kernel.ResourceRef("instance", "i-1")
    assert (error.request_id, error.retryable) == ("req-1", False)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'{"errors": 3, "blockers": [1]}', b"\xff"])
def test_body_of_any_kind_gives_an_error(body: bytes) -> None:
    error = api_error(502, body, {"x-request-id": "req-9"})
    assert type(error) is ServerError
    assert "502" in str(error)
    assert error.request_id == "req-9"


def test_plain_text_of_a_proxy_is_shown() -> None:
    assert str(api_error(502, b"upstream\n gone", {"content-type": "text/plain"})) == "upstream gone"


def test_retry_after_may_be_a_date() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    seconds = sdk.retry_after_s(later)
    assert seconds is not None
    assert 55 < seconds <= 60
    assert sdk.retry_after_s("soon") is None
    assert sdk.retry_after_s("7") == 7
