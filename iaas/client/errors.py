"""What can go wrong for a caller of the SDK: one tree, told apart by class, with the server's stable code kept.

``IaasError`` is the base. ``APIError`` and its subclasses are answers of the server; the rest happen on this
side. A code this SDK does not know yet falls back to the class of its HTTP status, so that a newer server
never breaks ``except`` clauses.
"""

from __future__ import annotations

import email.utils
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from iaas.kernel.errors import FieldError, ResourceRef

if TYPE_CHECKING:
    from iaas.client.jobs import Job


class IaasError(Exception):
    """Base of all. ``message`` is one sentence for people."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ConfigurationError(IaasError):
    """No endpoint is known, or endpoint, token or credentials file cannot be used."""


class ConnectionFailed(IaasError):
    """The server could not be reached, or the connection broke before it had answered."""


class UnexpectedAnswer(IaasError):
    """The server's answer is not of the shape the API promises (often: not this server at all)."""


class WaitTimeout(IaasError):
    """The time given to a wait is over. What was waited for goes on; ``job`` is its last known state, if it was one."""

    def __init__(self, message: str, *, job: Job | None = None) -> None:
        super().__init__(message)
        self.job = job


class JobFailed(IaasError):
    """The job ended as ``failed`` or ``cancelled``; ``code`` is the job's own error code."""

    def __init__(self, job: Job) -> None:
        reason = job.error.message if job.error else job.status
        super().__init__(f"{job.action}: {reason}")
        self.job = job
        self.code = job.error.code if job.error else job.status


class NeverReady(IaasError):
    """The instance rests in a state in which its guest will not answer (stopped, failed, deleted)."""


class APIError(IaasError):
    """The server refused. ``str(error)`` is its sentence, ``code`` the stable word to compare with.

    ``errors`` names the faulty fields, ``blockers`` the resources in the way, ``retryable`` says whether the
    same call may succeed later; ``retry_after_s`` when the server said how much later.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str,
        errors: Sequence[FieldError] = (),
        blockers: Sequence[ResourceRef] = (),
        resource: ResourceRef | None = None,
        request_id: str | None = None,
        retryable: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.errors = tuple(errors)
        self.blockers = tuple(blockers)
        self.resource = resource
        self.request_id = request_id
        self.retryable = retryable
        self.retry_after_s = retry_after_s


class InvalidInput(APIError):
    """The request is wrong as it stands; ``errors`` names the fields."""


class Unauthenticated(APIError):
    """No token, or one the server does not know."""


class PermissionDenied(APIError):
    """The token's role does not allow this."""


class QuotaExceeded(APIError):
    """The project's quota does not allow more."""


class NotFound(APIError):
    """Absent, or another project's; the server tells nobody which."""


class PreconditionFailed(APIError):
    """The resource was changed since it was read (``If-Match``)."""


class EventsExpired(APIError):
    """The server no longer keeps all events after the given one, or never had that one (its database was replaced):
    list the resources anew, then follow."""


class RateLimited(APIError):
    """Too many requests; ``retry_after_s`` says when to come back."""


class ServerError(APIError):
    """The server's own fault."""


class BackendUnavailable(ServerError):
    """The hypervisor or daemon behind the server does not answer; nothing was done."""


class Conflict(APIError):
    """The state of things does not allow it; base of the more precise ones."""


class InvalidState(Conflict):
    """The resource rests in a state that does not allow this action."""


class InTransition(Conflict):
    """Another action is under way on the resource."""


class NotCancellable(Conflict):
    """The job has ended, or is beyond the point from which there is a way back."""


class InUse(Conflict):
    """Others depend on the resource: ``blockers``."""


class NameTaken(Conflict):
    """The project has a resource of that type and name already."""


class OutOfCapacity(Conflict):
    """No host has room for it."""


class GuestUnavailable(Conflict):
    """The machine runs, but nothing in it answers (yet)."""


class NotSupported(Conflict):
    """This backend cannot do it; ``client.capabilities()`` says so beforehand."""


