"""Fields and schemas that several collections share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from marshmallow import Schema, fields, post_load, validate

from iaas.db.repositories.query import Listing
from iaas.kernel.clock import rfc3339
from iaas.kernel.labels import parse_selector
from iaas.resources.common import Page

NAME = validate.Regexp(
    r"^(?=.{1,128}\Z)[^\s\x00-\x1f\x7f/]([^\x00-\x1f\x7f/]*[^\s\x00-\x1f\x7f/])?\Z",
    error="Must be 1 to 128 characters without control characters or /, no space at either end.",
)


class Time(fields.Field[Any]):
    """An RFC 3339 time in UTC."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else rfc3339(value)


class StrictInteger(fields.Integer):
    """A JSON number that is whole; no text, no truth value, nothing that a database cannot hold."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(strict=True, **kwargs)

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, bool | str):
            raise self.make_error("invalid", input=value)
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:  # JSON schemas hold 4.0 to be 4
            value = int(value)
        return super()._deserialize(value, *args, **kwargs)


class StrictBoolean(fields.Boolean):
    """true or false, not "yes" nor 1."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class LabelsField(fields.Dict):
    """Labels as given in a create."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(keys=fields.String(), values=fields.String(), **kwargs)


class LabelsPatchField(fields.Dict):
    """Labels in a merge patch: null removes one."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(keys=fields.String(), values=fields.String(allow_none=True), **kwargs)


class NoBodySchema(Schema):
    """Takes no field at all."""


class RefSchema(Schema):
    type = fields.String()
    id = fields.String()


REF = {"$ref": "#/components/schemas/Ref"}
"""For the description of a field that dumps a RefSchema by a function of its own."""


class FailureSchema(Schema):
    code = fields.String()
    message = fields.String()


class FieldErrorSchema(Schema):
    field = fields.String()
    code = fields.String()
    message = fields.String()


class ProblemSchema(Schema):
    """RFC 9457."""

    type = fields.String()
    title = fields.String()
    status = fields.Integer()
    detail = fields.String()
    code = fields.String()
    errors = fields.List(fields.Nested(FieldErrorSchema))
    resource = fields.Nested(RefSchema, allow_none=True)
    blockers = fields.List(fields.Nested(RefSchema))
    retryable = fields.Boolean()
    request_id = fields.String()


class PageQuery(Schema):
    """The parameters of every list."""

    FILTERS: ClassVar[Mapping[str, str]] = {}
    """Further parameters that a column must be equal to: name to column."""

    limit = fields.Integer(load_default=100, validate=validate.Range(1, 1000))
    cursor = fields.String(validate=validate.Length(1, 1024))
    sort = fields.String(load_default="-created_at", validate=validate.Length(1, 64))

    @post_load
    def make_listing(self, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        sort = data.pop("sort")
        page = Page(
            limit=data.pop("limit"),
            cursor=data.pop("cursor", None),
            sort=sort.removeprefix("-"),
            descending=sort.startswith("-"),
        )
        selector = data.pop("label_selector", "")
        filters: dict[str, str] = {
            name: data.pop(name) for name in ("name", "status", "kind", "zone", "action") if name in data
        } | {column: data.pop(name) for name, column in self.FILTERS.items() if name in data}
        return {"listing": Listing(page=page, filters=filters, labels=parse_selector(selector)), **data}


class NamedPageQuery(PageQuery):
    name = fields.String(validate=validate.Length(1, 128))


class LabelledPageQuery(NamedPageQuery):
    label_selector = fields.String(load_default="", validate=validate.Length(max=4096))


def listing_schema(item: type[Schema]) -> type[Schema]:
    """Return the schema of a page of ``item``."""
    name = item.__name__.removesuffix("Schema") + "List"
    members = {"items": fields.List(fields.Nested(item)), "next_cursor": fields.String(allow_none=True)}
    return Schema.from_dict(members, name=name)  # type: ignore[arg-type]  # the library's own signature is narrower


def page(items: list[Any], next_cursor: str | None) -> dict[str, Any]:
    return {"items": items, "next_cursor": next_cursor}
