"""How much a project may have, and has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from iaas.client.errors import NotFound, UnexpectedAnswer
from iaas.client.resource import decode, mapping_of

if TYPE_CHECKING:
    from iaas.client.client import Client

_PATH = "/v1/quotas"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """``used`` of ``limit``; the unit is in the name of the ``resource`` (``memory_mib``)."""

    resource: str
    limit: int = 0
    used: int = 0


class Quotas:
    """``client.quotas``."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self, *, project: str | None = None) -> tuple[Quota, ...]:
        """Return the quotas of one's own project, or of that with this id or name (of others than one's own: admin).

        Raises:
            NotFound: there is no such project.
        """
        return _quotas(self._client.request("GET", _PATH if project is None else _path_of(project)))

    def update(self, project: str, limits: Mapping[str, int | None]) -> tuple[Quota, ...]:
        """Return the quotas of a project (id or name) with new limits; None goes back to the default (admin).

        Raises:
            InvalidInput: a name that is no quota, or a number that is no limit.
        """
        return _quotas(self._client.request("PATCH", _path_of(project), body=dict(limits)))


def _path_of(project: str) -> str:
    if project in ("", ".", ".."):  # no path segment can say that
        raise NotFound(f"there is no project {project!r}", status=404, code="not_found")
    return f"/v1/projects/{quote(project, safe='', errors='surrogateescape')}/quotas"


def _quotas(answer: object) -> tuple[Quota, ...]:
    items = mapping_of(answer, "quotas").get("items")
    if not isinstance(items, list):
        raise UnexpectedAnswer("the server sent no list of quotas")
    return tuple(decode(Quota, each) for each in items)
