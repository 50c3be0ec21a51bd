"""What DNS records of one VPC may stand beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from iaas.kernel.errors import AlreadyExists, FieldError
from iaas.services.cidrs import invalid
from iaas.workflows.network_specs import full_name

CNAME = "CNAME"


def check_beside(rows: Sequence[Any], domain: str, *, name: str, record_type: str, values: Sequence[str]) -> None:
    """Return when a new record may stand beside those in ``rows``.

    Raises:
        AlreadyExists: its name and type are taken, or an alias (CNAME) would not be alone. Source: RFC 1034,
            section 3.6.2.
        InvalidInput: it is an alias that leads back to itself.
    """
    whole = full_name(name, domain)
    same = [row for row in rows if full_name(row.name, domain) == whole]
    for row in same:
        if row.type == record_type:
            message = f"there is a record {whole} of the type {record_type} already"
            raise AlreadyExists(message, errors=[FieldError("name", "taken", message)])
        if CNAME in (row.type, record_type):
            message = f"a CNAME is the only record of its name; {whole} has one of the type {row.type}"
            raise AlreadyExists(message, errors=[FieldError("name", "taken", message)])
    if record_type == CNAME:
        aliases = _aliases(rows, domain) | {whole: full_name(values[0], domain)}
        if _leads_to_itself(aliases, whole):
            raise invalid("values.0", "loop", f"{whole} would lead back to itself")


def check_no_clash(rows: Sequence[Any], new_domain: str) -> None:
    """Return when all records may stand beside each other under another domain; raises InvalidInput."""
    types: dict[str, set[str]] = {}
    for row in rows:
        of_name = types.setdefault(full_name(row.name, new_domain), set())
        if row.type in of_name or (of_name and CNAME in of_name | {row.type}):
            message = f"under {new_domain} two records would be {full_name(row.name, new_domain)}"
            raise invalid("dns_domain", "clash", message)
        of_name.add(row.type)
    aliases = _aliases(rows, new_domain)
    for whole in aliases:
        if _leads_to_itself(aliases, whole):
            raise invalid("dns_domain", "clash", f"under {new_domain} the alias {whole} would lead back to itself")


def _aliases(rows: Sequence[Any], domain: str) -> dict[str, str]:
    return {full_name(row.name, domain): full_name(row.values[0], domain) for row in rows if row.type == CNAME}


def _leads_to_itself(aliases: dict[str, str], start: str) -> bool:
    seen = {start}
    at = aliases[start]
    while at in aliases:
        if at in seen:
            return True
        seen.add(at)
        at = aliases[at]
    return False
