"""One HTTP request to the server: headers, retries that are safe, answers as JSON or as exceptions."""

from __future__ import annotations

import ipaddress
import json
import logging
import ssl
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from iaas import __version__
from iaas.client.credentials import Credentials
from iaas.client.errors import APIError, ConfigurationError, ConnectionFailed, InvalidInput, UnexpectedAnswer, api_error
from iaas.kernel.clock import rfc3339
from iaas.kernel.ids import REQUEST, IdSource

if TYPE_CHECKING:
    # Imported when a client is made: the server's own commands share the CLI, need no client, and start in a second.
    import httpx

Param = str | int | float | bool | datetime | None

# For these a second try after a lost answer does no harm: POST goes with an idempotency key. DELETE and PATCH are
# left out: the first try may have done its work, and the second would then report "not found" for a success, or
# undo what somebody changed in between.
_REPEATABLE_METHODS = frozenset({"GET", "HEAD", "POST"})
_IDEMPOTENCY_KEY = "Idempotency-Key"
_IN_PROGRESS = "idempotency_in_progress"
_FIRST_BACKOFF_S = 0.1
_CONNECT_TIMEOUT_S = 10.0

log = logging.getLogger("iaas.client")


class Transport:
    """Sends requests for one client; safe to share between threads.

    Args:
        timeout_s: how long one try may take, and how long retries may go on in all.
        max_retries: further tries after a failure that allows one; 0 for none.
        http: a stand-in for the network (tests).
        sleep: pauses between tries; monotonic: seconds from any origin. Both are the wall's.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        timeout_s: float = 30.0,
        max_retries: int = 3,
        http: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        import httpx

        self.credentials = credentials
        self.timeout_s = timeout_s
        self.sleep = sleep
        self.monotonic = monotonic
        self._max_retries = max_retries
        self._request_ids = IdSource()
        headers = {"User-Agent": user_agent(), "Accept": "application/json"}
        if credentials.api_token:
            headers["Authorization"] = f"Bearer {credentials.api_token}"
        self._http = httpx.Client(
            headers=headers,
            transport=http,
            verify=_tls_context(credentials.endpoint),
            # A proxy of the environment (HTTP_PROXY) leads elsewhere; it cannot reach our own loopback.
            trust_env=not is_loopback(credentials.endpoint),
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Param] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        """Return the JSON value of the answer, None when it has no body.

        Args:
            path: absolute, already quoted (``/v1/instances/i-4kq0ygtz``).
            params: those that are None are left out.
            timeout_s: for calls that the server may answer late; the client's own when absent.

        Raises:
            APIError: the server refused.
            ConnectionFailed: it could not be reached, or broke off.
            UnexpectedAnswer: it answered with something that is not JSON.
        """
        import httpx

        request = self._build(method, path, params, body, headers, self.timeout_s if timeout_s is None else timeout_s)
        give_up_at = self.monotonic() + self.timeout_s
        backoff_s = _FIRST_BACKOFF_S
        tries = 0
        while True:
            tries += 1
            failure: APIError | ConnectionFailed
            try:
                response = self._http.send(request)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                # Nothing was sent, so trying again is safe for every method.
                failure, pause_s = (
                    ConnectionFailed(f"cannot connect to {self.credentials.endpoint}: {error}"),
                    backoff_s,
                )
                failure.__cause__ = error
            except httpx.UnsupportedProtocol as error:
                raise ConfigurationError(str(error)) from error
            except httpx.TransportError as error:
                reason = str(error) or type(error).__name__
                failure = ConnectionFailed(f"the connection to {self.credentials.endpoint} broke: {reason}")
                failure.__cause__ = error
                if method not in _REPEATABLE_METHODS or isinstance(error, httpx.TimeoutException):
                    raise failure from error
                pause_s = backoff_s
            else:
                if response.is_success:
                    return _json(response)
                failure = api_error(response.status_code, response.content, _lower(response.headers))
                if failure.code == _IN_PROGRESS and tries > 1:
                    pause_s = backoff_s  # our own first try, whose answer was lost, still runs there
                elif failure.status in (429, 503) and failure.retry_after_s is not None:
                    # Both say that nothing was done, so again every method may be repeated.
                    pause_s = failure.retry_after_s
                else:
                    raise failure
            if tries > self._max_retries or self.monotonic() + pause_s > give_up_at:
                raise failure
            log.debug("%s %s: %s; again in %.1f s", method, path, failure, pause_s)
            self.sleep(pause_s)
            backoff_s *= 2

    def stream_lines(
        self,
        path: str,
        *,
        accept: str,
        params: Mapping[str, Param] | None = None,
        headers: Mapping[str, str] | None = None,
        silence_s: float,
    ) -> Iterator[str]:
        """Yield the lines of an answer that goes on, until the server ends it. Nothing is tried again here.

        Args:
            accept: the media type that is asked for.
            silence_s: a server that sends nothing for so long counts as gone.

        Raises:
            APIError: the server refused.
            ConnectionFailed: it could not be reached, broke off or fell silent.
            UnexpectedAnswer: it answered with another media type.
        """
        import httpx

        request = self._build("GET", path, params, None, {**(headers or {}), "Accept": accept}, silence_s)
        try:
            response = self._http.send(request, stream=True)
            try:
                if not response.is_success:
                    response.read()
                    raise api_error(response.status_code, response.content, _lower(response.headers))
                if response.headers.get("content-type", "").partition(";")[0] != accept:
                    raise UnexpectedAnswer(f"{request.url} answered with something that is not {accept}")
                yield from response.iter_lines()
            finally:
                response.close()
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise ConnectionFailed(f"the connection to {self.credentials.endpoint} broke: {reason}") from error

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def _build(
        self,
        method: str,
        path: str,
        params: Mapping[str, Param] | None,
        body: Any,
        headers: Mapping[str, str] | None,
        timeout_s: float,
    ) -> httpx.Request:
        import httpx

        all_headers = {"X-Request-Id": self._request_ids.new(REQUEST), **(headers or {})}
        if method == "POST":
            all_headers.setdefault(_IDEMPOTENCY_KEY, str(uuid.uuid4()))  # one per call, the same for its retries
        try:
            content = None
            if body is not None:
                content = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
                all_headers["Content-Type"] = "application/json"
            return self._http.build_request(
                method,
                self.credentials.endpoint + path,
                params={name: _param(value) for name, value in (params or {}).items() if value is not None} or None,
                content=content,
                headers=all_headers,
                timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_TIMEOUT_S)),
            )
        except UnicodeEncodeError as error:
            raise InvalidInput("the request holds text that is not UTF-8", status=400, code="malformed") from error


def is_loopback(url: str) -> bool:
    """Return whether ``url`` names this machine itself."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def user_agent() -> str:
    """Return the ``User-Agent`` of this SDK: ``iaas-python/0.1.0 python/3.11``."""
    return f"iaas-python/{__version__} python/{sys.version_info.major}.{sys.version_info.minor}"


def _tls_context(endpoint: str) -> ssl.SSLContext | bool:
    # Reading all certificate authorities takes longer than a request; plain HTTP needs none. The empty
    # context trusts nobody, so nothing becomes less safe if it were used after all.
    return True if endpoint.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _param(value: Param) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return rfc3339(value) if isinstance(value, datetime) else str(value)


def _lower(headers: httpx.Headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _json(response: httpx.Response) -> Any:
    if not response.content:
        return None
    try:
        return response.json()
    except ValueError as error:
        raise UnexpectedAnswer(f"{response.request.url} answered with something that is not JSON") from error
