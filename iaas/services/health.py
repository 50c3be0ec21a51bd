"""Whether the backends answer, known without waiting for one that does not.

A daemon that hangs takes every call with it that asks it something. So nobody who holds a client's connection
asks: one thread for each driver does, everybody else reads its last answer, or waits for the present one for a
moment. The simulation answers at once and is simply asked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

import structlog

from iaas.drivers.interface import Backend, BackendDownError, DriverError, MachineKind
from iaas.kernel.errors import CloudError, Unavailable
from iaas.services.driver_errors import translated

log = structlog.get_logger(__name__)

FRESH_S = 2.0  # so old an answer still counts
PATIENCE_S = 2.0  # a driver that has not answered by then counts as hung until it does
RETRY_AFTER_S = 5
REVIVE_EVERY_S = 10.0
NETWORKS = "networks"


class BackendHealth:
    """The health of one cloud's drivers. All times are of the wall clock.

    Args:
        backend: whose drivers; ``revive`` of it is called, in the background, when one of them is down.
        patience_s: how long a driver may take to answer.
    """

    def __init__(self, backend: Backend, *, patience_s: float = PATIENCE_S) -> None:
        checks: dict[str, Callable[[], None]] = {
            kind.value: driver.check_available for kind, driver in backend.compute.items()
        }
        checks[NETWORKS] = backend.networks.check_available
        self._checks = checks
        self._reviver = _Reviver(backend.revive) if backend.revive is not None else None
        self._probes: Mapping[str, _Probe] = {}
        if backend.blocking:
            self._probes = {name: _Probe(name, check, patience_s, self._on_down) for name, check in checks.items()}

    def check(self, kind: MachineKind | str) -> None:
        """Return when machines of ``kind`` can be worked on.

        Raises:
            Unavailable: their backend is down or hangs; the message says what to do.
            CloudError: what else is wrong with it.
        """
        self._check(str(kind))

    def check_networks(self) -> None:
        """Return when networks can be made; raises as :meth:`check` does."""
        self._check(NETWORKS)

    def problems(self) -> dict[str, str]:
        """Return what is wrong, by kind of machine or ``networks``; empty when all is well."""
        found: dict[str, str] = {}
        for name in self._checks:
            try:
                self._check(name)
            except CloudError as error:
                found[name] = error.message
        return found

    def look(self) -> None:
        """Ask all drivers that block, in the background; one that is down is revived where that is in our hands."""
        for probe in self._probes.values():
            probe.begin()

    def _check(self, name: str) -> None:
        probe = self._probes.get(name)
        try:
            with translated():
                (self._checks[name] if probe is None else probe.check)()
        except Unavailable as error:
            error.retry_after_s = RETRY_AFTER_S
            raise

    def _on_down(self) -> None:
        if self._reviver is not None:
            self._reviver.begin()


class _Probe:
    """Asks one driver, in a thread of its own, never twice at the same time."""

    def __init__(self, name: str, ask: Callable[[], None], patience_s: float, on_down: Callable[[], None]) -> None:
        self._name = name
        self._ask = ask
        self._patience_s = patience_s
        self._on_down = on_down
        self._lock = threading.Lock()
        self._asking: threading.Event | None = None  # set when the present question is answered
        self._asked_at_s = 0.0
        self._answered_at_s = float("-inf")
        self._answer: DriverError | None = None

    def check(self) -> None:
        asking = self.begin(unless_fresh=True)
        if asking is not None:
            waited_s = time.monotonic() - self._asked_at_s
            if waited_s >= self._patience_s or not asking.wait(self._patience_s - waited_s):
                waited_s = time.monotonic() - self._asked_at_s
                raise BackendDownError(
                    f"the backend of {self._name} hangs: no answer for {waited_s:.0f} s. Restart its daemon; jobs that"
                    " were accepted wait for it, and nothing else is concerned"
                )
        answer = self._answer
        if answer is not None:
            raise type(answer)(str(answer)) from answer  # a new one: each has a traceback of its own

    def begin(self, *, unless_fresh: bool = False) -> threading.Event | None:
        """Ask unless somebody does already; return what to wait for, None when the last answer is fresh enough."""
        with self._lock:
            if self._asking is not None:
                return self._asking
            if unless_fresh and time.monotonic() - self._answered_at_s < FRESH_S:
                return None
            self._asking = asking = threading.Event()
            self._asked_at_s = time.monotonic()
        threading.Thread(target=self._run, args=(asking,), name=f"probe-{self._name}", daemon=True).start()
        return asking

    def _run(self, asking: threading.Event) -> None:
        answer: DriverError | None = None
        try:
            self._ask()
        except DriverError as error:
            answer = error
        except Exception as error:  # a driver's fault is an answer, too: whoever waits must get one
            log.exception("probe_broke", backend=self._name)
            answer = BackendDownError(f"the backend of {self._name} cannot be asked: {type(error).__name__}")
        with self._lock:
            changed = (answer is None) != (self._answer is None)
            self._answer, self._answered_at_s, self._asking = answer, time.monotonic(), None
        asking.set()
        if changed:
            log.warning("backend_health", backend=self._name, problem=None if answer is None else str(answer))
        if isinstance(answer, BackendDownError):
            self._on_down()


class _Reviver:
    """Brings back daemons that are in our hands; at most one attempt at a time, with pauses."""

    def __init__(self, revive: Callable[[], None]) -> None:
        self._revive = revive
        self._lock = threading.Lock()
        self._next_s = float("-inf")
        self._is_running = False

    def begin(self) -> None:
        with self._lock:
            if self._is_running or time.monotonic() < self._next_s:
                return
            self._is_running = True
        threading.Thread(target=self._run, name="revive", daemon=True).start()

    def _run(self) -> None:
        try:
            self._revive()
            log.warning("backend_revived")
        except Exception as error:  # whatever it is, the next probe tells it to whoever asks; this is the attempt
            log.exception("backend_not_revived", reason=str(error))
        finally:
            with self._lock:
                self._next_s = time.monotonic() + REVIVE_EVERY_S
                self._is_running = False
