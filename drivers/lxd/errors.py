"""LXD's refusals as driver errors: which of them may go away, and what a tenant may read of them."""

from __future__ import annotations

import re

from iaas.drivers.interface import (
    BackendDownError,
    DriverError,
    GuestUnavailableError,
    NoCapacityError,
    NotFoundError,
    PermanentError,
    TransientError,
)

# Paths of the host, and the command lines that LXD quotes them in, are nobody's business but the operator's.
_PATH = re.compile(r"(?<![\w:])/[^\s\"':,;]+")
_MESSAGE_LIMIT = 300

_NO_ROOM = ("no space left", "disk quota exceeded", "not enough space", "exceeds the available space")
_BUSY = ("is busy running", "database is locked", "device or resource busy", "operation already in progress")
_FINAL = ("is a directory", "not a directory", "file name too long")  # answered with 500 by the file API
_DOWN = ("lxd is shutting down", "daemon is shutting down", "daemon not setup yet", "not ready", "database is closed")


PRECONDITION_FAILED = 412  # the machine is no more what the request was made for


class BusyError(TransientError):
    """Another operation holds or has changed the machine; a second or two later LXD takes the request."""


def driver_error(action: str, status_code: int, text: str) -> DriverError:
    """Return the error for LXD's answer ``text`` to ``action`` ("start the machine").

    ``status_code`` is LXD's own: 404 and 5xx of an HTTP answer, 400 of every operation that failed.
    """
    lowered = text.lower()
    message = f"LXD could not {action}: {public_text(text)}"
    if any(mark in lowered for mark in _NO_ROOM):
        return NoCapacityError(f"no room to {action}: {public_text(text)}")
    if any(mark in lowered for mark in _BUSY) or status_code == PRECONDITION_FAILED:
        return BusyError(message)
    if any(mark in lowered for mark in _DOWN):
        return BackendDownError(message)
    if status_code == 404:
        return NotFoundError(message)
    if "instance is not running" in lowered:
        return GuestUnavailableError("the machine is not running")
    if any(mark in lowered for mark in _FINAL):
        return PermanentError(message)
    if status_code >= 500 or status_code == 409:
        return TransientError(message)
    return PermanentError(message)


def public_text(text: str) -> str:
    """Return one line of LXD's ``text`` without any path of the host, at most 300 characters."""
    line = " ".join(_PATH.sub("(path)", text).split())
    return line if len(line) <= _MESSAGE_LIMIT else line[: _MESSAGE_LIMIT - 1] + "…"
