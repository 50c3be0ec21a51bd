"""Listing: filters, label selectors, key-set paging."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, FromClause, Integer, Row, Select, and_, case, exists, or_, select, true
from sqlalchemy.sql.elements import ColumnElement

from iaas.db.models import LabelRow
from iaas.kernel.errors import FieldError, InvalidInput
from iaas.kernel.labels import LabelTerm
from iaas.resources.common import Page


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What to list: equality ``filters`` by column name, label terms, and the page."""

    page: Page = field(default_factory=Page)
    filters: Mapping[str, str] | None = None
    labels: Sequence[LabelTerm] = ()


FEW = 500


def list_rows(
    connection: Connection,
    table: FromClause,
    listing: Listing,
    *,
    where: Sequence[ColumnElement[bool]] = (),
    sortable: Sequence[str] = ("created_at", "updated_at", "name"),
) -> tuple[list[Row[Any]], str | None]:
    """Return one page of rows and the cursor of the next page (None at the end).

    Raises:
        InvalidInput: ``sort`` or ``cursor`` is not one of ours.
    """
    page = listing.page
    if page.sort not in sortable:
        raise _invalid("sort", f"must be one of {', '.join(sortable)}, with a leading - for descending")
    column, key = table.c[page.sort], table.c.id
    query: Select[Any] = select(table)
    conditions = [*where, *(table.c[name] == value for name, value in (listing.filters or {}).items())]
    for term in listing.labels:
        few = _few_with(connection, term)
        if few is None:
            conditions.append(label_condition(key, term))
            continue
        query = query.where(key.in_(few))
        # SQLite guesses that a project has ten rows and would walk all of them; so it must not see that condition.
        conditions = [case((and_(true(), *conditions), 1), else_=0) == 1]
    query = query.where(*conditions)
    if page.cursor is not None:
        value, last_id = _decode_cursor(page, column)
        after = (column < value, key < last_id) if page.descending else (column > value, key > last_id)
        query = query.where(or_(after[0], and_(column == value, after[1])))
    order = (column.desc(), key.desc()) if page.descending else (column.asc(), key.asc())
    rows = list(connection.execute(query.order_by(*order).limit(page.limit + 1)))
    if len(rows) <= page.limit:
        return rows, None
    last = rows[page.limit - 1]
    return rows[: page.limit], _encode_cursor(page, getattr(last, page.sort), last.id)


def _few_with(connection: Connection, term: LabelTerm) -> list[str] | None:
    """Return the ids of all resources that fit the term when they are few; None when they are many.

    A page is found by walking the resources in order and asking each for the label, which is quick when many have
    it. When few do, nearly all would be walked: then the label leads to them. So neither grows with the table.
    """
    if term.negated:
        return None
    labels = LabelRow.__table__
    query = select(labels.c.resource_id).where(labels.c.key == term.key)
    if term.values:
        query = query.where(labels.c.value.in_(term.values))
    found = list(connection.execute(query.limit(FEW + 1)).scalars())
    return found if len(found) <= FEW else None


def label_condition(key: ColumnElement[Any], term: LabelTerm) -> ColumnElement[bool]:
    """Return the condition that the resource with id ``key`` fits the term."""
    labels = LabelRow.__table__
    found = exists().where(labels.c.resource_id == key, labels.c.key == term.key)
    if term.values:
        found = found.where(labels.c.value.in_(term.values))
    return ~found if term.negated else found


def _encode_cursor(page: Page, value: Any, last_id: object) -> str:
    shown = value.isoformat() if isinstance(value, datetime) else value
    text = json.dumps([("-" if page.descending else "") + page.sort, shown, last_id])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode_cursor(page: Page, column: ColumnElement[Any]) -> tuple[Any, str]:
    assert page.cursor is not None  # noqa: S101 - the caller has looked; for the type checker
    try:
        text = base64.urlsafe_b64decode(page.cursor + "=" * (-len(page.cursor) % 4)).decode()
        sort, value, last_id = json.loads(text)
        if sort != ("-" if page.descending else "") + page.sort:
            raise _invalid("cursor", "belongs to another sort order")
        if page.sort.endswith("_at"):
            value = datetime.fromisoformat(value)
            if value.tzinfo is None:
                raise ValueError("no zone")
            value = value.astimezone(UTC)
        elif isinstance(column.type, Integer):
            if type(value) is not int or abs(value) >= 2**63:
                raise TypeError("no number that a database holds")
        else:
            _check_text(value)
        _check_text(last_id)
    except (ValueError, TypeError, OverflowError, binascii.Error, RecursionError) as error:
        raise _invalid("cursor", "is not a cursor that a list of this collection gave") from error
    return value, last_id


def _check_text(value: Any) -> None:
    """Return when a database can hold the text: no NUL, no half of a surrogate pair."""
    if not isinstance(value, str) or "\x00" in value:
        raise TypeError("no text")
    value.encode()


def _invalid(field: str, message: str) -> InvalidInput:
    return InvalidInput(f"{field}: {message}", errors=[FieldError(field, "invalid", message)])
