"""The metadata service and the tenant APIs inside every VPC, answered by one loop and two pools of threads.

The metadata service has a pool of its own: a guest that boots must not wait for those that follow events.
"""

from __future__ import annotations

import contextlib
import errno
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from iaas.api.inside.loop import Listener, Loop, LoopClosedError, Pool, Service
from iaas.api.metadata.app import MetadataApp
from iaas.api.requests import MAX_BODY_BYTES
from iaas.api.v1.errors import problem_document
from iaas.drivers.interface import (
    METADATA_ADDRESS,
    SERVICE_ADDRESS,
    DriverError,
    NetworkDriver,
)
from iaas.kernel.errors import CloudError, Unavailable

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PORT = 80
METADATA_THREADS = 4
API_THREADS = 24  # more than tenant_api.MAX_SLOW
MAX_METADATA_BODY_BYTES = 1024
STOP_TIMEOUT_S = 5
_CODES = {400: "malformed", 413: "payload_too_large", 431: "malformed"}

InVPC = Callable[[str, "WSGIEnvironment", "StartResponse"], Iterable[bytes]]
"""A WSGI application that is told the VPC as well."""


class GuestServers:
    """What listens inside VPCs, for all of them in this process. Threads and loop are made with the first VPC."""

    def __init__(self) -> None:
        self._apps: dict[str, InVPC] = {METADATA_ADDRESS: _not_yet, SERVICE_ADDRESS: _not_yet}
        self._listeners: dict[str, dict[str, Listener]] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        self._loop: Loop | None = None
        self._services: dict[str, Service] = {}
        self._is_closed = False

    def connect(self, metadata: MetadataApp) -> None:
        """Give what answers at the metadata address (the cloud is made after its backend)."""
        self._apps[METADATA_ADDRESS] = metadata

    def connect_api(self, api: InVPC) -> None:
        """Give what answers at the service address."""
        self._apps[SERVICE_ADDRESS] = api

    def serve(self, vpc_id: str, driver: NetworkDriver) -> None:
        """Make sure that the VPC is served; nothing is done any more once this is closed.

        A router that was made anew is another namespace, though the VPC is the same: so the driver is asked for
        the socket each time, and refuses while ours is there.

        Raises:
            DriverError: the driver cannot listen there.
        """
        with self._locked(vpc_id) as loop:
            if loop is None:
                return
            present = self._listeners.setdefault(vpc_id, {})
            for address, service in self._services.items():
                try:
                    listener = driver.listen(vpc_id, address, PORT)
                except DriverError as error:
                    if address in present and _is_taken(error):
                        continue
                    raise
                try:
                    if (before := present.pop(address, None)) is not None:
                        loop.remove(before)
                    present[address] = loop.add(listener, partial(self._answer, address, vpc_id), service)
                except LoopClosedError:  # the server stops
                    listener.close()
                    return

    def stop(self, vpc_id: str) -> None:
        """Stop serving the VPC; nothing of ours is in its router then."""
        with self._locked(vpc_id) as loop:
            for listener in self._listeners.pop(vpc_id, {}).values():
                if loop is not None:
                    with contextlib.suppress(LoopClosedError):
                        loop.remove(listener)

    def close(self) -> None:
        """Close everything and end all threads. Twice is as good as once."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.close()
        for service in self._services.values():
            service.pool.shutdown(timeout=STOP_TIMEOUT_S)

    @contextmanager
    def _locked(self, vpc_id: str) -> Iterator[Loop | None]:
        """Run the block alone for its VPC, with the loop; None when this is closed."""
        with self._lock:
            lock = self._locks.setdefault(vpc_id, threading.Lock())
            if self._loop is None and not self._is_closed:
                self._services = {
                    METADATA_ADDRESS: Service(
                        pool=Pool("metadata", most=METADATA_THREADS), max_body_bytes=MAX_METADATA_BODY_BYTES
                    ),
                    SERVICE_ADDRESS: Service(
                        pool=Pool("guest-api", most=API_THREADS),
                        max_body_bytes=MAX_BODY_BYTES,
                        error_body=_problem_body,
                    ),
                }
                self._loop = Loop("inside-vpcs")
            loop = self._loop
        with lock:
            yield loop

    def _answer(
        self, address: str, vpc_id: str, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        return self._apps[address](vpc_id, environ, start_response)


def _is_taken(error: DriverError) -> bool:
    """Return whether somebody listens at the address already."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__
    return cause is not None and cause.errno == errno.EADDRINUSE


def _not_yet(_vpc_id: str, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer for a server that is about to be ready."""
    document: dict[str, Any] = problem_document(Unavailable("the server is starting"), 503, None)
    body = json.dumps(document).encode()
    headers = [("Content-Type", "application/problem+json"), ("Content-Length", str(len(body))), ("Retry-After", "1")]
    start_response("503 Service Unavailable", headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def _problem_body(status: int, reason: str) -> tuple[str, bytes]:
    code = _CODES.get(status, "malformed" if status < 500 else "internal")
    return "application/problem+json", json.dumps(
        problem_document(CloudError(reason, code=code), status, None)
    ).encode()
