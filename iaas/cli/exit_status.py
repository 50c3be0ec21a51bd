"""Exit statuses, and the one line that says why: what scripts and people get when a command fails."""

from __future__ import annotations

from enum import IntEnum

from iaas.client import errors
from iaas.kernel.errors import CloudError


class ExitStatus(IntEnum):
    """What the process ends with. ``instance exec`` and ``instance ssh`` end with the guest command's own."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    DENIED = 5
    UNAVAILABLE = 6
    WAIT_TIMEOUT = 7
    JOB_FAILED = 8
    INTERRUPTED = 130  # 128 + SIGINT, as shells do
    BROKEN_PIPE = 141  # 128 + SIGPIPE


class CommandError(Exception):
    """A command cannot go on: one line for people, and the status to end with."""

    def __init__(self, message: str, status: ExitStatus = ExitStatus.ERROR) -> None:
        super().__init__(message)
        self.status = status


# The first that fits counts, so the narrow ones stand first.
_BY_CLASS: tuple[tuple[type[Exception], ExitStatus], ...] = (
    (errors.ConfigurationError, ExitStatus.USAGE),
    (errors.NotFound, ExitStatus.NOT_FOUND),
    (errors.Conflict, ExitStatus.CONFLICT),
    (errors.PreconditionFailed, ExitStatus.CONFLICT),
    (errors.Unauthenticated, ExitStatus.DENIED),
    (errors.PermissionDenied, ExitStatus.DENIED),
    (errors.QuotaExceeded, ExitStatus.DENIED),
    (errors.RateLimited, ExitStatus.UNAVAILABLE),
    (errors.BackendUnavailable, ExitStatus.UNAVAILABLE),
    (errors.ConnectionFailed, ExitStatus.UNAVAILABLE),
    (errors.WaitTimeout, ExitStatus.WAIT_TIMEOUT),
    (errors.JobFailed, ExitStatus.JOB_FAILED),
    (errors.NeverReady, ExitStatus.JOB_FAILED),
)
_GATEWAY_STATUSES = frozenset({502, 503, 504})


def exit_status(error: Exception) -> ExitStatus:
    """Return the status for ``error``."""
    if isinstance(error, CommandError):
        return error.status
    for cls, status in _BY_CLASS:
        if isinstance(error, cls):
            return status
    if isinstance(error, errors.APIError) and error.status in _GATEWAY_STATUSES:
        return ExitStatus.UNAVAILABLE
    return ExitStatus.ERROR


def one_line(error: Exception) -> str:
    """Return ``message (field: what is wrong with it; ...)`` without line breaks or terminal codes."""
    message = str(error) or type(error).__name__
    if isinstance(error, errors.APIError | CloudError):
        # A message that names the field and says what is wrong with it is not followed by the same again.
        faults = [each for each in error.errors if each.field not in message or each.message not in message]
        unsaid = "; ".join(f"{each.field}: {each.message}" if each.field else each.message for each in faults)
        message += f" ({unsaid})" if unsaid else ""
        blockers = ", ".join(f"{each.type} {each.id}" for each in error.blockers)
        message += f" (in the way: {blockers})" if blockers else ""
    return printable(message)


def printable(text: str) -> str:
    """Return ``text`` on one line, and with nothing in it that a terminal would obey."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in " ".join(text.split()))
