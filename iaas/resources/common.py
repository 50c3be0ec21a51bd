"""Parts that several resources share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    """What a credential may do. ADMIN is the operator's: hosts, projects, flavors."""

    ADMIN = "admin"
    MEMBER = "member"
    READER = "reader"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: the project it acts in, its role there, and the request that it belongs to."""

    project_id: str
    role: Role
    credential_id: str
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """How to list. ``sort`` is a field name, ``descending`` its direction; ``cursor`` comes from the last page."""

    limit: int = 100
    cursor: str | None = None
    sort: str = "created_at"
    descending: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedConfiguration:
    """What the data plane has to do for a resource, and the revision that it was at."""

    revision: int
    configuration: dict[str, Any]
