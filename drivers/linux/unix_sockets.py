"""Unix sockets of daemons, seen from a client."""

from __future__ import annotations

import socket
from pathlib import Path


def is_accepting(path: Path, *, timeout_s: float = 5) -> bool:
    """Return whether a process accepts connections there; a killed daemon leaves a socket that refuses them."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(timeout_s)
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError, TimeoutError):
            return False
    return True
