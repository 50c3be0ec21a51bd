"""Listing: filters, label selectors, key-set paging."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    Connection,
    FromClause,
    Integer,
    and_,
    bindparam,
    case,
    exists,
    func,
    select,
    true,
    tuple_,
)
from sqlalchemy.sql.elements import ColumnElement

from iaas.db.models import LabelRow
from iaas.db.statements import Prepared
from iaas.kernel.errors import FieldError, InvalidInput
from iaas.kernel.labels import LabelTerm
from iaas.resources.common import Page


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What to list: equality ``filters`` by column name, label terms, and the page."""

    page: Page = field(default_factory=Page)
    filters: Mapping[str, str] | None = None
    labels: Sequence[LabelTerm] = ()


FEW = 2000

Condition = ColumnElement[bool]


@dataclass(frozen=True, slots=True)
class _TermShape:
    """What of a label term is in the text of the query: all but its key and values."""

    values: int
    negated: bool
    leads: bool  # few resources fit: look them up instead of walking all


def list_rows(
    connection: Connection,
    table: FromClause,
    listing: Listing,
    *,
    columns: Sequence[ColumnElement[Any]] | None = None,
    equal: Mapping[str, Any] | None = None,
    where: Sequence[Condition] = (),
    sortable: Sequence[str] = ("created_at", "updated_at", "name"),
) -> tuple[list[Any], str | None]:
    """Return one page of rows (named tuples) and the cursor of the next page (None at the end).

    Args:
        columns: those that are read; all when None.
        equal: column by column, what it must be.
        where: further conditions, without values of a request: the query of each shape is compiled once and kept,
            so the conditions must be the same objects at every call.

    Raises:
        InvalidInput: ``sort`` or ``cursor`` is not one of ours.
    """
    page = listing.page
    if page.sort not in sortable:
        raise _invalid("sort", f"must be one of {', '.join(sortable)}, with a leading - for descending")
    equal = {**(listing.filters or {}), **(equal or {})}
    values: dict[str, Any] = {f"is_{name}": value for name, value in equal.items()}
    values["most"] = page.limit + 1
    terms: list[_TermShape] = []
    for index, term in enumerate(listing.labels):
        terms.append(_TermShape(len(term.values), term.negated, _is_on_few(connection, term)))
        values |= _label_values(term, index)
    if page.cursor is not None:
        values["after_value"], values["after_id"] = _decode_cursor(page, table.c[page.sort])
    query = _page_query(
        table,
        None if columns is None else tuple(columns),
        tuple(equal),
        tuple(where),
        tuple(terms),
        sort=page.sort,
        descending=page.descending,
        is_first=page.cursor is None,
    )
    rows = query.rows(connection, values)
    if len(rows) <= page.limit:
        return rows, None
    last = rows[page.limit - 1]
    return rows[: page.limit], cursor_at(page, getattr(last, page.sort), last.id)


@lru_cache(maxsize=512)  # shapes are as many as the requests make up, so the oldest must go
def _page_query(
    table: FromClause,
    columns: tuple[ColumnElement[Any], ...] | None,
    equal: tuple[str, ...],
    where: tuple[Condition, ...],
    terms: tuple[_TermShape, ...],
    *,
    sort: str,
    descending: bool,
    is_first: bool,
) -> Prepared:
    column, key = table.c[sort], table.c.id
    conditions = [*where, *(table.c[name] == bindparam(f"is_{name}", type_=table.c[name].type) for name in equal)]
    leading: list[Condition] = []
    for index, term in enumerate(terms):
        if term.leads:
            labels = LabelRow.__table__
            leading.append(key.in_(select(labels.c.resource_id).where(*_label_matches(index, term.values))))
        else:
            conditions.append(_label_fits(key, index, term))
    if leading:
        # SQLite guesses that a project has ten rows and would walk all of them; so it must not see that condition.
        conditions = [*leading, case((and_(true(), *conditions), 1), else_=0) == 1]
    if not is_first:
        # Compared as a pair, the index leads straight to the place; of "a < x OR (a = x AND b < y)" SQLite makes
        # a walk through all that comes before it.
        place = tuple_(column, key)
        after = tuple_(bindparam("after_value", type_=column.type), bindparam("after_id", type_=key.type))
        conditions.append(place < after if descending else place > after)
    order = (column.desc(), key.desc()) if descending else (column.asc(), key.asc())
    query = select(table) if columns is None else select(*columns)
    return Prepared(query.where(*conditions).order_by(*order).limit(bindparam("most", type_=Integer())))


def _is_on_few(connection: Connection, term: LabelTerm) -> bool:
    """Return whether the term itself shall lead to the resources.

    A page is found by walking the resources in order and asking each for the label, which is quick when many have
    it. When few do, nearly all would be walked: then the label leads to them. So neither grows with the table.
    """
    if term.negated:
        return False
    values = {**_label_values(term, 0), "most": FEW + 1}
    return bool(_label_count(len(term.values)).first(connection, values).found <= FEW)


@lru_cache(maxsize=128)
def _label_count(values: int) -> Prepared:
    labels = LabelRow.__table__
    some = select(labels.c.resource_id).where(*_label_matches(0, values)).limit(bindparam("most", type_=Integer()))
    return Prepared(select(func.count().label("found")).select_from(some.subquery()))


def _label_values(term: LabelTerm, index: int) -> dict[str, str]:
    return {f"key_{index}": term.key, **{f"value_{index}_{nth}": value for nth, value in enumerate(term.values)}}


def _label_matches(index: int, values: int) -> list[Condition]:
    labels = LabelRow.__table__
    found = [labels.c.key == bindparam(f"key_{index}", type_=labels.c.key.type)]
    if values:
        wanted = [bindparam(f"value_{index}_{nth}", type_=labels.c.value.type) for nth in range(values)]
        found.append(labels.c.value == wanted[0] if values == 1 else labels.c.value.in_(wanted))
    return found


def _label_fits(key: ColumnElement[Any], index: int, term: _TermShape) -> Condition:
    labels = LabelRow.__table__
    found = exists().where(labels.c.resource_id == key, *_label_matches(index, term.values))
    return ~found if term.negated else found


def label_condition(key: ColumnElement[Any], term: LabelTerm) -> ColumnElement[bool]:
    """Return the condition that the resource with id ``key`` fits the term."""
    labels = LabelRow.__table__
    found = exists().where(labels.c.resource_id == key, labels.c.key == term.key)
    if term.values:
        found = found.where(labels.c.value.in_(term.values))
    return ~found if term.negated else found


def cursor_at(page: Page, value: Any, last_id: object) -> str:
    """Return the cursor of the page after the row with that value to sort by, and that id."""
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
