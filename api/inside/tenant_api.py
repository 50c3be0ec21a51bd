"""The tenant APIs as guests reach them: the same application, less of it, and not more of it than a guest's share.

A guest acts by its own credentials; its place in the network gives it no rights. What only operators need is not
there from inside, whoever asks, and an operator's credential acts as a member.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from flask import Flask, Response, current_app, request
from werkzeug.exceptions import MethodNotAllowed, NotFound

from iaas.api import access
from iaas.api.inside.rate_limits import RateLimit
from iaas.api.wiring import cloud
from iaas.kernel.errors import RateLimited
from iaas.resources.common import Principal, Role

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

INSIDE = "iaas.inside"  # no header of a request can become this name
PER_GUEST_PER_S, GUEST_BURST = 20.0, 40
PER_VPC_PER_S, VPC_BURST = 200.0, 400  # one NIC may speak from many addresses
MAX_SLOW = 16  # requests that keep their thread: less than there are threads, so that others find one
MAX_SLOW_PER_VPC = 4
MAX_SLOW_PER_GUEST = 2
SLOW_RETRY_AFTER_S = 5

_SLOW_PATH = re.compile(r"/v1/instances/[^/]+/(actions/exec|console)/?\Z")
_STREAM_PATH = re.compile(r"/v1/events/?\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """Where a request comes from. ``retry_after_s``: it is refused for now, unless that is 0."""

    vpc_id: str
    address: str
    retry_after_s: int = 0


class TenantAPI:
    """Marks requests with the place that they come from; :func:`guard` decides in the application.

    Args:
        app: the application; :func:`register` has been called for it.
    """

    def __init__(self, app: Flask) -> None:
        self._app: WSGIApplication = app
        self._guests = RateLimit(per_s=PER_GUEST_PER_S, burst=GUEST_BURST)
        self._vpcs = RateLimit(per_s=PER_VPC_PER_S, burst=VPC_BURST)
        self._slow = _SlowPlaces()

    def __call__(self, vpc_id: str, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        address = environ["REMOTE_ADDR"]
        retry_after_s = self._guests.take((vpc_id, address)) or self._vpcs.take(vpc_id)
        inside = Inside(vpc_id=vpc_id, address=address, retry_after_s=retry_after_s)
        environ[INSIDE] = inside
        if retry_after_s or not _is_slow(environ):
            return self._app(environ, start_response)
        if not self._slow.take(inside):
            if not _answer_at_once(environ):
                environ[INSIDE] = replace(inside, retry_after_s=SLOW_RETRY_AFTER_S)
            return self._app(environ, start_response)
        try:
            body = self._app(environ, start_response)
        except BaseException:  # raised again: nobody else would give the place back
            self._slow.give_back(inside)
            raise
        return _Closing(body, lambda: self._slow.give_back(inside))


def register(app: Flask) -> None:
    """Let the application obey where requests come from. Before the authentication is registered: who asks for what
    is not there is told so whatever the credential.
    """
    app.before_request(guard)
    app.after_request(_allow_visible)


def guard() -> None:
    """Let the request through, unless it comes from inside and is too much or for what guests do not see.

    Raises:
        RateLimited: later.
        NotFound, MethodNotAllowed: as for a path or a method that does not exist.
    """
    inside = origin()
    if inside is None:
        return
    if inside.retry_after_s:
        raise RateLimited("a guest may not ask that often", retry_after_s=inside.retry_after_s)
    if request.url_rule is not None and _is_visible(request.method, request.url_rule.rule):
        return
    if others := list(_visible_methods()):
        raise MethodNotAllowed(others)
    raise NotFound


def origin() -> Inside | None:
    """Return where the present request comes from; None when it is not from inside a VPC."""
    found: Inside | None = request.environ.get(INSIDE)
    return found


def log_fields() -> Mapping[str, Any]:
    """Return what the log says of the origin of the present request; nothing when it is not from inside."""
    inside = origin()
    if inside is None:
        return {}
    nic = cloud().metadata.nic_at(inside.vpc_id, inside.address)
    return {"vpc_id": inside.vpc_id, "nic_id": None if nic is None else nic.id, "address": inside.address}


def as_seen_from(inside: Inside | None, principal: Principal) -> Principal:
    """Return whom the request acts as: from inside nobody is an operator."""
    if inside is None or principal.role is not Role.ADMIN:
        return principal
    return replace(principal, role=Role.MEMBER)


def _is_visible(method: str, rule: str) -> bool:
    """Return whether guests see the route: it asks for a role in a project, no more and no less."""
    try:
        return access.declared(method, rule) in (Role.READER, Role.MEMBER)
    except KeyError:
        return False


def _visible_methods() -> Iterator[str]:
    adapter: Any = current_app.create_url_adapter(request)  # there is one within a request
    for method in adapter.allowed_methods():
        rule, _ = adapter.match(method=method, return_rule=True)
        if _is_visible(method, rule.rule):
            yield method


def _allow_visible(response: Response) -> Response:
    if "Allow" in response.headers and origin() is not None:
        response.headers["Allow"] = ", ".join(sorted(_visible_methods()))
    return response


def _is_slow(environ: WSGIEnvironment) -> bool:
    """Return whether the request may keep its thread for long: a long poll, a stream, a word with a guest."""
    path = environ["PATH_INFO"]
    if "wait" in environ.get("QUERY_STRING", "") or _SLOW_PATH.match(path):
        return True
    return bool(_STREAM_PATH.match(path)) and "event-stream" in environ.get("HTTP_ACCEPT", "")


def _answer_at_once(environ: WSGIEnvironment) -> bool:
    """Turn a long poll into a plain one, which servers may do when many wait; False when the request is none."""
    if _SLOW_PATH.match(environ["PATH_INFO"]) or _STREAM_PATH.match(environ["PATH_INFO"]):
        return False
    query = parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    environ["QUERY_STRING"] = urlencode([(name, value) for name, value in query if name != "wait"])
    return True


class _SlowPlaces:
    """Places for slow requests: some of all, fewer for one VPC, fewest for one guest."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all = 0
        self._by_vpc: Counter[str] = Counter()
        self._by_guest: Counter[tuple[str, str]] = Counter()

    def take(self, inside: Inside) -> bool:
        guest = (inside.vpc_id, inside.address)
        with self._lock:
            if (
                self._all >= MAX_SLOW
                or self._by_vpc[inside.vpc_id] >= MAX_SLOW_PER_VPC
                or self._by_guest[guest] >= MAX_SLOW_PER_GUEST
            ):
                return False
            self._all += 1
            self._by_vpc[inside.vpc_id] += 1
            self._by_guest[guest] += 1
            return True

    def give_back(self, inside: Inside) -> None:
        guest = (inside.vpc_id, inside.address)
        with self._lock:
            self._all -= 1
            self._by_vpc[inside.vpc_id] -= 1
            self._by_guest[guest] -= 1
            self._by_vpc += Counter()  # forgets those with none
            self._by_guest += Counter()


class _Closing:
    """A body whose end, or its client's, is told once."""

    def __init__(self, body: Iterable[bytes], on_close: Callable[[], None]) -> None:
        self._body = body
        self._on_close = on_close
        self._is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        try:
            if (close := getattr(self._body, "close", None)) is not None:
                close()
        finally:
            self._on_close()
