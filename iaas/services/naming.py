"""Names and host names."""

from __future__ import annotations

import re

from iaas.kernel.errors import FieldError, InvalidInput

_HOSTNAME = re.compile(r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")


def hostname_from(name: str, fallback: str) -> str:
    """Return a host name made of a display name. Source of the form: RFC 1123, section 2.1."""
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].rstrip("-")
    return words or fallback


def check_hostname(hostname: str, field: str = "hostname") -> str:
    """Return ``hostname`` if it is one label of a DNS name, lower case."""
    if not _HOSTNAME.fullmatch(hostname):
        message = "must be 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit"
        raise InvalidInput(f"{field}: {message}", errors=[FieldError(field, "invalid", message)])
    return hostname
