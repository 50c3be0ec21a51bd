"""What the kernel's announcements are read as."""

from __future__ import annotations

import socket
import struct

from iaas.drivers.linux.link_watch import RTM_DELLINK, RTM_NEWLINK, link_messages


def message(kind: int, name: str, *, family: int = socket.AF_UNSPEC) -> bytes:
    """Return an announcement as the kernel lays it out. Source: rtnetlink(7)."""
    attributes = b""
    for number, value in ((13, struct.pack("=I", 1000)), (3, name.encode() + b"\0")):
        attributes += struct.pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4)
    body = struct.pack("=BxHiII", family, 1, 7, 0, 0) + attributes
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def test_links_that_come_and_go() -> None:
    data = message(RTM_NEWLINK, "cttestaaaaaaaa") + message(RTM_DELLINK, "ct")
    assert link_messages(data) == [(RTM_NEWLINK, "cttestaaaaaaaa"), (RTM_DELLINK, "ct")]


def test_leaving_a_bridge_is_no_end() -> None:
    assert link_messages(message(RTM_DELLINK, "cttestaaaaaaaa", family=socket.AF_BRIDGE)) == []


def test_other_and_broken_messages_are_passed_over() -> None:
    done = struct.pack("=IHHII", 16, 3, 0, 0, 0)
    assert link_messages(done + message(RTM_DELLINK, "ct1")) == [(RTM_DELLINK, "ct1")]
    for broken in (b"", b"\0" * 64, message(RTM_DELLINK, "ct1")[:20], struct.pack("=IHHII", 8, 17, 0, 0, 0)):
        assert link_messages(broken) == []
