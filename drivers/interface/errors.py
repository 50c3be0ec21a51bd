"""The few ways a driver fails. ``iaas.services.driver_errors`` turns them into the cloud's own errors."""

from __future__ import annotations


class DriverError(Exception):
    """Base of all. The message is shown to tenants: say what failed, name no path of the host."""


class TransientError(DriverError):
    """May go away by itself: the executor tries again with back-off until the step's deadline."""


class BackendDownError(TransientError):
    """The daemon behind the driver does not answer at all."""


class GuestUnavailableError(TransientError):
    """The machine runs, but its agent does not answer (still booting, no agent in the image)."""


class PermanentError(DriverError):
    """Will fail again however often it is tried: the executor unwinds the job."""


class NotFoundError(PermanentError):
    """The named object is not on this host (and the call needs it; ``remove_*`` never raises this)."""


class NoCapacityError(PermanentError):
    """The host lacks memory, disk or processors for it."""


class UnsupportedError(PermanentError):
    """This driver cannot do it; its ``capabilities`` say so beforehand."""
