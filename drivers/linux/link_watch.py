"""Tell of containers' links that vanish: the kernel announces it, a thread listens.

A NIC that was handed on into a namespace inside its container dies with that namespace; nobody else says so.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import struct
import threading
from collections.abc import Callable

from iaas.drivers.interface import NotFoundError
from iaas.drivers.linux import names
from iaas.drivers.linux.links import link_names
from iaas.drivers.linux.namespaces import entered, namespace_path

# Source: linux/rtnetlink.h, linux/if_link.h
RTMGRP_LINK = 1
RTM_NEWLINK, RTM_DELLINK = 16, 17
IFLA_IFNAME = 3
NETLINK_HEADER = struct.Struct("=IHHII")
LINK_HEADER = struct.Struct("=BxHiII")
ATTRIBUTE_HEADER = struct.Struct("=HH")
RECEIVE_BYTES = 1 << 16
LOOK_INTERVAL_S = 1.0

logger = logging.getLogger(__name__)


class LinkWatch:
    """Watches the fabric for links of containers' NICs that go away.

    Args:
        namespace: the fabric's network namespace; it may come later, or be made anew.
        tag: the deployment's tag.
        lost: called with the suffix of a NIC's id, from the watch's thread.
    """

    def __init__(self, namespace: str, tag: str, lost: Callable[[str], None]) -> None:
        self._namespace = namespace
        self._tag = tag
        self._lost = lost
        self._wake_reader, self._wake_writer = os.pipe2(os.O_CLOEXEC)
        self._present: set[str] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"link-watch-{tag}", daemon=True)

    def start(self) -> None:
        """Start, and return when it watches (at once when there is no fabric yet)."""
        self._thread.start()
        self._ready.wait(LOOK_INTERVAL_S)

    def close(self) -> None:
        """End the thread."""
        os.write(self._wake_writer, b"x")
        self._thread.join()
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    def _run(self) -> None:
        while not self._is_closing(0):
            try:
                with self._subscribed() as subscription:
                    home = self._inode()
                    # What came and went while nobody listened.
                    self._compare()
                    self._ready.set()
                    while self._inode() == home:
                        if self._is_closing(LOOK_INTERVAL_S, subscription):
                            return
                        self._receive(subscription)
            except (OSError, NotFoundError):  # no fabric, or it has just gone
                self._ready.set()
                if self._is_closing(LOOK_INTERVAL_S):
                    return

    def _subscribed(self) -> socket.socket:
        with entered(self._namespace):
            made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        try:
            made.bind((0, RTMGRP_LINK))
        except OSError:
            made.close()
            raise
        return made

    def _inode(self) -> int:
        return namespace_path(self._namespace).stat().st_ino

    def _is_closing(self, timeout_s: float, *others: socket.socket) -> bool:
        """Wait until ``others`` have something to say; True when the watch is to end."""
        watched = [self._wake_reader, *(other.fileno() for other in others)]
        readable, _, _ = select.select(watched, [], [], timeout_s)
        return self._wake_reader in readable

    def _receive(self, subscription: socket.socket) -> None:
        while True:
            try:
                data = subscription.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError:  # more than the socket could hold: some of it was thrown away
                self._compare()
                return
            for kind, name in link_messages(data):
                self._note(kind, name)

    def _compare(self) -> None:
        present = set(link_names(self._namespace))
        for name in self._present - present:
            self._note(RTM_DELLINK, name)
        for name in present:
            self._note(RTM_NEWLINK, name)

    def _note(self, kind: int, name: str) -> None:
        nic_suffix = names.container_nic_suffix(self._tag, name)
        if nic_suffix is None:
            return
        if kind == RTM_NEWLINK:
            self._present.add(name)
        elif name in self._present:
            self._present.discard(name)
            try:
                self._lost(nic_suffix)
            except Exception:  # somebody else's code: its failure must not end the watch
                logger.exception("a listener of lost links failed")


def link_messages(data: bytes) -> list[tuple[int, str]]:
    """Return (kind, link name) of each message about a link itself, not about its place in a bridge."""
    found = []
    offset = 0
    with contextlib.suppress(struct.error):
        while offset + NETLINK_HEADER.size <= len(data):
            length, kind, *_ = NETLINK_HEADER.unpack_from(data, offset)
            if length < NETLINK_HEADER.size:
                break
            if kind in {RTM_NEWLINK, RTM_DELLINK}:
                family, *_ = LINK_HEADER.unpack_from(data, offset + NETLINK_HEADER.size)
                body = data[offset + NETLINK_HEADER.size + LINK_HEADER.size : offset + length]
                if family == socket.AF_UNSPEC and (name := _link_name(body)) is not None:
                    found.append((kind, name))
            offset += (length + 3) & ~3
    return found


def _link_name(attributes: bytes) -> str | None:
    offset = 0
    while offset + ATTRIBUTE_HEADER.size <= len(attributes):
        length, kind = ATTRIBUTE_HEADER.unpack_from(attributes, offset)
        if length < ATTRIBUTE_HEADER.size:
            return None
        if kind == IFLA_IFNAME:
            return attributes[offset + ATTRIBUTE_HEADER.size : offset + length].rstrip(b"\0").decode()
        offset += (length + 3) & ~3
    return None
