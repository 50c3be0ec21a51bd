"""Reading requests strictly: JSON that is JSON, text that is text, no unknown parameter."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from flask import Request, current_app, g, request
from flask_smorest import Blueprint as SmorestBlueprint
from marshmallow import RAISE, Schema
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from iaas.kernel.errors import FieldError, InvalidInput, MalformedRequest, NotFound, PreconditionFailed
from iaas.resources.common import Principal

MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 32
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

F = TypeVar("F", bound=Callable[..., Any])


def principal() -> Principal:
    """Return who asks; the authentication has put it there."""
    found: Principal = g.principal
    return found


def if_generation() -> int | None:
    """Return the generation named by If-Match; None without the header or for ``*``.

    Raises:
        PreconditionFailed: it is no generation at all, so it cannot match.
    """
    header = request.headers.get("If-Match")
    if header is None or header.strip() == "*":
        return None
    text = header.strip().removeprefix("W/").strip('"')
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise PreconditionFailed("If-Match must be an ETag that this server gave")
    return int(text)


class StrictParser(FlaskParser):
    """Refuses unknown fields and parameters, and bodies that are not what they say."""

    DEFAULT_UNKNOWN_BY_LOCATION = {  # noqa: RUF012 - the library's class attribute
        **FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION,
        "json": RAISE,
        "query": RAISE,
    }

    def load_json(self, req: Request, schema: Schema) -> Any:
        return json_object(req)


class Blueprint(SmorestBlueprint):
    ARGUMENTS_PARSER = StrictParser()

    def arguments(self, schema: Any, **kwargs: Any) -> Any:
        """Declare what a view takes. The schema is made once: given as a class it would be made anew per request."""
        return super().arguments(schema() if isinstance(schema, type) else schema, **kwargs)

    def query(self, schema: type[Schema]) -> Callable[[F], F]:
        """Declare the query parameters of a view; a view without this takes none."""

        def decorate(view: F) -> F:
            wrapped: F = self.arguments(schema, location="query")(view)
            wrapped.takes_query = True  # type: ignore[attr-defined]  # read by refuse_unknown_query
            return wrapped

        return decorate


def refuse_unknown_query() -> None:
    """Refuse query parameters of views that declare none (the others are checked by their schema).

    Text that no database can hold names nothing: not found in a path, wrong in a query.
    """
    if _UNSTORABLE.search(request.path):
        raise NotFound("there is nothing whose name has a NUL or half a surrogate pair")
    for name, value in request.args.items(multi=True):
        _check_text(name, "(parameter name)", 0)
        _check_text(value, name, 0)
    if not request.args or request.endpoint is None:
        return
    view: Any = current_app.view_functions[request.endpoint]
    view_class = getattr(view, "view_class", None)
    if view_class is not None:
        method = "get" if request.method == "HEAD" else request.method.lower()
        view = getattr(view_class, method, view)
    if getattr(view, "takes_query", False) or not request.path.startswith("/v1/"):
        return
    errors = [FieldError(name, "unknown", "is not a query parameter of this call") for name in request.args]
    raise InvalidInput(f"{errors[0].field}: {errors[0].message}", errors=errors)


def json_object(req: Request) -> dict[str, Any]:
    """Return the body, which must be one JSON object in UTF-8; an absent body counts as empty.

    Raises:
        MalformedRequest, UnsupportedMediaType, RequestEntityTooLarge: what it is instead.
    """
    try:
        raw = req.get_data(cache=True)
    except RequestEntityTooLarge as error:
        raise RequestEntityTooLarge(f"the body is longer than {MAX_BODY_BYTES} bytes") from error
    if req.content_length is None and len(raw) >= MAX_BODY_BYTES:  # in chunks: what is beyond the limit is cut off
        raise RequestEntityTooLarge(f"the body is longer than {MAX_BODY_BYTES} bytes")
    if not raw:
        return {}
    if req.mimetype not in ("application/json", "application/merge-patch+json"):
        raise UnsupportedMediaType("send application/json")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedRequest(f"the body is not UTF-8: byte {error.start} is wrong") from error
    try:
        body = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
    except RecursionError as error:
        raise MalformedRequest("the body is nested too deeply") from error
    except ValueError as error:
        raise MalformedRequest(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise MalformedRequest("the body must be a JSON object")
    if "\\u" in text:  # only an escape can bring what text cannot hold: as it is, it would be no JSON or no UTF-8
        _check_text(body, "", 0)
    elif _is_deeper(body, MAX_DEPTH):
        raise MalformedRequest("the body is nested too deeply")
    return body


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [key for key, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the member {twice[:80]!r} occurs twice")
    return found


def _is_deeper(value: Any, most: int) -> bool:
    if type(value) not in (dict, list):
        return False
    members = value.values() if type(value) is dict else value
    return most == 0 or any(_is_deeper(member, most - 1) for member in members if type(member) in (dict, list))


def _check_text(value: Any, path: str, depth: int) -> None:
    """Refuse text that no database and no file can hold: NUL, lone surrogates."""
    if depth > MAX_DEPTH:
        raise MalformedRequest("the body is nested too deeply")
    if isinstance(value, str):
        if _UNSTORABLE.search(value):
            message = "holds a character that is not allowed (NUL or half a surrogate pair)"
            raise InvalidInput(f"{path}: {message}", errors=[FieldError(path, "invalid_character", message)])
    elif isinstance(value, dict):
        for key, member in value.items():
            _check_text(key, path or "(member name)", depth + 1)
            _check_text(member, f"{path}.{key}" if path else key, depth + 1)
    elif isinstance(value, list):
        for index, member in enumerate(value):
            _check_text(member, f"{path}.{index}", depth + 1)
