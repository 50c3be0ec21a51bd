"""The metadata service as a WSGI application: the listener tells the VPC, the peer's address the guest.

Source of the protocol: Amazon EC2 user guide, "Use instance metadata" (IMDSv1 and IMDSv2). Tokens are checked when
they are given, not asked for: the plain images of this field know nothing of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import DBAPIError

from iaas.api.inside.rate_limits import RateLimit
from iaas.api.metadata.tokens import MAX_TTL_S, TokenMint
from iaas.api.metadata.tree import lookup
from iaas.kernel.clock import Clock
from iaas.services.metadata import GuestMetadata, MetadataService

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

TOKEN_PATH = "/latest/api/token"  # noqa: S105 - a path, no secret
TTL_HEADER = "X-aws-ec2-metadata-token-ttl-seconds"
PER_S = 200.0  # a boot reads some sixty paths in one go
BURST = 400

log = structlog.get_logger(__name__)

Answer = tuple[str, bytes, dict[str, str]]


class MetadataApp:
    """Answers guests of every VPC; whose request it is stands in ``vpc_id``, never in what the guest sends.

    Args:
        clock: the wall's, for the tokens.
        limit: how often a guest may ask.
    """

    def __init__(self, service: MetadataService, clock: Clock, *, limit: RateLimit | None = None) -> None:
        self._service = service
        self._tokens = TokenMint(clock)
        self._limit = limit or RateLimit(per_s=PER_S, burst=BURST)

    def __call__(self, vpc_id: str, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            status, body, extra = self._answer(vpc_id, environ)
        except DBAPIError as error:  # locked, full, gone: guests ask again
            log.error("metadata_database_refused", vpc_id=vpc_id, reason=str(error.orig))
            status, body, extra = "503 Service Unavailable", b"come again\n", {"Retry-After": "2"}
        headers = {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body)), **extra}
        start_response(status, list(headers.items()))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _answer(self, vpc_id: str, environ: WSGIEnvironment) -> Answer:
        address = environ["REMOTE_ADDR"]
        if retry_after_s := self._limit.take((vpc_id, address)):
            return "429 Too Many Requests", b"too many requests\n", {"Retry-After": str(retry_after_s)}
        is_token_path = environ["PATH_INFO"].rstrip("/") == TOKEN_PATH
        allowed = ("PUT",) if is_token_path else ("GET", "HEAD")
        if environ["REQUEST_METHOD"] not in allowed:
            return "405 Method Not Allowed", f"only {' and '.join(allowed)}\n".encode(), {"Allow": ", ".join(allowed)}
        guest = self._service.of_guest(vpc_id, address)
        if guest is None:
            return "404 Not Found", b"nobody has this address\n", {}
        if is_token_path:
            return self._new_token(vpc_id, guest, environ)
        token = environ.get("HTTP_X_AWS_EC2_METADATA_TOKEN")
        if token is not None and not self._tokens.is_good(token, vpc_id, guest.instance.id):
            return "401 Unauthorized", b"the token is not yours or has expired\n", {}
        body = lookup(environ["PATH_INFO"], guest)
        return ("404 Not Found", b"not found\n", {}) if body is None else ("200 OK", body, {})

    def _new_token(self, vpc_id: str, guest: GuestMetadata, environ: WSGIEnvironment) -> Answer:
        # A proxy in the guest that forwards everything would hand the token to whoever asks it.
        if "HTTP_X_FORWARDED_FOR" in environ:
            return "403 Forbidden", b"no token for a request that was forwarded\n", {}
        given = environ.get("HTTP_X_AWS_EC2_METADATA_TOKEN_TTL_SECONDS", "")
        ttl_s = int(given) if given.isascii() and given.isdigit() and len(given) < 6 else 0
        if not 1 <= ttl_s <= MAX_TTL_S:
            return "400 Bad Request", f"{TTL_HEADER} must be 1 to {MAX_TTL_S}\n".encode(), {}
        token = self._tokens.make(vpc_id, guest.instance.id, ttl_s=ttl_s)
        return "200 OK", token.encode(), {TTL_HEADER: str(ttl_s)}
