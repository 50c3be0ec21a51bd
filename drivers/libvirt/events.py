"""The thread that runs libvirt's event loop.

libvirt has one event implementation per process, to be registered before the first connection: this module
holds the only global state of the driver, and it lasts no longer than the connections that need it.
"""

from __future__ import annotations

import logging
import threading

import libvirt

logger = logging.getLogger(__name__)


class EventLoop:
    """Runs while somebody uses it; start and end by :meth:`acquire` and :meth:`release`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._thread: threading.Thread | None = None
        self._is_registered = False

    def acquire(self) -> None:
        """Have the loop run; each call needs one :meth:`release`."""
        with self._lock:
            if not self._is_registered:
                libvirt.virEventRegisterDefaultImpl()
                # Without a handler of ours libvirt prints every error, also those we expect.
                libvirt.registerErrorHandler(_ignore_error, None)
                self._is_registered = True
            self._users += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="libvirt-events", daemon=True)
                self._thread.start()

    def release(self) -> None:
        """Let go; the thread ends when nobody uses it any more."""
        with self._lock:
            self._users -= 1
            thread = self._thread if self._users == 0 else None
            if thread is None:
                return
            self._thread = None
            # The loop sleeps until something happens: this happens.
            libvirt.virEventAddTimeout(0, _wake, None)
        if thread is not threading.current_thread():
            thread.join(timeout=5)

    def _run(self) -> None:
        while self._thread is threading.current_thread():
            try:
                libvirt.virEventRunDefaultImpl()
            except libvirt.libvirtError as exc:
                logger.warning("libvirt's event loop: %s", exc)


def _wake(timer: int, _: object) -> None:
    libvirt.virEventRemoveTimeout(timer)


def _ignore_error(_: object, __: object) -> None:
    """Errors reach us as exceptions."""


EVENT_LOOP = EventLoop()
