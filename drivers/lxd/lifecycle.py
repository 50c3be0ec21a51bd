"""Machines that change by themselves: LXD's lifecycle events, compared with what we asked for.

An event only says "look again": what counts is the state found then. So nothing depends on the words of
one LXD version, and what happened while LXD was away is found by one look at everything afterwards.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable, Iterator

import websocket

from iaas.drivers.interface import DriverError, MachineState, PowerState
from iaas.drivers.interface.compute import LifecycleListener
from iaas.drivers.lxd.connection import LXDConnection, shut_down

RECONNECT_S = 1.0
REBOOT_S = 1.0  # a guest that reboots is stopped for a moment, until LXD starts it again (0.2 s): no news
SILENCE_S = 30.0  # then a ping shows whether LXD is still there
AT_REST = frozenset({PowerState.STOPPED, PowerState.RUNNING, PowerState.SUSPENDED, PowerState.CRASHED})

# Source: LXD, "Events", lifecycle event types. Others (exec, file access) do not change the power.
POWER_AFTER = {
    "instance-started": PowerState.RUNNING,
    "instance-restarted": PowerState.RUNNING,
    "instance-resumed": PowerState.RUNNING,
    "instance-paused": PowerState.SUSPENDED,
    "instance-stopped": PowerState.STOPPED,
    "instance-shutdown": PowerState.STOPPED,
}

log = logging.getLogger(__name__)


class LifecycleWatcher:
    """Tells listeners of changes nobody asked for through us.

    Args:
        look: the state of the machine with this instance name, None when there is none of ours.
        look_at_all: the states of all our machines, by instance name.
    """

    def __init__(
        self,
        connection: LXDConnection,
        *,
        look: Callable[[str], MachineState | None],
        look_at_all: Callable[[], dict[str, MachineState]],
    ) -> None:
        self._connection = connection
        self._look = look
        self._look_at_all = look_at_all
        self._lock = threading.Lock()
        self._listeners: list[LifecycleListener] = []
        self._known: dict[str, PowerState] = {}  # what the machine rests in, or was asked to
        self._changing: dict[str, int] = {}  # how many calls of ours are changing the machine just now
        self._missed: set[str] = set()  # told by an event of another change while we were at it
        self._moment = 0  # counts our calls' beginnings and ends
        self._touched: dict[str, int] = {}  # the last such moment of a machine: a look begun before is no news
        self._thread: threading.Thread | None = None
        self._stream: websocket.WebSocket | None = None
        self._second_looks: set[threading.Timer] = set()
        self._is_closed = threading.Event()

    def listen(self, listener: LifecycleListener) -> None:
        """Add a listener; the first one starts the watching."""
        with self._lock:
            self._listeners.append(listener)
            if self._thread is None and not self._is_closed.is_set():
                self._thread = threading.Thread(target=self._watch, name="lxd-lifecycle", daemon=True)
                self._thread.start()

    @contextlib.contextmanager
    def changing(self, instance_name: str, power: PowerState) -> Iterator[None]:
        """Within the block we ourselves bring the machine to ``power``: that is no news to anybody."""
        with self._lock:
            self._touch(instance_name)
            self._changing[instance_name] = self._changing.get(instance_name, 0) + 1
            self._known[instance_name] = power
        try:
            yield
        except BaseException:  # raised again: however it ended, we do not know the power
            with self._lock:
                self._known.pop(instance_name, None)  # whatever it is in now is taken as given
            raise
        finally:
            with self._lock:
                self._touch(instance_name)
                self._changing[instance_name] -= 1
                is_over = self._changing[instance_name] == 0
                if is_over:
                    del self._changing[instance_name]
                is_missed = is_over and instance_name in self._missed
                self._missed.discard(instance_name)
        if is_missed:
            self._compare_one(instance_name)

    def forget(self, instance_name: str) -> None:
        """Take the machine's state as given at the next look (it was removed, or a stop came to nothing)."""
        with self._lock:
            self._known.pop(instance_name, None)
            self._touched.pop(instance_name, None)

    def close(self) -> None:
        """Stop watching; no listener is called any more when this returns."""
        self._is_closed.set()
        with self._lock:
            stream, threads = self._stream, list[threading.Thread](self._second_looks)
            if self._thread is not None:
                threads.append(self._thread)
            for timer in self._second_looks:
                timer.cancel()
        if stream is not None:
            shut_down(stream)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(timeout=10)

    def _touch(self, instance_name: str) -> None:
        self._moment += 1
        self._touched[instance_name] = self._moment

    def _watch(self) -> None:
        while not self._is_closed.is_set():
            # LXD being away is normal (a restart); we are back as soon as it is.
            with contextlib.suppress(DriverError, websocket.WebSocketException, OSError, ValueError):
                self._follow_events()
            self._is_closed.wait(RECONNECT_S)

    def _follow_events(self) -> None:
        stream = self._connection.open_websocket("events?type=lifecycle", timeout_s=SILENCE_S)
        with self._lock:
            self._stream = stream
        try:
            if self._is_closed.is_set():
                return
            self._compare_all()
            while not self._is_closed.is_set():
                try:
                    message = stream.recv()
                except websocket.WebSocketTimeoutException:
                    stream.ping()
                    continue
                if not message:
                    return  # closed by LXD
                self._take(message)
        finally:
            with self._lock:
                self._stream = None
            shut_down(stream)

    def _take(self, message: str | bytes) -> None:
        event = json.loads(message).get("metadata") or {}
        power = POWER_AFTER.get(str(event.get("action")))
        if power is None:
            return
        instance_name = str(event.get("source", "")).split("?")[0].rsplit("/", 1)[-1]
        with self._lock:
            if instance_name in self._changing:
                if power is not self._known.get(instance_name):
                    self._missed.add(instance_name)
                return
            if self._known.get(instance_name) is power:
                return
        if power is PowerState.STOPPED:
            self._compare_later(instance_name)
        else:
            self._compare_one(instance_name)

    def _compare_later(self, instance_name: str) -> None:
        def look() -> None:
            # LXD gone by then: all machines are compared when it is back.
            with contextlib.suppress(DriverError):
                self._compare_one(instance_name)
            with self._lock:
                self._second_looks.discard(timer)

        timer = threading.Timer(REBOOT_S, look)
        timer.daemon = True
        with self._lock:
            if self._is_closed.is_set():
                return
            self._second_looks.add(timer)
            timer.start()

    def _compare_one(self, instance_name: str) -> None:
        with self._lock:
            begun = self._moment
        state = self._look(instance_name)
        if state is not None:
            self._compare(instance_name, state, begun)

    def _compare_all(self) -> None:
        with self._lock:
            begun = self._moment
        for instance_name, state in self._look_at_all().items():
            self._compare(instance_name, state, begun)

    def _compare(self, instance_name: str, state: MachineState, begun: int) -> None:
        with self._lock:
            is_stale = self._touched.get(instance_name, 0) > begun
            if is_stale or instance_name in self._changing or state.power not in AT_REST:
                return
            before = self._known.get(instance_name)
            self._known[instance_name] = state.power
            listeners = list(self._listeners)
        if before is None or before is state.power:
            return
        for listener in listeners:
            if self._is_closed.is_set():
                return
            try:
                listener(state.machine_id, state.power)
            except Exception:  # a listener's fault must not end the watching of all machines
                log.exception("a lifecycle listener failed")
