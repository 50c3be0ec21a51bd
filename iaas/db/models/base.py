"""Base class, column types and the columns that most tables share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, MetaData, String, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UTCDateTime(TypeDecorator[datetime]):
    """Aware UTC in Python; SQLite keeps no zone, so it is stored naive there."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        return dialect.type_descriptor(DateTime(timezone=dialect.name == "postgresql"))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone")
        value = value.astimezone(UTC)
        return value if dialect.name == "postgresql" else value.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None] | None:
        # Several times a row and a hundred rows a page: there one call in C stands for four in Python.
        return _read_stored if dialect.name == "sqlite" else super().result_processor(dialect, coltype)


def _read_stored(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text + "+00:00")


class Base(DeclarativeBase):
    """Constraint names are fixed, so that migrations can name them on every database."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - the declarative API reads this class attribute
        datetime: UTCDateTime,
        dict[str, Any]: JSON,
        dict[str, str]: JSON,
        list[str]: JSON,
    }


ID = String(20)
NAME = String(128)


class Identified:
    """An id of ours as the primary key."""

    id: Mapped[str] = mapped_column(ID, primary_key=True)


class Stamped:
    """When the row was made and last changed, on the cloud clock."""

    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Named(Identified, Stamped):
    """The columns of every tenant-visible resource."""

    name: Mapped[str] = mapped_column(NAME)
    labels: Mapped[dict[str, str]]


class Revised:
    """The columns of a resource whose changes may wait to be applied.

    ``revision`` grows with each change of the configuration; ``applied`` is the configuration as it was at
    ``applied_revision``, in one document. See ``iaas.services.revisions``.
    """

    revision: Mapped[int]
    applied_revision: Mapped[int]
    applied: Mapped[dict[str, Any]]
