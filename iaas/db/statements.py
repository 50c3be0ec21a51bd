"""Prepared statements for the hot paths: compiled once, then handed to the driver as text and values.

Nine tenths of the time of a small statement go into building it anew, finding it in SQLAlchemy's cache and
wrapping its result. Here the models stay the one source of columns and types, and SQLAlchemy compiles each
shape of a statement once per dialect; what runs afterwards is a look-up, the types' own converters and one
call of the driver. See ADR 0006.

Everything else about a connection is SQLAlchemy's as before: transactions, pools and exceptions
(``sqlalchemy.exc.IntegrityError`` and the others come out of here too).
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ClauseElement,
    Connection,
    Dialect,
    Float,
    FromClause,
    Select,
    Table,
    and_,
    bindparam,
    delete,
    false,
    insert,
    update,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import BindParameter, ColumnElement
from sqlalchemy.types import TypeEngine

_Converter = Callable[[Any], Any]

ON_CONFLICT_DO_NOTHING = " ON CONFLICT DO NOTHING"  # the same words on SQLite and PostgreSQL

_IS_NULL = -1
_NOTHING = object()


class _Compiled:
    """One statement for one dialect: its text, how values go in, how rows come out."""

    __slots__ = ("_arguments", "_defaults", "_error", "_out", "_row", "is_positional", "sql")

    def __init__(self, statement: ClauseElement, dialect: Dialect, suffix: str) -> None:
        compiled = statement.compile(dialect=dialect)
        assert isinstance(compiled, SQLCompiler)  # noqa: S101 - statements are; for the type checker
        if compiled.post_compile_params or compiled.literal_execute_params:
            raise ValueError("a prepared statement has a fixed number of parameters")
        if compiled.insert_prefetch or compiled.update_prefetch:
            raise ValueError("give every column its value: defaults that Python computes are not run here")
        self.sql = compiled.string + suffix
        self.is_positional = bool(compiled.positional)
        types = {name: parameter.type for parameter, name in compiled.bind_names.items()}
        names: Sequence[str] = compiled.positiontup or () if compiled.positional else tuple(types)
        self._arguments = tuple((name, _bind_converter(types[name], dialect)) for name in names)
        self._defaults = {
            name: parameter.effective_value
            for parameter, name in compiled.bind_names.items()
            if not _is_required(parameter)
        }
        columns = list(statement.selected_columns) if isinstance(statement, Select) else []
        converters = [_result_converter(column.type, dialect) for column in columns]
        self._out = tuple((index, converter) for index, converter in enumerate(converters) if converter)
        self._row: Any = namedtuple("Row", [str(column.key) for column in columns]) if columns else None
        self._error: type[Exception] = dialect.loaded_dbapi.Error

    def arguments(self, values: Mapping[str, Any]) -> Any:
        """Return ``values`` as the driver wants them."""
        if self._defaults:
            values = {**self._defaults, **values}
        if self.is_positional:
            return [values[name] if convert is None else convert(values[name]) for name, convert in self._arguments]
        return {name: values[name] if convert is None else convert(values[name]) for name, convert in self._arguments}

    def arguments_of(self, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Return many rows as the driver wants them. What follows itself in a column is converted once."""
        if self._defaults:
            rows = [{**self._defaults, **values} for values in rows]
        columns: list[list[Any]] = []
        for name, convert in self._arguments:
            column = [values[name] for values in rows]
            if convert is not None:
                before: Any = _NOTHING
                converted: Any = None
                for index, value in enumerate(column):
                    if value is not before:
                        before, converted = value, convert(value)
                    column[index] = converted
            columns.append(column)
        if self.is_positional:
            return list(zip(*columns, strict=True))
        names = [name for name, _ in self._arguments]
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]

    def row(self, raw: Sequence[Any]) -> Any:
        """Return one row of the driver's as a named tuple of Python values."""
        if not self._out:
            return self._row._make(raw)
        cells = list(raw)
        for index, convert in self._out:
            cells[index] = convert(cells[index])
        return self._row._make(cells)

    def execute(self, connection: Connection, arguments: Any) -> Any:
        """Run and return the driver's cursor."""
        if not connection.in_transaction():
            connection.begin()
        driver: Any = connection.connection.driver_connection
        try:
            return driver.execute(self.sql, arguments)
        except self._error as error:
            raise _translated(connection, self.sql, arguments, error, self._error) from error

    def execute_many(self, connection: Connection, rows: Sequence[Any]) -> int:
        """Run once per member of ``rows`` and return how many rows were touched in all."""
        if not connection.in_transaction():
            connection.begin()
        driver: Any = connection.connection.driver_connection
        cursor = driver.cursor()
        try:
            cursor.executemany(self.sql, rows)
            return int(cursor.rowcount)
        except self._error as error:
            raise _translated(connection, self.sql, None, error, self._error) from error
        finally:
            cursor.close()


