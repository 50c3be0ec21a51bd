"""Names of the DNS as clients write them, and what may stand in a record. Pure: nothing is looked up."""

from __future__ import annotations

import re
from collections.abc import Sequence

from iaas.services.cidrs import check_server, invalid, parse_address, shown

TYPES = ("A", "CNAME", "TXT")
MAX_VALUES = 32
MAX_TEXT_BYTES = 255  # RFC 1035, section 3.3: one character-string
MAX_NAME = 253  # RFC 1035, section 2.3.4: 255 bytes on the wire are so many characters
MAX_DOMAIN = 189  # leaves room for a host name of 63 and its dot
TTL_LEAST_S, TTL_MOST_S = 1, 604_800
MAX_FORWARDERS = 64
MAX_SERVERS = 4

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")  # RFC 1035, section 2.3.1, with RFC 1123, section 2.1
_SERVICE_LABEL = re.compile(r"_?[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?\Z")  # _acme-challenge and its like: RFC 8552


def check_domain(text: str, field: str) -> str:
    """Return a domain in lower case, without a dot at its end; raises InvalidInput."""
    domain = text.lower().removesuffix(".")
    if not domain or len(domain) > MAX_DOMAIN or not all(_LABEL.match(label) for label in domain.split(".")):
        message = f"{shown(text)} is not a domain: labels of a-z, 0-9 and -, with dots between, at most {MAX_DOMAIN}"
        raise invalid(field, "invalid", message)
    return domain


def check_name(text: str, domain: str, field: str, *, service_labels: bool = False) -> str:
    """Return a name in lower case: relative to ``domain``, or with the dot at its end that makes it complete.

    Args:
        service_labels: labels may begin with an underscore.

    Raises:
        InvalidInput: it is none.
    """
    name = text.lower()
    pattern = _SERVICE_LABEL if service_labels else _LABEL
    whole = name.removesuffix(".") if name.endswith(".") else f"{name}.{domain}"
    labels = name.removesuffix(".").split(".")
    if len(whole) > MAX_NAME or not all(len(label) <= 63 and pattern.match(label) for label in labels):
        message = (
            f"{shown(text)} is not a name: labels of a-z, 0-9 and -, with dots between, relative to {domain}"
            " unless a dot ends it"
        )
        raise invalid(field, "invalid", message)
    return name


def check_type(text: str, field: str = "type") -> str:
    """Return the type of a record; raises InvalidInput."""
    wanted = text.upper()
    if wanted == "AAAA":
        raise invalid(field, "not_supported", "IPv6 is not supported")
    if wanted not in TYPES:
        raise invalid(field, "invalid", f"must be one of {', '.join(TYPES)}")
    return wanted


def check_values(record_type: str, values: Sequence[str], domain: str, field: str = "values") -> list[str]:
    """Return the values of a record of that type in their usual form; raises InvalidInput."""
    if not values:
        raise invalid(field, "required", "at least one value is needed")
    if len(values) > MAX_VALUES:
        raise invalid(field, "too_many", f"at most {MAX_VALUES} values")
    if record_type == "CNAME" and len(values) != 1:
        raise invalid(field, "too_many", "a CNAME has exactly one value")
    checked: list[str] = []
    for index, value in enumerate(values):
        where = f"{field}.{index}"
        match record_type:
            case "A":
                one = _check_host_address(value, where)
            case "CNAME":
                one = check_name(value, domain, where, service_labels=True)
            case _:
                one = _check_text(value, where)
        if one in checked:
            raise invalid(where, "twice", f"{shown(one)} is given twice")
        checked.append(one)
    return checked


def check_ttl(ttl_s: int, field: str = "ttl_s") -> int:
    """Return how long a record may be kept, in seconds; raises InvalidInput."""
    if not TTL_LEAST_S <= ttl_s <= TTL_MOST_S:
        raise invalid(field, "out_of_range", f"must be from {TTL_LEAST_S} to {TTL_MOST_S} seconds")
    return ttl_s


def check_servers(servers: Sequence[str], field: str) -> tuple[str, ...]:
    """Return the addresses of a few servers; raises InvalidInput."""
    if len(servers) > MAX_SERVERS:
        raise invalid(field, "too_many", f"at most {MAX_SERVERS}")
    checked = tuple(check_server(server, f"{field}.{index}") for index, server in enumerate(servers))
    for index, server in enumerate(checked):
        if server in checked[:index]:
            raise invalid(f"{field}.{index}", "twice", f"{server} is given twice")
    return checked


def _check_host_address(text: str, field: str) -> str:
    address = parse_address(text, field)
    if address.is_unspecified or address.is_multicast or address.is_reserved:
        raise invalid(field, "reserved", f"no host has the address {address}")
    return str(address)


def _check_text(text: str, field: str) -> str:
    if len(text.encode(errors="replace")) > MAX_TEXT_BYTES:
        raise invalid(field, "too_long", f"at most {MAX_TEXT_BYTES} bytes")
    if not text or not text.isprintable():  # a line break would end the line of the server's configuration
        raise invalid(field, "invalid", "must be printable text, and not empty")
    return text