_BY_CODE: Mapping[str, type[APIError]] = {
    "malformed": InvalidInput,
    "invalid_input": InvalidInput,
    "payload_too_large": InvalidInput,
    "unsupported_media_type": InvalidInput,
    "method_not_allowed": InvalidInput,
    "unauthenticated": Unauthenticated,
    "permission_denied": PermissionDenied,
    "quota_exceeded": QuotaExceeded,
    "not_found": NotFound,
    "in_transition": InTransition,
    "invalid_state": InvalidState,
    "in_use": InUse,
    "not_cancellable": NotCancellable,
    "name_taken": NameTaken,
    "out_of_capacity": OutOfCapacity,
    "guest_unavailable": GuestUnavailable,
    "not_supported": NotSupported,
    "precondition_failed": PreconditionFailed,
    "events_expired": EventsExpired,
    "rate_limited": RateLimited,
    "backend_unavailable": BackendUnavailable,
    "internal": ServerError,
}

_BY_STATUS: Mapping[int, tuple[type[APIError], str]] = {
    400: (InvalidInput, "malformed"),
    401: (Unauthenticated, "unauthenticated"),
    403: (PermissionDenied, "permission_denied"),
    404: (NotFound, "not_found"),
    405: (InvalidInput, "method_not_allowed"),
    407: (Unauthenticated, "unauthenticated"),  # the same refusal, from the proxy into guests
    409: (Conflict, "conflict"),
    410: (EventsExpired, "events_expired"),
    412: (PreconditionFailed, "precondition_failed"),
    413: (InvalidInput, "payload_too_large"),
    415: (InvalidInput, "unsupported_media_type"),
    422: (InvalidInput, "invalid_input"),
    429: (RateLimited, "rate_limited"),
    503: (BackendUnavailable, "backend_unavailable"),
}

_RETRYABLE_STATUSES = frozenset({429, 502, 503, 504})
_MAX_PLAIN_MESSAGE_CHARS = 200


def api_error(status: int, body: bytes, headers: Mapping[str, str]) -> APIError:
    """Return the exception for an answer with ``status`` of 300 or more; ``headers`` have lower-case names.

    A body that is not a problem document (a proxy in between, another server) still gives a usable error.
    """
    problem = _problem(body)
    fallback, fallback_code = _BY_STATUS.get(status, (ServerError if status >= 500 else APIError, f"http_{status}"))
    code = str(problem.get("code") or fallback_code)
    message = problem.get("detail") or problem.get("title") or _plain_message(status, body, headers)
    return _BY_CODE.get(code, fallback)(
        str(message),
        status=status,
        code=code,
        errors=[
            FieldError(str(each.get("field", "")), str(each.get("code", "")), str(each.get("message", "")))
            for each in _objects(problem.get("errors"))
        ],
        blockers=[ref for each in _objects(problem.get("blockers")) if (ref := resource_ref(each))],
        resource=resource_ref(problem.get("resource")),
        request_id=problem.get("request_id") or headers.get("x-request-id"),
        retryable=bool(problem.get("retryable", status in _RETRYABLE_STATUSES)),
        retry_after_s=retry_after_s(headers.get("retry-after")),
    )


def resource_ref(value: object) -> ResourceRef | None:
    """Return the ``{type, id}`` object as a ``ResourceRef``; None when it is not one."""
    if isinstance(value, Mapping) and "id" in value:
        return ResourceRef(type=str(value.get("type", "")), id=str(value["id"]))
    return None


def retry_after_s(value: str | None) -> float | None:
    """Return the seconds a ``Retry-After`` header asks for. Source: RFC 9110, section 10.2.3 (seconds, or a date)."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (moment - datetime.now(UTC)).total_seconds()) if moment.tzinfo else None


def _problem(body: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _plain_message(status: int, body: bytes, headers: Mapping[str, str]) -> str:
    # The guest proxy answers in plain text; so do many others.
    is_text = headers.get("content-type", "").startswith("text/plain")
    text = " ".join(body.decode("utf-8", "replace").split()) if is_text else ""
    return text[:_MAX_PLAIN_MESSAGE_CHARS] or f"the server answered with HTTP status {status}"
