"""Requests that only compute take turns; see :mod:`iaas.kernel.turns`."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from iaas.kernel.errors import CloudError
from iaas.kernel.turns import Turns

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# Nothing here waits for a machine, a guest or a job: that would keep everybody waiting.
_ONLY_COMPUTES = {
    "GET": re.compile(r"/v1/(instances(/[^/]+)?|jobs/[^/]+)\Z"),
    "POST": re.compile(r"/v1/instances(:batch|/[^/]+/actions/(start|stop|restart|resize|rebuild|recover))?\Z"),
    "PATCH": re.compile(r"/v1/instances/[^/]+\Z"),
    "DELETE": re.compile(r"/v1/instances/[^/]+\Z"),
}
_MOST_BODY_BYTES = 1 << 20


class InTurns:
    """WSGI middleware: the body is read first, so that nobody waits for a slow sender."""

    def __init__(self, app: WSGIApplication, turns: Turns) -> None:
        self._app = app
        self._turns = turns

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not _only_computes(environ):
            return self._app(environ, start_response)
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if length:
            try:
                environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(length))
            except CloudError as error:  # whoever asks for the body is told, with an answer of the application's
                environ["wsgi.input"] = _Refused(error)
        with self._turns.turn():
            return self._app(environ, start_response)


class _Refused:
    """A body that could not be had."""

    def __init__(self, error: CloudError) -> None:
        self._error = error

    def read(self, _size: int = -1) -> bytes:
        raise self._error


def _only_computes(environ: dict[str, Any]) -> bool:
    paths = _ONLY_COMPUTES.get(environ["REQUEST_METHOD"])
    if paths is None or not paths.match(environ["PATH_INFO"]) or "wait" in environ.get("QUERY_STRING", ""):
        return False
    if "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower():
        return False
    length = environ.get("CONTENT_LENGTH") or "0"
    return length.isascii() and length.isdigit() and len(length) < 8 and int(length) <= _MOST_BODY_BYTES
