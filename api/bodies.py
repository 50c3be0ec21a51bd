"""Bodies of requests on their way in: whole or refused, and never so many at once that nobody else is served.

The server under us hands a body on as it comes, blocking the thread that asks for it for as long as its sender
likes, and lets one that was cut off look like one that ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from iaas.kernel.errors import MalformedRequest, Unavailable

WSGI = Callable[[dict[str, Any], Any], Iterable[bytes]]
RETRY_AFTER_S = 5


class Places:
    """So many places, and how many are taken."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self.taken = 0

    def take(self) -> bool:
        """Take one; False when there is none."""
        with self._lock:
            if self.taken >= self._most:
                return False
            self.taken += 1
            return True

    def give_back(self) -> None:
        with self._lock:
            self.taken -= 1


class BodyGate:
    """The application behind a gate for bodies.

    Args:
        most: bodies on their way in at once; one more is refused with 503, so that whoever holds many connections
            with bodies that never end takes no more threads than these. Reading one that is there takes no time.
    """

    def __init__(self, app: WSGI, *, most: int) -> None:
        self._app = app
        self._places = Places(most)

    @property
    def is_receiving(self) -> bool:
        """Some body is on its way in."""
        return self._places.taken > 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        length = environ.get("CONTENT_LENGTH", "")
        is_chunked = "HTTP_TRANSFER_ENCODING" in environ
        if is_chunked or length not in ("", "0"):
            announced = int(length) if length.isascii() and length.isdigit() and not is_chunked else None
            environ["wsgi.input"] = _Body(environ["wsgi.input"], announced, self._places)
        return self._app(environ, start_response)


class _Body:
    """A body that was announced.

    Args:
        announced: its bytes; None when it comes in chunks.
    """

    def __init__(self, inner: Any, announced: int | None, places: Places) -> None:
        self._inner = inner
        self._announced = announced
        self._places = places
        self._received = 0

    def read(self, size: int = -1) -> bytes:
        """Return that many bytes, fewer only at the end; -1: all that is left.

        Raises:
            MalformedRequest: it was cut off. (Of one in chunks the server does not tell; but then it is empty, or
                the JSON in it does not end, or nothing that means anything was lost.)
            Unavailable: too many are on their way.
        """
        if not self._places.take():
            raise Unavailable(
                "more requests than this server takes at once have begun and not sent their bodies yet",
                code="too_many_bodies",
                retry_after_s=RETRY_AFTER_S,
            )
        try:
            found = self._inner.read() if size < 0 else self._inner.read(size)
        finally:
            self._places.give_back()
        self._received += len(found)
        if size < 0 or len(found) < size:
            self._check_whole()
        return bytes(found)

    def _check_whole(self) -> None:
        if self._announced is not None and self._received < self._announced:
            raise MalformedRequest(f"the body ended after {self._received} of {self._announced} bytes")
        if self._announced is None and self._received == 0:
            raise MalformedRequest("a body was announced, and nothing of it came")