class Prepared:
    """One statement with named parameters (``bindparam``), compiled at its first use on each dialect."""

    __slots__ = ("_compiled", "_statement", "_suffix")

    def __init__(self, statement: ClauseElement, *, suffix: str = "") -> None:
        self._statement = statement
        self._suffix = suffix
        self._compiled: dict[str, _Compiled] = {}

    def on(self, connection: Connection) -> _Compiled:
        """Return the form for the connection's dialect."""
        dialect = connection.dialect
        found = self._compiled.get(dialect.driver)
        if found is None:  # two threads may both compile it; either result serves
            found = self._compiled[dialect.driver] = _Compiled(self._statement, dialect, self._suffix)
        return found

    def run(self, connection: Connection, values: Mapping[str, Any]) -> int:
        """Execute a change and return how many rows it touched.

        Raises:
            sqlalchemy.exc.DBAPIError: as SQLAlchemy would raise it (IntegrityError and so on).
        """
        compiled = self.on(connection)
        return int(compiled.execute(connection, compiled.arguments(values)).rowcount)

    def run_many(self, connection: Connection, rows: Iterable[Mapping[str, Any]]) -> int:
        """Execute a change once per member of ``rows``, in one call of the driver."""
        compiled = self.on(connection)
        return compiled.execute_many(connection, compiled.arguments_of(list(rows)))

    def rows(self, connection: Connection, values: Mapping[str, Any]) -> list[Any]:
        """Return all rows of a select, as named tuples."""
        compiled = self.on(connection)
        cursor = compiled.execute(connection, compiled.arguments(values))
        make = compiled.row
        return [make(raw) for raw in cursor.fetchall()]

    def first(self, connection: Connection, values: Mapping[str, Any]) -> Any:
        """Return the first row of a select as a named tuple; None when there is none."""
        compiled = self.on(connection)
        cursor = compiled.execute(connection, compiled.arguments(values))
        raw = cursor.fetchone()
        cursor.close()
        return None if raw is None else compiled.row(raw)


def execute_text(connection: Connection, sql: str) -> None:
    """Run a statement without parameters and without beginning a transaction (``BEGIN``, ``SAVEPOINT`` ...)."""
    driver: Any = connection.connection.driver_connection
    base: type[Exception] = connection.dialect.loaded_dbapi.Error
    try:
        driver.execute(sql)
    except base as error:
        raise _translated(connection, sql, None, error, base) from error


# The shapes of plain changes, by what identifies them. Their number is that of the places in the code.
_shapes: dict[tuple[Any, ...], Prepared] = {}


def insert_row(connection: Connection, table: FromClause, values: Mapping[str, Any]) -> None:
    """Insert one row; columns that ``values`` leaves out take what the database gives them."""
    _insert(table, tuple(values)).run(connection, values)


