"""What libvirt's errors mean to the cloud: one table."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import libvirt

from iaas.drivers.interface import (
    BackendDownError,
    DriverError,
    GuestUnavailableError,
    NoCapacityError,
    NotFoundError,
    PermanentError,
    TransientError,
)

logger = logging.getLogger(__name__)

# Source: libvirt, include/libvirt/virterror.h.
ERRORS: dict[int, type[DriverError]] = {
    libvirt.VIR_ERR_NO_DOMAIN: NotFoundError,
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE: GuestUnavailableError,
    libvirt.VIR_ERR_AGENT_UNSYNCED: GuestUnavailableError,
    libvirt.VIR_ERR_NO_CONNECT: BackendDownError,
    libvirt.VIR_ERR_INVALID_CONN: BackendDownError,
    libvirt.VIR_ERR_RPC: BackendDownError,
    libvirt.VIR_ERR_AUTH_FAILED: BackendDownError,
    libvirt.VIR_ERR_NO_MEMORY: NoCapacityError,
    libvirt.VIR_ERR_XML_ERROR: PermanentError,
    libvirt.VIR_ERR_XML_DETAIL: PermanentError,
    libvirt.VIR_ERR_XML_INVALID_SCHEMA: PermanentError,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED: PermanentError,
    libvirt.VIR_ERR_NO_SUPPORT: PermanentError,
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED: PermanentError,
    libvirt.VIR_ERR_INVALID_ARG: PermanentError,
    libvirt.VIR_ERR_DOM_EXIST: PermanentError,
}
# Errors of the way to the daemon: whatever their code, no answer came.
TRANSPORT_DOMAINS = frozenset({libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE})
HOST_PATH = re.compile(r"(?<![\w.])/[\w./+:@~-]+")


def translate(error: libvirt.libvirtError, what: str) -> DriverError:
    """Return the driver error for ``error``; ``what`` says what was tried ("start the machine").

    The message goes to tenants, so paths of the host are taken out of it.
    """
    code, text = error.get_error_code(), error.get_error_message() or str(error)
    kind = ERRORS.get(code, TransientError)
    if kind is TransientError and error.get_error_domain() in TRANSPORT_DOMAINS:
        kind = BackendDownError
    if "No space left on device" in text or "Cannot allocate memory" in text or "cannot set up guest memory" in text:
        kind = NoCapacityError
    if kind is BackendDownError:
        return BackendDownError("libvirt does not answer")
    return kind(f"cannot {what}: {HOST_PATH.sub('(path)', text)}")


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn libvirt's errors in the block into the driver's own."""
    try:
        yield
    except libvirt.libvirtError as exc:
        error = translate(exc, what)
        logger.info("libvirt: %s (code %s, domain %s)", exc, exc.get_error_code(), exc.get_error_domain())
        raise error from exc
