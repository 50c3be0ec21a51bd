"""The sockets of our own server. Granian keeps them to itself; what it has no switch for is set here from outside.

Only Linux tells a process which sockets it has. Elsewhere these do nothing: connections without life stay for as long
as their clients like, and a server that stops waits for them until its deadline.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator
from os import dup
from pathlib import Path


def notice_who_is_gone(port: int, *, silence_s: int) -> None:
    """Have the kernel end connections whose other side is gone, or takes nothing of what was sent to it.

    What is set on a listening socket holds for all that it accepts later.

    Args:
        silence_s: how long such a connection is kept.
    """
    for found in _sockets(port):
        if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, silence_s // 2))
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, silence_s // 6))
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, silence_s * 1000)


def hear_no_more(port: int) -> None:
    """End the way in of every connection: what is half received will never be whole."""
    for found in _sockets(port):
        if not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            with contextlib.suppress(OSError):  # it is not connected, or has just ended
                found.shutdown(socket.SHUT_RD)


def _sockets(port: int) -> Iterator[socket.socket]:
    """Yield the server's sockets of that port, each for as long as it is looked at; one that ends meanwhile is left."""
    if sys.platform != "linux":
        return
    for handle in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError):
            if not str(handle.readlink()).startswith("socket:"):
                continue
            with socket.socket(fileno=dup(int(handle.name))) as found:
                if found.family in (socket.AF_INET, socket.AF_INET6) and found.getsockname()[1] == port:
                    yield found
