"""How much a project may have."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """``used`` of ``limit``; the unit is in the name of the ``resource`` (``memory_mib``)."""

    resource: str
    limit: int
    used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaDrift:
    """A counter that is not what the rows hold: a fault of ours."""

    project_id: str
    resource: str
    used: int
    held: int
