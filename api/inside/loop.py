"""One thread that listens at many sockets, and a few that answer, however many VPCs there are.

waitress reads requests and writes answers in its loop; a thread of the pool has one only from the request's last
byte until its answer is computed. So slow senders and slow readers cost no thread, and every connection that one
loop has in hand may belong to another network.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher
from waitress.trigger import trigger

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

IDLE_CONNECTION_S = 15
LOOK_FOR_IDLE_EVERY_S = 5
MAX_HEADER_BYTES = 16_384
MAX_PER_GUEST = 16
MAX_PER_LISTENER = 128
MAX_CONNECTIONS = 512
FAIR_SHARE = 8  # of each listener beyond MAX_CONNECTIONS, so that no few VPCs keep all others out
CALL_TIMEOUT_S = 30.0  # nothing blocks in the loop; this is for machines with no time left for it

T = TypeVar("T")


class LoopClosedError(Exception):
    """The loop has ended, with all its sockets."""


class Pool(ThreadedTaskDispatcher):
    """Threads that answer requests; made when they are needed.

    Args:
        most: threads at most; requests beyond wait for one.
    """

    queue_logger = logging.getLogger("iaas.api.inside.queue")

    def __init__(self, name: str, *, most: int) -> None:
        super().__init__()
        self._name = name
        self._most = most
        self.queue_logger.setLevel(logging.ERROR)  # that requests wait is a guest's doing: no flood of warnings

    def start_new_thread(self, target: Callable[[int], object], thread_no: int) -> None:
        threading.Thread(target=target, args=(thread_no,), name=f"{self._name}-{thread_no}", daemon=True).start()

    def add_task(self, task: Any) -> None:
        with self.lock:
            idle = len(self.threads) - self.stop_count - self.active_count
            wanted = min(self._most, len(self.threads) + 1) if len(self.queue) >= idle else 0
        if wanted:
            self.set_thread_count(max(wanted, len(self.threads)))
        super().add_task(task)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """How a kind of listener answers.

    ``error_body`` makes (content type, body) of the status and reason of what never reaches the application.
    """

    pool: Pool
    max_body_bytes: int
    error_body: Callable[[int, str], tuple[str, bytes]] | None = None


class Loop:
    """The thread that has all sockets."""

    def __init__(self, name: str) -> None:
        self._sockets: Any = {}  # by file number: listeners, connections, the trigger
        self._trigger: Any = trigger(self._sockets)  # the stubs are wrong about what it takes
        self._listeners = 0
        self._lock = threading.Lock()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def add(self, listener: socket.socket, app: WSGIApplication, service: Service) -> Listener:
        """Serve the application at a listening socket; the loop owns the socket from then on.

        Raises:
            LoopClosedError: the socket is still the caller's.
        """

        def add() -> Listener:
            added = Listener(self, self._sockets, listener, app, service)
            self._listeners += 1
            return added

        return self.call(add)

    def remove(self, listener: Listener) -> None:
        """Close the listening socket and its connections; its address is free when this returns.

        In the loop's own thread: a socket that another thread closes stays bound for as long as the loop waits for it.

        Raises:
            LoopClosedError: it has closed them itself.
        """

        def remove() -> None:
            listener.close_all()
            self._listeners -= 1

        self.call(remove)

    def close(self) -> None:
        """Close every socket and end the thread."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._trigger.pull_trigger(self._close_all)
        self._thread.join(CALL_TIMEOUT_S)

    def call(self, function: Callable[[], T]) -> T:
        """Return what the function returns, called in the loop's thread.

        Raises:
            LoopClosedError: nothing was called.
        """
        done: Future[T] = Future()

        def call() -> None:
            try:
                done.set_result(function())
            except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits for it
                done.set_exception(error)

        with self._lock:
            if self._is_closed:
                raise LoopClosedError
            self._trigger.pull_trigger(call)
        return done.result(CALL_TIMEOUT_S)

    @property
    def connections(self) -> int:
        """How many are open (asked in the loop's thread)."""
        return len(self._sockets) - self._listeners - 1

    def wake(self) -> None:
        """Let the loop look at its sockets again; not when it is closed: its file number may be another's by then."""
        with self._lock:
            if not self._is_closed:
                self._trigger.pull_trigger()

    def _run(self) -> None:
        wasyncore.loop(timeout=LOOK_FOR_IDLE_EVERY_S, use_poll=True, map=self._sockets)

    def _close_all(self) -> None:
        for each in list(self._sockets.values()):
            each.handle_close()


class _Refusal(ErrorTask):
    """An answer to what is no request, or too large a one: in the form of the listener's own errors."""

    def execute(self) -> None:
        listener: Any = self.channel.server
        error: Any = self.request.error  # type: ignore[attr-defined]  # the stubs take the request for its error
        if listener.service.error_body is None:
            super().execute()
            return
        content_type, body = listener.service.error_body(error.code, error.body)
        self.status = f"{error.code} {error.reason}"
        self.response_headers = [("Content-Type", content_type)]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(HTTPChannel):
    error_task_class = _Refusal


class Listener(TcpWSGIServer):
    """One listening socket; everything but its requests happens in the loop's thread."""

    channel_class = _Channel
    _map: dict[int, Any]
    active_channels: Any  # the stubs say that it is one channel; it is a mapping

    def __init__(
        self, loop: Loop, sockets: dict[int, Any], listener: socket.socket, app: WSGIApplication, service: Service
    ) -> None:
        self.service = service
        self._loop = loop
        settings = Adjustments(
            sockets=[listener],
            ident="iaas",
            channel_timeout=IDLE_CONNECTION_S,
            cleanup_interval=LOOK_FOR_IDLE_EVERY_S,
            max_request_header_size=MAX_HEADER_BYTES,
            max_request_body_size=service.max_body_bytes,
            connection_limit=1_000_000,  # theirs counts listeners too, and stops all of them; see handle_accept
            log_socket_errors=False,
            clear_untrusted_proxy_headers=False,  # they mean nothing to us, but metadata tokens are refused for them
        )
        address = (listener.family, listener.type, listener.proto, listener.getsockname())
        super().__init__(app, sockets, True, listener, service.pool, settings, address, False)
        self.trigger.close()  # type: ignore[attr-defined]  # the stubs say int; two file numbers for each would be dear

    def pull_trigger(self) -> None:
        self._loop.wake()

    def handle_accept(self) -> None:
        try:
            accepted = self.accept()
        except OSError:  # gone before it was accepted, or no file number is left
            return
        if accepted is None:
            return
        connection, peer = accepted
        if not self._has_room(peer[0]):
            connection.close()
            return
        self.set_socket_options(connection)
        self.channel_class(self, connection, peer, self.adj, map=self._map)

    def _has_room(self, address: str) -> bool:
        own = len(self.active_channels)
        if own >= MAX_PER_LISTENER or (own >= FAIR_SHARE and self._loop.connections >= MAX_CONNECTIONS):
            return False
        of_guest = [channel for channel in self.active_channels.values() if channel.addr[0] == address]
        return len(of_guest) < MAX_PER_GUEST

    def handle_close(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the listening socket. The trigger is the loop's."""
        wasyncore.dispatcher.close(self)

    def close_all(self) -> None:
        for channel in list(self.active_channels.values()):
            channel.handle_close()
        self.close()
