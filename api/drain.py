"""The end of a server, within a deadline: whatever hangs then is left to the journal."""

from __future__ import annotations

import os
import sys
import threading

import structlog

log = structlog.get_logger(__name__)

DEADLINE_S = 18.0
DEADLINE_WITH_REMOVAL_S = 120.0


class Drain:
    """Ends the process if it has not come to its own end in time.

    Work that was accepted is in the journal and goes on at the next start, as after a kill. A thread that waits
    for a daemon which hangs would otherwise keep the server for ever.

    Args:
        deadline_s: from :meth:`begin` on.
    """

    def __init__(self, deadline_s: float = DEADLINE_S) -> None:
        self._deadline_s = deadline_s
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Start the time; a second call does nothing."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="drain", daemon=True)
                self._thread.start()

    def end(self) -> None:
        """Everything that could hang is through."""
        self._ended.set()

    def _watch(self) -> None:
        if self._ended.wait(self._deadline_s):
            return
        log.error("stopped_while_calls_hang", deadline_s=self._deadline_s)
        sys.stderr.write("iaas: a backend hangs; stopping without it, what it had to do goes on at the next start\n")
        sys.stderr.flush()
        os._exit(0)
