"""Tables that serve all resources."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from iaas.db.models.base import ID, Base


class AllocationRow(Base):
    """A claim on something of which there is one: a name, an address, a MAC. Uniqueness is the primary key.

    Claims live here and not as unique columns, because a deleted resource's row stays for a while
    and its names and addresses are free at once.
    """

    __tablename__ = "allocations"

    scope: Mapped[str] = mapped_column(String(80), primary_key=True)  # "name:instance:proj-...", "address:net-..."
    value: Mapped[str] = mapped_column(String(160), primary_key=True)
    resource_id: Mapped[str] = mapped_column(ID, index=True)


class LabelRow(Base):
    """The labels again, one row each, so that selectors use an index."""

    __tablename__ = "labels"
    __table_args__ = (Index("ix_labels_key_value", "key", "value", "resource_id"),)

    resource_id: Mapped[str] = mapped_column(String(128), primary_key=True)  # a zone's id is its name
    key: Mapped[str] = mapped_column(String(320), primary_key=True)
    value: Mapped[str] = mapped_column(String(255))


class SettingRow(Base):
    """Facts about this cloud that outlive a restart (its deployment tag)."""

    __tablename__ = "settings"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(String(255))


class ReportRow(Base):
    """What one process tells the others at length (the doctor's last report), by what it is about."""

    __tablename__ = "reports"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    document: Mapped[dict[str, Any]]
    written_at: Mapped[datetime]