def insert_rows(connection: Connection, table: FromClause, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert many rows that all name the same columns."""
    if rows:
        _insert(table, tuple(rows[0])).run_many(connection, rows)


def insert_if_free(connection: Connection, table: FromClause, values: Mapping[str, Any]) -> bool:
    """Insert one row unless a unique constraint stands against it; return whether it went in."""
    return _insert(table, tuple(values), suffix=ON_CONFLICT_DO_NOTHING).run(connection, values) == 1


def insert_many_if_free(connection: Connection, table: FromClause, rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert rows that all name the same columns, without those that a unique constraint stands against.

    Returns how many went in.
    """
    if not rows:
        return 0
    return _insert(table, tuple(rows[0]), suffix=ON_CONFLICT_DO_NOTHING).run_many(connection, rows)


def update_rows(
    connection: Connection,
    table: FromClause,
    where: Mapping[str, Any],
    changes: Mapping[str, Any],
    *,
    add: Mapping[str, int] | None = None,
) -> int:
    """Update the rows that match and return how many did.

    Args:
        where: column by column: equal to the value; NULL for None; one of them for a set or list.
        changes: new values.
        add: amounts to add to numbers, computed by the database.
    """
    conditions, values = _flat(where)
    for name, value in changes.items():
        values[f"set_{name}"] = value
    for name, amount in (add or {}).items():
        values[f"add_{name}"] = amount
    shape = ("update", table, conditions, tuple(changes), tuple(add or ()))
    prepared = _shapes.get(shape)
    if prepared is None:
        new_values: dict[str, ColumnElement[Any]] = {
            name: bindparam(f"set_{name}", type_=table.c[name].type) for name in changes
        }
        for name in add or ():
            new_values[name] = table.c[name] + bindparam(f"add_{name}", type_=table.c[name].type)
        statement = update(_table(table)).where(_matching(table, conditions)).values(new_values)
        prepared = _shapes[shape] = Prepared(statement)
    return prepared.run(connection, values)


def delete_rows(connection: Connection, table: FromClause, where: Mapping[str, Any]) -> int:
    """Delete the rows that match (as in :func:`update_rows`) and return how many did."""
    conditions, values = _flat(where)
    shape = ("delete", table, conditions)
    prepared = _shapes.get(shape)
    if prepared is None:
        prepared = _shapes[shape] = Prepared(delete(_table(table)).where(_matching(table, conditions)))
    return prepared.run(connection, values)


def _insert(table: FromClause, names: tuple[str, ...], *, suffix: str = "") -> Prepared:
    shape = ("insert", table, names, suffix)
    prepared = _shapes.get(shape)
    if prepared is None:
        values = {name: bindparam(name, type_=table.c[name].type) for name in names}
        # inline(): nobody wants the new key back, which PostgreSQL would otherwise be asked for.
        prepared = _shapes[shape] = Prepared(insert(_table(table)).values(values).inline(), suffix=suffix)
    return prepared


def _flat(where: Mapping[str, Any]) -> tuple[tuple[tuple[str, int], ...], dict[str, Any]]:
    """Return the shape of conditions (column, number of values; -1 for NULL) and their values by parameter."""
    shape: list[tuple[str, int]] = []
    values: dict[str, Any] = {}
    for name, value in where.items():
        if value is None:
            shape.append((name, _IS_NULL))
        elif isinstance(value, frozenset | set | list | tuple):
            shape.append((name, len(value)))
            for index, member in enumerate(value):
                values[f"is_{name}_{index}"] = member
        else:
            shape.append((name, 1))
            values[f"is_{name}_0"] = value
    return tuple(shape), values


def _matching(table: FromClause, conditions: tuple[tuple[str, int], ...]) -> ColumnElement[bool]:
    if not conditions:
        raise ValueError("a change of all rows is never what one wants here")
    parts: list[ColumnElement[bool]] = []
    for name, count in conditions:
        column = table.c[name]
        values = [bindparam(f"is_{name}_{index}", type_=column.type) for index in range(count)]
        if count == _IS_NULL:
            parts.append(column.is_(None))
        elif count == 0:
            parts.append(false())
        elif count == 1:
            parts.append(column == values[0])
        else:
            parts.append(column.in_(values))
    return and_(*parts)


def _table(table: FromClause) -> Table:
    assert isinstance(table, Table)  # noqa: S101 - ``Model.__table__`` is typed as the wider FromClause
    return table


def _is_required(parameter: BindParameter[Any]) -> bool:
    return parameter.required


def _bind_converter(kind: TypeEngine[Any], dialect: Dialect) -> _Converter | None:
    return kind.dialect_impl(dialect).bind_processor(dialect)


def _result_converter(kind: TypeEngine[Any], dialect: Dialect) -> _Converter | None:
    if isinstance(kind, Float) and not kind.asdecimal:
        return None  # the drivers give floats; psycopg's dialect would want the type of a result that is not there yet
    converter: _Converter | None = kind.dialect_impl(dialect).result_processor(dialect, None)
    return converter


def _translated(
    connection: Connection, sql: str, arguments: Any, error: Exception, base: type[Exception]
) -> BaseException:
    """Return the driver's exception as SQLAlchemy's, and drop the connection when it is dead."""
    dialect = connection.dialect
    pooled = connection.connection
    is_dead = dialect.is_disconnect(error, pooled.dbapi_connection, None)  # type: ignore[arg-type]  # the protocol is narrower than its two implementations
    if is_dead:
        connection.invalidate(error)
    return DBAPIError.instance(
        sql,
        arguments,
        error,
        base,
        hide_parameters=True,  # they may hold what a tenant keeps secret, and errors go into logs
        connection_invalidated=is_dead,
        dialect=dialect,
    )
