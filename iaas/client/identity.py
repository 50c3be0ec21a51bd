"""Who may use the cloud: projects, API tokens, access keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

from iaas.client.collection import Collection
from iaas.client.resource import TIME, UNSET, Resource, Unset
from iaas.kernel.clock import rfc3339

if TYPE_CHECKING:
    from iaas.client.client import Client


@dataclass(frozen=True, slots=True, kw_only=True)
class Project(Resource):
    """It owns resources and has the quotas. All verbs need the admin role."""

    path: ClassVar[str] = "/v1/projects"
    key: ClassVar[str] = "project"

    description: str = ""

    def update(
        self,
        *,
        name: str | Unset = UNSET,
        description: str | Unset = UNSET,
        labels: Mapping[str, str | None] | Unset = UNSET,
    ) -> Project:
        """Return it changed; ``labels`` are merged in (a None value removes that label)."""
        return self._patch({"name": name, "description": description, "labels": labels})

    def delete(self) -> None:
        """Remove it.

        Raises:
            InUse: it owns resources: ``blockers``.
        """
        self._remove()


@dataclass(frozen=True, slots=True, kw_only=True)
class APIToken(Resource):
    """A bearer token. ``token`` is there once: in the answer to its creation."""

    path: ClassVar[str] = "/v1/api_tokens"
    key: ClassVar[str] = "api_token"

    project_id: str | None = None
    role: str = ""
    expires_at: datetime | None = field(default=None, metadata=TIME)
    token: str | None = field(default=None, repr=False)

    def delete(self) -> None:
        """Revoke it: it is refused from now on."""
        self._remove()


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessKey(Resource):
    """An id and a secret for signed dialects. ``secret_access_key`` is there once: in the answer to its creation."""

    path: ClassVar[str] = "/v1/access_keys"
    key: ClassVar[str] = "access_key"

    project_id: str | None = None
    role: str = ""
    secret_access_key: str | None = field(default=None, repr=False)

    def delete(self) -> None:
        """Revoke it: its signatures are refused from now on."""
        self._remove()


class Projects(Collection[Project]):
    """``client.projects``."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, Project)

    def create(self, *, name: str, description: str | None = None, labels: Mapping[str, str] | None = None) -> Project:
        """Return a new, empty project."""
        return self._create(name=name, description=description, labels=labels)


class APITokens(Collection[APIToken]):
    """``client.api_tokens``."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, APIToken)

    def create(
        self,
        *,
        name: str,
        role: str | None = None,
        project: str | None = None,
        expires_at: datetime | None = None,
    ) -> APIToken:
        """Return a new token, its ``token`` in it. One's own project (name or id) and role when absent."""
        return self._create(
            name=name, role=role, project=project, expires_at=None if expires_at is None else rfc3339(expires_at)
        )


class AccessKeys(Collection[AccessKey]):
    """``client.access_keys``."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, AccessKey)

    def create(self, *, name: str, role: str | None = None, project: str | None = None) -> AccessKey:
        """Return a new access key, its ``secret_access_key`` in it. Defaults as of ``APITokens.create``."""
        return self._create(name=name, role=role, project=project)
