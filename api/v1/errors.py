"""Errors as problem documents (RFC 9457). One table; a test fails when a member of the tree is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import structlog
from flask import Flask, Response, g, json, request
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from werkzeug.exceptions import HTTPException

from iaas.kernel import errors as tree
from iaas.kernel.errors import CloudError, FieldError, InvalidInput
from iaas.services.access import is_operator

log = structlog.get_logger(__name__)

STATUS: Mapping[type[CloudError], int] = {
    tree.MalformedRequest: 400,
    tree.InvalidInput: 422,
    tree.PayloadTooLarge: 413,
    tree.Unauthenticated: 401,
    tree.PermissionDenied: 403,
    tree.QuotaExceeded: 403,
    tree.NotFound: 404,
    tree.AlreadyExists: 409,
    tree.InvalidState: 409,
    tree.InTransition: 409,
    tree.InUse: 409,
    tree.NotCancellable: 409,
    tree.OutOfCapacity: 409,
    tree.NotSupported: 409,
    tree.EventsExpired: 410,
    tree.GuestUnavailable: 409,
    tree.PreconditionFailed: 412,
    tree.RateLimited: 429,
    tree.Internal: 500,
    tree.Unavailable: 503,
}

_HTTP_CODES: Mapping[int, str] = {
    400: "malformed",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    413: "payload_too_large",
    415: "unsupported_media_type",
    422: "invalid_input",
}

RETRY_AFTER_S = 2
LONGEST_PATH = 200  # of which a message repeats all


def register(app: Flask) -> None:
    app.register_error_handler(CloudError, _on_cloud_error)
    app.register_error_handler(HTTPException, _on_http_error)
    app.register_error_handler(OperationalError, _on_database_error)
    app.register_error_handler(InterfaceError, _on_database_error)
    app.register_error_handler(Exception, _on_fault)


def problem(error: CloudError, status: int | None = None) -> Response:
    """Return the answer for an error."""
    status = status or STATUS[type(error)]
    document = problem_document(error, status, g.get("request_id"), for_operator=is_operator(g.get("principal")))
    response = Response(json.dumps(document), status=status, mimetype="application/problem+json")
    if status in (429, 503):
        response.headers["Retry-After"] = str(error.retry_after_s or RETRY_AFTER_S)
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="iaas"'
    return response


def problem_document(
    error: CloudError, status: int, request_id: str | None, *, for_operator: bool = False
) -> dict[str, Any]:
    """Return the problem document of an error (RFC 9457); ``for_operator`` with what tenants do not see."""
    errors = (for_operator and error.operator_errors) or error.errors
    return {
        "type": f"urn:iaas:error:{error.code}",
        "title": error.code.replace("_", " "),
        "status": status,
        "detail": error.message,
        "code": error.code,
        "errors": [{"field": part.field, "code": part.code, "message": part.message} for part in errors],
        "resource": {"type": error.resource.type, "id": error.resource.id} if error.resource else None,
        "blockers": [{"type": part.type, "id": part.id} for part in error.blockers],
        "retryable": error.retryable,
        "request_id": request_id,
    }


def _on_cloud_error(error: CloudError) -> Response:
    status = STATUS[type(error)]
    if status >= 500:
        log.error("request_failed", code=error.code, reason=error.message, detail=error.detail, path=request.path)
    else:
        hosts = {"hosts": [f"{part.field}: {part.message}" for part in error.operator_errors]}
        log.info(
            "request_refused",
            code=error.code,
            reason=error.message,
            path=request.path,
            **(hosts if error.operator_errors else {}),
        )
    return problem(error)


def _on_http_error(error: HTTPException) -> Response:
    status = error.code or 500
    if status == 422:
        return problem(_from_schema(getattr(error, "data", {}).get("messages", {})))
    if status < 400:  # a redirect of the router's
        return Response(status=status, headers=dict(error.get_headers()))
    code = _HTTP_CODES.get(status, "malformed" if status < 500 else "internal")
    path = request.path if len(request.path) <= LONGEST_PATH else request.path[:LONGEST_PATH] + "..."
    allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
    if status == 404:
        message = f"there is nothing at {path}"
    elif allowed:
        message = f"{path} does not take {request.method}; it takes {allowed}"
    else:
        message = error.description or error.name
    response = problem(CloudError(message, code=code), status)
    if allowed:
        response.headers["Allow"] = allowed
    return response


def _on_database_error(error: DBAPIError) -> Response:
    """Locked, full, gone: nothing of the request was written, and the same request may pass later."""
    log.error("database_refused", path=request.path, method=request.method, reason=str(error.orig))
    return problem(
        tree.Unavailable(
            "the server's database took no part of this request (its disk is full, it is locked, or it is gone);"
            " whoever runs the server finds the reason in its log",
            code="database_unavailable",
        )
    )


def _on_fault(error: Exception) -> Response:
    log.error("request_broke", path=request.path, method=request.method, exc_info=error)
    return problem(tree.Internal("a fault in the server; its log says more under the request id"))


def _from_schema(messages: Any) -> InvalidInput:
    errors = list(_flatten(messages, ()))
    first = errors[0] if errors else FieldError("", "invalid", "is not valid")
    return InvalidInput(f"{first.field}: {first.message}" if first.field else first.message, errors=errors)


def _flatten(messages: Any, path: tuple[str, ...], *, kind: str = "field") -> Iterator[FieldError]:
    """Turn the schema library's tree ``{location: {field: [text]}}`` into a flat list."""
    if isinstance(messages, dict):
        for key, value in messages.items():
            parts = (*path, str(key))
            if not path and key in ("json", "query", "path", "headers"):
                parts, kind = ("",), "query parameter" if key == "query" else "field"
            yield from _flatten(value, parts, kind=kind)
        return
    field = ".".join(part for part in path if part and part != "_schema")
    field = field.removesuffix(".value").removesuffix(".key") if "labels" in path else field
    for text in messages if isinstance(messages, list) else [messages]:
        yield FieldError(field, _code_of(str(text)), _sentence(str(text), kind))


_CODES = (
    ("Unknown field", "unknown"),
    ("unknown quota", "unknown"),
    ("Missing data", "required"),
    ("Field may not be null", "required"),
    ("Not a valid", "mistyped"),
    ("Invalid input type", "mistyped"),
    ("Longer than", "too_long"),
    ("Shorter than", "too_short"),
    ("Length must", "length"),
    ("Must be one of", "not_a_choice"),
    ("Must be", "out_of_range"),
)

_SENTENCES = {
    "Unknown field.": "is not a {kind} of this call",
    "Missing data for required field.": "is required",
    "Field may not be null.": "must not be null",
}


def _code_of(text: str) -> str:
    return next((code for start, code in _CODES if text.startswith(start)), "invalid")


def _sentence(text: str, kind: str) -> str:
    known = _SENTENCES.get(text)
    return text[:1].lower() + text[1:].rstrip(".") if known is None else known.format(kind=kind)
