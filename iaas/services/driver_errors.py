"""Turns what drivers raise into the cloud's own errors, for calls made while the client waits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from iaas.drivers import interface as drivers
from iaas.kernel import errors

_TABLE: tuple[tuple[type[drivers.DriverError], type[errors.CloudError]], ...] = (
    # The first match counts: special ones stand before their bases.
    (drivers.GuestUnavailableError, errors.GuestUnavailable),
    (drivers.BackendDownError, errors.Unavailable),
    (drivers.TransientError, errors.Unavailable),
    (drivers.NotFoundError, errors.InvalidState),
    (drivers.NoCapacityError, errors.OutOfCapacity),
    (drivers.UnsupportedError, errors.NotSupported),
    (drivers.PermanentError, errors.InvalidState),
    (drivers.DriverError, errors.Internal),
)


@contextmanager
def translated() -> Iterator[None]:
    """Raise the cloud's error in place of a driver's."""
    try:
        yield
    except drivers.DriverError as error:
        for driver_error, cloud_error in _TABLE:
            if isinstance(error, driver_error):
                raise cloud_error(str(error), detail=repr(error)) from error
        raise
