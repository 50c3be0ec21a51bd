"""Answers that were given to requests with an ``Idempotency-Key``."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from iaas.db.models.base import ID, Base


class IdempotencyRow(Base):
    """Written in the commit that accepts; ``status`` is null while a call that writes nothing itself still runs."""

    __tablename__ = "idempotency_records"

    project_id: Mapped[str] = mapped_column(ID, primary_key=True)
    key: Mapped[str] = mapped_column(String(128), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    role: Mapped[str] = mapped_column(String(16))
    owner: Mapped[str] = mapped_column(String(20))  # the run of the server that wrote it
    status: Mapped[int | None]
    location: Mapped[str | None] = mapped_column(String(255))
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    is_encrypted: Mapped[bool]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
