"""What can go wrong, as a program must tell it apart. Every dialect maps this tree in one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class FieldError:
    """One fault in what the client sent: where (``labels.app``), a stable code, a sentence."""

    field: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class ResourceRef:
    """Names one resource in an error or an event."""

    type: str
    id: str


class CloudError(Exception):
    """Base of all. ``message`` is for the client; ``detail`` goes to the log only.

    ``operator_errors`` stand in the place of ``errors`` for the operator of the cloud: they name what tenants must not
    know of, as hosts.
    """

    code = "internal"
    retryable = False

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        detail: str | None = None,
        resource: ResourceRef | None = None,
        errors: Sequence[FieldError] = (),
        operator_errors: Sequence[FieldError] = (),
        blockers: Sequence[ResourceRef] = (),
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        self.detail = detail
        self.resource = resource
        self.errors = tuple(errors)
        self.operator_errors = tuple(operator_errors)
        self.blockers = tuple(blockers)
        self.retry_after_s = retry_after_s


class InvalidInput(CloudError):
    """The request is understood and wrong: ``errors`` names each field."""

    code = "invalid_input"


class MalformedRequest(CloudError):
    """The request cannot be understood at all: not JSON, not UTF-8, not an object."""

    code = "malformed"


class PayloadTooLarge(CloudError):
    code = "payload_too_large"


class Unauthenticated(CloudError):
    code = "unauthenticated"


class PermissionDenied(CloudError):
    code = "permission_denied"


class QuotaExceeded(CloudError):
    code = "quota_exceeded"


class NotFound(CloudError):
    """Absent, or another project's: the two are never told apart."""

    code = "not_found"


class AlreadyExists(CloudError):
    code = "name_taken"


class InvalidState(CloudError):
    """The resource rests in a state that does not allow this."""

    code = "invalid_state"


class InTransition(CloudError):
    """Another action is under way on the resource."""

    code = "in_transition"
    retryable = True


class NotCancellable(CloudError):
    """The job has ended, is being undone, or is beyond the point from which there is a way back."""

    code = "not_cancellable"


class InUse(CloudError):
    """Others depend on the resource: ``blockers`` names them."""

    code = "in_use"


class OutOfCapacity(CloudError):
    code = "out_of_capacity"
    retryable = True


class PreconditionFailed(CloudError):
    """``If-Match`` named another generation."""

    code = "precondition_failed"


class RateLimited(CloudError):
    code = "rate_limited"
    retryable = True


class EventsExpired(CloudError):
    """The events after the given id are no longer all there, or the id is of another database: whoever follows must
    list the resources anew."""

    code = "events_expired"


class NotSupported(CloudError):
    """This backend cannot do it, and says so in ``/v1/capabilities``."""

    code = "not_supported"


class GuestUnavailable(CloudError):
    """The machine runs, but nothing in it answers (yet)."""

    code = "guest_unavailable"
    retryable = True


class Unavailable(CloudError):
    """A backend is down; nothing was done."""

    code = "backend_unavailable"
    retryable = True


class Internal(CloudError):
    code = "internal"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a resource or job rests in ``failed``: a stable code and a sentence a person can act on."""

    code: str
    message: str = field(default="")
