"""One connection to libvirt that comes back when the daemon does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import libvirt

from iaas.drivers.interface import BackendDownError
from iaas.drivers.libvirt.errors import translated
from iaas.drivers.libvirt.events import EVENT_LOOP

logger = logging.getLogger(__name__)

KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_COUNT = 3  # a daemon silent for interval * (count + 1) is given up, and calls to it end

LifecycleCallback = Callable[[str, int, int], None]
"""Called with (domain name, event, detail) from the event loop's thread; must not block."""


class Connection:
    """libvirt at ``uri``; opened at first use, and again after it was lost.

    Args:
        uri: any libvirt URI, such as ``qemu:///system?socket=...``.
        on_lifecycle: told of every domain that starts or stops, also after reconnecting.
    """

    def __init__(self, uri: str, on_lifecycle: LifecycleCallback) -> None:
        self._uri = uri
        self._on_lifecycle = on_lifecycle
        self._lock = threading.Lock()
        self._connection: libvirt.virConnect | None = None
        self._is_closed = False
        EVENT_LOOP.acquire()

    def get(self) -> libvirt.virConnect:
        """Return a live connection.

        Raises:
            BackendDownError: the daemon does not answer, or :meth:`close` was called.
        """
        with self._lock:
            if self._is_closed:
                raise BackendDownError("the libvirt driver is closed")
            if self._connection is not None:
                with translated("reach libvirt"):
                    if self._connection.isAlive():
                        return self._connection
                logger.warning("the connection to libvirt was lost; opening it again")
                self._drop()
            with translated("reach libvirt"):
                self._connection = self._open()
            return self._connection

    def _open(self) -> libvirt.virConnect:
        connection = libvirt.open(self._uri)
        connection.setKeepAlive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT)
        event = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
        connection.domainEventRegisterAny(None, event, self._lifecycle_event, None)
        return connection

    def _lifecycle_event(
        self, _: libvirt.virConnect, domain: libvirt.virDomain, event: int, detail: int, __: object
    ) -> None:
        self._on_lifecycle(domain.name(), event, detail)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except libvirt.libvirtError as exc:
                logger.info("closing a lost connection to libvirt: %s", exc)

    def close(self) -> None:
        """Close the connection for good; a second call does nothing."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._drop()
        EVENT_LOOP.release()
