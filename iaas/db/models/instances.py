"""Instances."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Index, LargeBinary, String, text
from sqlalchemy.orm import Mapped, mapped_column

from iaas.db.models.base import ID, NAME, Base, Named


class InstanceRow(Named, Base):
    """``disk_generation`` grows with each rebuild; ``generation`` with each visible change.

    A deleted instance is retained (stopped on its host, ``purge_at`` says until when, ``retained`` how it was)
    and then a ghost: nothing but this row, since ``purged_at``.
    """

    __tablename__ = "instances"
    __table_args__ = (
        # One for the living and one for the rest: a page of either is read off without passing by the others.
        Index(
            "ix_instances_living",
            "project_id",
            "created_at",
            "id",
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
        Index(
            "ix_instances_deleted",
            "project_id",
            "created_at",
            "id",
            sqlite_where=text("deleted_at IS NOT NULL"),
            postgresql_where=text("deleted_at IS NOT NULL"),
        ),
        Index("ix_instances_project_id_status", "project_id", "status", "created_at", "id"),
        Index("ix_instances_project_id_name", "project_id", "name", "created_at", "id"),
        # Partial: the living, who are many, have neither.
        Index(
            "ix_instances_purge_at",
            "purge_at",
            sqlite_where=text("purge_at IS NOT NULL"),
            postgresql_where=text("purge_at IS NOT NULL"),
        ),
        Index(
            "ix_instances_purged_at",
            "purged_at",
            "id",
            sqlite_where=text("purged_at IS NOT NULL"),
            postgresql_where=text("purged_at IS NOT NULL"),
        ),
    )

    project_id: Mapped[str] = mapped_column(ID)
    zone: Mapped[str] = mapped_column(NAME)
    kind: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16))
    transition: Mapped[str | None] = mapped_column(String(16))
    failure_code: Mapped[str | None] = mapped_column(String(64))
    failure_message: Mapped[str | None] = mapped_column(String(1024))
    generation: Mapped[int]
    hostname: Mapped[str] = mapped_column(String(63))
    flavor: Mapped[str | None] = mapped_column(NAME)
    vcpus: Mapped[int]
    memory_mib: Mapped[int]
    root_disk_gib: Mapped[int]
    image_id: Mapped[str] = mapped_column(ID)
    image: Mapped[str] = mapped_column(NAME)
    key_pairs: Mapped[list[str]]
    user_data: Mapped[bytes | None] = mapped_column(LargeBinary)
    authorized_keys: Mapped[list[str]]
    nesting: Mapped[bool]
    privileged: Mapped[bool]
    host_id: Mapped[str | None] = mapped_column(ID, index=True)
    disk_generation: Mapped[int]
    guest_ready_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    placement: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    retained: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    purge_at: Mapped[datetime | None]
    purged_at: Mapped[datetime | None]
    metadata_labels: Mapped[bool]
