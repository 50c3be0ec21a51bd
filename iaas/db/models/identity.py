"""Projects and credentials."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from iaas.db.models.base import ID, NAME, Base, Identified, Named


class ProjectRow(Named, Base):
    __tablename__ = "projects"

    description: Mapped[str] = mapped_column(String(1024))


class APITokenRow(Identified, Base):
    __tablename__ = "api_tokens"

    project_id: Mapped[str] = mapped_column(ID, index=True)
    name: Mapped[str] = mapped_column(NAME)
    labels: Mapped[dict[str, str]]
    role: Mapped[str] = mapped_column(String(16))
    token_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime]


class AccessKeyRow(Base):
    __tablename__ = "access_keys"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(ID, index=True)
    name: Mapped[str] = mapped_column(NAME)
    labels: Mapped[dict[str, str]]
    role: Mapped[str] = mapped_column(String(16))
    secret_encrypted: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime]
