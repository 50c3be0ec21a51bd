"""Fields of networks: checked for their form here, for their sense by the services."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, validate

MAX_ADDRESSES = 64
"""Of one kind, on one NIC."""


def _described(text: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"description": text}, **kwargs}


def reference_field(**kwargs: Any) -> fields.String:
    """Return a field for a resource's name or id."""
    return fields.String(validate=validate.Length(1, 128), **_described("name or id", kwargs))


def address_field(**kwargs: Any) -> fields.String:
    """Return a field for an IPv4 address."""
    return fields.String(validate=validate.Length(1, 64), **_described("an IPv4 address", kwargs))


def cidr_field(**kwargs: Any) -> fields.String:
    """Return a field for a block of IPv4 addresses."""
    return fields.String(validate=validate.Length(1, 64), **_described("a block of IPv4 (10.0.0.0/16)", kwargs))


def mac_field(**kwargs: Any) -> fields.String:
    """Return a field for a MAC address."""
    return fields.String(validate=validate.Length(1, 32), **_described("as 52:54:00:12:34:56", kwargs))


def addresses_field(most: int, **kwargs: Any) -> fields.List[Any]:
    """Return a field for up to ``most`` IPv4 addresses."""
    return fields.List(address_field(), validate=validate.Length(max=most), **kwargs)


class PairSchema(Schema):
    """Further sources that a NIC may use: addresses in ``cidr``, with ``mac`` or (null) its own."""

    cidr = cidr_field(required=True)
    mac = mac_field(allow_none=True, load_default=None)


def pairs_field(**kwargs: Any) -> fields.List[Any]:
    """Return a field for the allowed pairs of a NIC."""
    return fields.List(fields.Nested(PairSchema), validate=validate.Length(max=MAX_ADDRESSES), **kwargs)
