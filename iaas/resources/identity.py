"""Who may use the cloud: projects and their credentials."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    id: str
    name: str
    labels: dict[str, str]
    description: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class APIToken:
    """A bearer token; only its hash is kept."""

    id: str
    project_id: str
    name: str
    labels: dict[str, str]
    role: str
    expires_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessKey:
    """An id and a secret for signed dialects. The secret is kept encrypted: signatures need it back."""

    id: str
    project_id: str
    name: str
    labels: dict[str, str]
    role: str
    created_at: datetime
