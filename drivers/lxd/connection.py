"""One LXD (or Incus) daemon: requests, operations, websockets; its failures as driver errors."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import IO, Any, cast
from urllib.parse import urlsplit

import pylxd
import pylxd.client
import pylxd.exceptions
import requests
import websocket

from iaas.drivers.interface import BackendDownError, DriverError, NotFoundError, TransientError
from iaas.drivers.lxd.errors import driver_error
from iaas.drivers.lxd.transport import CONNECT_TIMEOUT_S, UNIX_SCHEME, new_session, open_socket

REQUEST_TIMEOUT_S = 60.0
WAIT_SLICE_S = 30.0  # one long poll; longer waits are several of them, so that a dead peer is noticed
CLIENTS_KEPT = 8

STATUS_RUNNING = 103  # Source: LXD REST API, "List of current status codes"
STATUS_SUCCESS = 200

log = logging.getLogger(__name__)


class Operation:
    """An asynchronous operation of LXD that has ended: its ``metadata`` and how it went."""

    __slots__ = ("error", "metadata", "status_code")

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self.status_code = int(answer["status_code"])
        self.error = str(answer.get("err") or "")
        self.metadata: Mapping[str, Any] = answer.get("metadata") or {}


class LXDConnection:
    """Requests to one daemon, from any thread.

    A request borrows a pylxd client (an HTTP session is no thing to share between threads) and gives it
    back; one whose connection failed is thrown away, so a restarted daemon is simply used again.

    Args:
        endpoint: ``http+unix://<quoted socket path>``, the bare path of a socket, or ``https://host:port``.
        cert: client certificate and key files, for https.
        verify: for https, True (public authorities) or the file with the daemon's own certificate.
    """

    def __init__(self, endpoint: str, *, cert: tuple[str, str] | None = None, verify: bool | str = True) -> None:
        self._endpoint = pylxd_endpoint(endpoint)
        self._cert = cert
        self._verify = verify
        self._idle: deque[Any] = deque()
        self._lock = threading.Lock()
        self._is_closed = False

    # Requests

    def get(self, path: str, *, action: str, params: Mapping[str, str] | None = None) -> Any:
        """Return what LXD answers to ``GET /1.0/<path>``.

        Raises:
            NotFoundError: nothing is there.
            BackendDownError: LXD does not answer.
        """
        return self._request("get", path, action, params=params).json()["metadata"]

    def get_versioned(self, path: str, *, action: str) -> tuple[Any, str]:
        """Return what :meth:`get` does, and the mark of this version (``ETag``) for an ``If-Match``."""
        response = self._request("get", path, action)
        return response.json()["metadata"], response.headers.get("ETag", "")

    def find(self, path: str, *, action: str) -> Any | None:
        """Return what :meth:`get` does, None where nothing is."""
        try:
            return self.get(path, action=action)
        except NotFoundError:
            return None

    def get_file(self, path: str, *, action: str, params: Mapping[str, str] | None = None) -> requests.Response:
        """Return an answer that is a file and no JSON (console log, guest file), with its headers."""
        return self._request("get", path, action, params=params, is_api=False)

    def call(
        self,
        method: str,
        path: str,
        *,
        action: str,
        json: Mapping[str, Any] | None = None,
        data: bytes | IO[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> Any:
        """Do a synchronous change and return its metadata; ``timeout_s`` is per silence, not in all."""
        response = self._request(
            method, path, action, json=json, data=data, headers=headers, params=params, timeout_s=timeout_s
        )
        return response.json().get("metadata")

    def begin(self, method: str, path: str, *, action: str, **body: Any) -> tuple[str, Mapping[str, Any]]:
        """Start an asynchronous operation; return its id and what LXD says of it.

        The id is empty when LXD was done at once (a few calls are synchronous in one version only).
        """
        answer = self._request(method, path, action, **body).json()
        metadata = answer.get("metadata") or {}
        if answer.get("type") != "async":
            return "", metadata
        return str(answer["operation"]).split("?")[0].rsplit("/", 1)[-1], metadata

    def wait(self, operation_id: str, *, action: str, timeout_s: float) -> Operation | None:
        """Return the operation when it has ended, None when it has not within ``timeout_s``.

        Raises:
            NotFoundError: LXD knows nothing of it: it ended more than five seconds ago or LXD was restarted.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            left_s = deadline_s - time.monotonic()
            # LXD counts whole seconds, and 0 is "look now"; the last fraction of a second is rounded up.
            slice_s = max(0, min(int(left_s + 0.999), int(WAIT_SLICE_S)))
            answer = self.get(f"operations/{operation_id}/wait", action=action, params={"timeout": str(slice_s)})
            if int(answer["status_code"]) >= STATUS_SUCCESS:
                return Operation(answer)
            if time.monotonic() >= deadline_s:
                return None

    def is_operation_running(self, operation_id: str) -> bool:
        """Return whether the operation is still under way."""
        answer = self.find(f"operations/{operation_id}", action="look at an operation")
        return answer is not None and int(answer["status_code"]) < STATUS_SUCCESS

    def run(self, method: str, path: str, *, action: str, timeout_s: float, **body: Any) -> Operation:
        """Do an asynchronous operation to its end.

        Raises:
            DriverError: it failed, by :func:`iaas.drivers.lxd.errors.driver_error`.
            TransientError: it was not done within ``timeout_s`` (and goes on), or LXD was restarted meanwhile.
        """
        operation_id, _ = self.begin(method, path, action=action, **body)
        if not operation_id:
            return Operation({"status_code": STATUS_SUCCESS})
        try:
            operation = self.wait(operation_id, action=action, timeout_s=timeout_s)
        except NotFoundError as exc:
            raise TransientError(f"LXD lost track while it had to {action}") from exc
        if operation is None:
            raise TransientError(f"LXD did not {action} within {timeout_s:g} s")
        if operation.status_code != STATUS_SUCCESS:
            log.warning("LXD could not %s (%s): %s", action, path, operation.error)
            raise driver_error(action, operation.status_code, operation.error)
        return operation

    # Websockets

    def open_websocket(self, path: str, *, timeout_s: float) -> websocket.WebSocket:
        """Return a connected websocket at ``/1.0/<path>``; the caller closes it. ``timeout_s`` holds per call.

        Raises:
            BackendDownError: LXD does not answer.
        """
        parts = urlsplit(self._endpoint)
        try:
            sock = open_socket(self._endpoint, cert=self._cert, verify=self._verify)
        except OSError as exc:
            raise BackendDownError("LXD does not answer") from exc
        try:
            scheme, host = ("wss", parts.netloc) if parts.scheme == "https" else ("ws", "localhost")
            opened: Any = websocket.WebSocket(enable_multithread=True, skip_utf8_validation=True)
            # gorilla/websocket refuses an Origin that differs from Host, and no browser is involved.
            opened.connect(f"{scheme}://{host}/1.0/{path}", socket=sock, timeout=timeout_s, suppress_origin=True)
            opened.settimeout(timeout_s)
        except (websocket.WebSocketException, OSError) as exc:
            sock.close()
            raise BackendDownError("LXD refused a websocket") from exc
        return cast(websocket.WebSocket, opened)

    def close(self) -> None:
        """Close all connections; requests under way end as they will."""
        with self._lock:
            self._is_closed = True
        while self._idle:
            self._discard(self._idle.pop())

    # Clients

    def _request(
        self,
        method: str,
        path: str,
        action: str,
        *,
        is_api: bool | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
        **kwargs: Any,
    ) -> requests.Response:
        given = {key: value for key, value in kwargs.items() if value is not None}
        if is_api is not None:
            given["is_api"] = is_api
        with self._client() as client:
            try:
                node = client.api[path]
                response: requests.Response = getattr(node, method)(timeout=(CONNECT_TIMEOUT_S, timeout_s), **given)
            except pylxd.exceptions.LXDAPIException as exc:
                raise self._refusal(action, exc) from exc
            return response

    @contextlib.contextmanager
    def _client(self) -> Iterator[Any]:
        try:
            client = self._idle.pop()
        except IndexError:
            client = self._connect()
        try:
            yield client
        except requests.Timeout as exc:
            self._discard(client)
            raise TransientError("LXD took too long to answer") from exc
        except requests.RequestException as exc:
            self._discard(client)
            raise BackendDownError("LXD does not answer") from exc
        except DriverError:
            self._give_back(client)
            raise
        except BaseException:  # nobody knows what is left unread on it
            self._discard(client)
            raise
        else:
            self._give_back(client)

    def _connect(self) -> Any:
        session = new_session(
            self._endpoint,
            session=pylxd.client.get_session_for_url(self._endpoint, cert=self._cert, verify=self._verify),
        )
        try:
            return pylxd.Client(
                endpoint=self._endpoint,
                cert=self._cert,
                verify=self._verify,
                timeout=(CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S),
                session=session,
            )
        except (pylxd.exceptions.ClientConnectionFailed, requests.RequestException, OSError) as exc:
            session.close()
            raise BackendDownError("LXD does not answer") from exc
        except pylxd.exceptions.LXDAPIException as exc:
            session.close()
            raise self._refusal("answer", exc) from exc

    def _give_back(self, client: Any) -> None:
        with self._lock:
            if not self._is_closed and len(self._idle) < CLIENTS_KEPT:
                self._idle.append(client)
                return
        self._discard(client)

    def _discard(self, client: Any) -> None:
        client.api.session.close()

    def _refusal(self, action: str, exc: Any) -> DriverError:
        response: requests.Response = exc.response
        try:
            text = str(response.json().get("error") or response.reason)
        except ValueError:
            text = response.reason or f"HTTP {response.status_code}"
        if response.status_code != 404:
            log.info("LXD would not %s: HTTP %d, %s", action, response.status_code, text)
        return driver_error(action, response.status_code, text)


def shut_down(stream: websocket.WebSocket) -> None:
    """Close a websocket without ceremony, and wake the thread that reads from it."""
    closing: Any = stream  # its methods carry no types
    with contextlib.suppress(websocket.WebSocketException, OSError):
        closing.abort()
    with contextlib.suppress(websocket.WebSocketException, OSError):
        closing.shutdown()


def pylxd_endpoint(endpoint: str) -> str:
    """Return ``endpoint`` as pylxd wants it; a bare socket path becomes ``http+unix://``.

    Raises:
        ValueError: it is neither a path nor a known scheme.
    """
    if endpoint.startswith("/"):
        return f"{UNIX_SCHEME}://" + endpoint.replace("%", "%25").replace("/", "%2F")
    if not endpoint.startswith((f"{UNIX_SCHEME}://", "https://")):
        raise ValueError(f"an LXD endpoint is a socket path, http+unix:// or https://, not {endpoint!r}")
    return endpoint.rstrip("/")
