"""Jobs with their journal, and events."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from iaas.db.models.base import ID, Base, Identified


class JobRow(Identified, Base):
    """The journal is in the row: ``position`` is the step that has begun, ``memo`` what earlier steps found out."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_status", "status"),
        Index("ix_jobs_project_id_created_at", "project_id", "created_at", "id"),
        Index("ix_jobs_resource_id", "resource_id"),
    )

    project_id: Mapped[str] = mapped_column(ID)
    action: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16))
    resource_type: Mapped[str] = mapped_column(String(32))
    resource_id: Mapped[str] = mapped_column(ID)
    input: Mapped[dict[str, Any]]
    memo: Mapped[dict[str, Any]]
    position: Mapped[int]
    steps: Mapped[int]
    step_name: Mapped[str] = mapped_column(String(64))
    step_began_at: Mapped[datetime | None]
    unwinding: Mapped[bool]
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_message: Mapped[str | None] = mapped_column(String(1024))
    request_id: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]


class EventRow(Base):
    """``id`` grows with each fact (events of one store are totally ordered by it)."""

    __tablename__ = "events"
    __table_args__ = (
        Index("ix_events_project_id_id", "project_id", "id"),
        Index("ix_events_resource_id_id", "resource_id", "id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer(), "sqlite"), primary_key=True)
    type: Mapped[str] = mapped_column(String(64))
    project_id: Mapped[str] = mapped_column(ID)
    resource_type: Mapped[str] = mapped_column(String(32))
    resource_id: Mapped[str] = mapped_column(ID)
    generation: Mapped[int | None]
    job_id: Mapped[str | None] = mapped_column(ID)
    request_id: Mapped[str | None] = mapped_column(String(64))
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
