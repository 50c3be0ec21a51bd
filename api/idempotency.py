"""``Idempotency-Key``: every POST that changes something answers through :func:`respond` or :func:`respond_after`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from flask import Flask, Response, g, request

from iaas.api import wiring
from iaas.services.idempotency import HEADER, Answer, Claim, check_key

REPLAYED = "Idempotency-Replayed"

log = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a view answers: the document as plain JSON values or as JSON, so that it can be made in any thread."""

    status: int
    document: dict[str, Any] | str
    location: str | None = None


def respond(call: Callable[[], T], render: Callable[[T], Reply], *, is_secret: bool = False) -> Response:
    """Return the answer to a POST whose service makes exactly one write.

    With an idempotency key the answer is kept by that same commit, encrypted if ``is_secret``. ``call`` must return
    what its write returned; ``render`` must not use Flask, since it runs inside the transaction.
    """
    claim: Claim | None = g.get("claim")
    if claim is None:
        return _response(_answer(render(call())))
    return _response(claim.do_once(call, lambda result: _answer(render(result)), is_secret=is_secret))


def respond_after(call: Callable[[], T], render: Callable[[T], Reply], *, is_secret: bool = False) -> Response:
    """Return the answer to a POST whose service writes nothing; with a key, that it runs is noted before."""
    claim: Claim | None = g.get("claim")
    if claim is None:
        return _response(_answer(render(call())))
    return _response(claim.run_once(call, lambda result: _answer(render(result)), is_secret=is_secret))


def register(app: Flask) -> None:
    """Watch over the keys of all requests; comes after authentication."""
    app.before_request(_claim)
    app.after_request(_check_kept)
    app.teardown_request(_release)


def _claim() -> Response | None:
    if request.method != "POST" or request.url_rule is None or HEADER not in request.headers or "principal" not in g:
        return None
    key = request.headers[HEADER]
    check_key(key)
    found = wiring.cloud().idempotency.claim(g.principal, key, _fingerprint())
    if isinstance(found, Claim):
        g.claim = found
        return None
    response = _response(found)
    response.headers[REPLAYED] = "true"
    return response


def _check_kept(response: Response) -> Response:
    claim: Claim | None = g.get("claim")
    if claim is not None and response.status_code < 400 and not claim.is_kept:
        log.error("post_is_not_idempotent", path=request.path)  # a fault of ours, and a test finds it
    return response


def _release(_error: BaseException | None) -> None:
    claim: Claim | None = g.get("claim")
    if claim is not None:
        claim.release()


def _fingerprint() -> str:
    """Return a digest of all that the request means. The order and spacing of its JSON mean nothing."""
    raw = request.get_data(cache=True)
    try:
        body = json.dumps(json.loads(raw), sort_keys=True).encode() if raw else b""
    except (ValueError, RecursionError):  # it will be refused, unless it is a second use of the key
        body = raw
    digest = hashlib.sha256()
    for part in (request.method.encode(), request.full_path.encode(), request.headers.get("If-Match", "").encode()):
        digest.update(part + b"\0")
    digest.update(body)
    return digest.hexdigest()


def _answer(reply: Reply) -> Answer:
    document = reply.document
    text = document if isinstance(document, str) else json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    body = text.encode() + b"\n"
    return Answer(status=reply.status, body=body, location=reply.location)


def _response(answer: Answer) -> Response:
    response = Response(answer.body, status=answer.status, mimetype="application/json")
    if answer.location is not None:
        response.headers["Location"] = answer.location
    return response
