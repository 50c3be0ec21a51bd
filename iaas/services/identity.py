"""Projects and credentials."""

from __future__ import annotations

from datetime import UTC, datetime

from iaas.db.models import AccessKeyRow, APITokenRow, ProjectRow
from iaas.db.repositories import idempotency, identity, quotas, shared
from iaas.db.repositories.query import Listing
from iaas.db.store import Store, Tx
from iaas.kernel import ids as id_prefixes
from iaas.kernel.clock import CloudClock
from iaas.kernel.errors import AlreadyExists, FieldError, InUse, InvalidInput, NotFound, ResourceRef, Unauthenticated
from iaas.kernel.ids import IdSource
from iaas.kernel.labels import check_labels
from iaas.resources.common import Principal, Role
from iaas.resources.identity import AccessKey, APIToken, Project
from iaas.services.access import require
from iaas.services.labelling import patched_labels
from iaas.services.quotas import open_project
from iaas.services.telling import tell
from iaas.services.vault import Vault, new_secret, new_token, token_hash


class IdentityService:
    def __init__(self, store: Store, ids: IdSource, clock: CloudClock, vault: Vault) -> None:
        self._store = store
        self._ids = ids
        self._clock = clock
        self._vault = vault

    # -- who asks -----------------------------------------------------------------------------------------

    def authenticate(self, token: str, *, request_id: str | None = None) -> Principal:
        """Return whose API token this is.

        Raises:
            Unauthenticated: unknown or expired; which of the two is not said.
        """
        with self._store.read() as connection:
            found = identity.token_by_hash(connection, token_hash(token))
        if found is None or (found.expires_at is not None and found.expires_at <= self._clock.now()):
            raise Unauthenticated("the API token is unknown or has expired")
        return Principal(found.project_id, Role(found.role), found.id, request_id)

    # -- projects -----------------------------------------------------------------------------------------

    def create_project(
        self, principal: Principal, *, name: str, description: str = "", labels: dict[str, str] | None = None
    ) -> Project:
        require(principal, Role.ADMIN)
        check_labels(labels or {})
        project_id = self._ids.new(id_prefixes.PROJECT)

        def work(tx: Tx) -> Project:
            tell(tx, principal, "project", "created", project_id)
            return add_project(tx, project_id, name=name, description=description, labels=labels or {})

        return self._store.write(work)

    def list_projects(self, principal: Principal, listing: Listing) -> tuple[list[Project], str | None]:
        require(principal, Role.ADMIN)
        with self._store.read() as connection:
            return identity.list_projects(connection, listing)

    def get_project(self, principal: Principal, id_or_name: str) -> Project:
        """Return a project; to others than admins only their own exists."""
        with self._store.read() as connection:
            found = identity.get_project(connection, id_or_name)
        if found is None or (principal.role is not Role.ADMIN and found.id != principal.project_id):
            raise _no_project(id_or_name)
        return found

    def update_project(
        self,
        principal: Principal,
        id_or_name: str,
        *,
        name: str | None = None,
        description: str | None = None,
        labels: dict[str, str | None] | None = None,
    ) -> Project:
        require(principal, Role.ADMIN)
        project = self.get_project(principal, id_or_name)

        def work(tx: Tx) -> None:
            self._hold(tx, project)
            if name is not None and name != project.name:
                shared.release(tx, scope="name:project", resource_id=project.id)
                _claim_name(tx, project.id, name)
            changes = _given(name=name, description=description)
            changed_labels = patched_labels(tx, ProjectRow.__table__, project.id, labels)
            identity.update_project(tx, project.id, **changes, **changed_labels)
            tell(tx, principal, "project", "updated", project.id)

        self._store.write(work)
        return self.get_project(principal, project.id)

    def delete_project(self, principal: Principal, id_or_name: str) -> None:
        """Delete an empty project with its credentials.

        Raises:
            InUse: it still has resources, or the request itself lives by it.
        """
        require(principal, Role.ADMIN)
        project = self.get_project(principal, id_or_name)
        if project.id == principal.project_id:
            raise InUse(
                "a project cannot be deleted with its own credential", resource=ResourceRef("project", project.id)
            )

        def work(tx: Tx) -> None:
            self._hold(tx, project)
            # Before the look: whoever takes of a quota holds its row, so we wait for those who are putting something
            # into the project, and then see it; those who come later find no quota and are refused.
            quotas.remove_project(tx, project.id)
            blockers = identity.project_contents(tx.connection, project.id)
            if blockers:
                raise InUse(
                    f"project {project.name} still has resources",
                    resource=ResourceRef("project", project.id),
                    blockers=blockers,
                )
            shared.release_all(tx, project.id)
            shared.set_labels(tx, project.id, {})
            idempotency.remove_project(tx, project.id)
            identity.delete_project(tx, project.id)
            tell(tx, principal, "project", "deleted", project.id)

        self._store.write(work)

    # -- API tokens ---------------------------------------------------------------------------------------

    def create_token(
        self,
        principal: Principal,
        *,
        name: str,
        role: Role | None = None,
        project: str | None = None,
        expires_at: datetime | None = None,
        labels: dict[str, str] | None = None,
    ) -> tuple[APIToken, str]:
        """Return a new token's record and, this once, the token. Nobody hands on more than he has."""
        role = role or principal.role
        require(principal, Role.MEMBER)
        require(principal, role)
        project_id = self._target_project(principal, project)
        if expires_at is not None and expires_at <= self._clock.now():
            raise _invalid_expiry("lies in the past")
        try:
            expires_at = expires_at and expires_at.astimezone(UTC)
        except OverflowError as error:  # the last hours of the year 9999, west of Greenwich
            raise _invalid_expiry("lies beyond the last year") from error
        check_labels(labels or {})
        token, token_id = new_token(), self._ids.new(id_prefixes.API_TOKEN)

        def work(tx: Tx) -> tuple[APIToken, str]:
            self._need_project(tx, principal, project_id)
            add_token(tx, token_id, project_id, name=name, role=role, token=token, expires_at=expires_at, labels=labels)
            tell(tx, principal, "api_token", "created", token_id, project_id=project_id)
            made = identity.get_token(tx.connection, token_id, project_id=project_id)
            assert made is not None  # noqa: S101 - written above, in this transaction
            return made, token

        return self._store.write(work)

    def list_tokens(self, principal: Principal, listing: Listing) -> tuple[list[APIToken], str | None]:
        with self._store.read() as connection:
            return identity.list_tokens(connection, listing, project_id=principal.project_id)

    def get_token(self, principal: Principal, token_id: str, *, project_id: str | None = None) -> APIToken:
        with self._store.read() as connection:
            found = identity.get_token(connection, token_id, project_id=project_id or principal.project_id)
        if found is None:
            raise _no_token(token_id)
        return found

    def update_token(
        self,
        principal: Principal,
        token_id: str,
        *,
        name: str | None = None,
        labels: dict[str, str | None] | None = None,
    ) -> APIToken:
        """Change name and labels (a merge patch)."""
        require(principal, Role.MEMBER)
        token = self.get_token(principal, token_id)
        require(principal, Role(token.role))

        def work(tx: Tx) -> None:
            changes = {**_given(name=name), **patched_labels(tx, APITokenRow.__table__, token.id, labels)}
            if changes:
                identity.update_token(tx, token.id, **changes)
            tell(tx, principal, "api_token", "updated", token.id)

        self._store.write(work)
        return self.get_token(principal, token.id)

    def delete_token(self, principal: Principal, token_id: str) -> None:
        """Revoke a token, at once."""
        require(principal, Role.MEMBER)
        token = self.get_token(principal, token_id)
        require(principal, Role(token.role))

        def work(tx: Tx) -> None:
            if not identity.delete_token(tx, token.id):
                raise _no_token(token.id)
            shared.set_labels(tx, token.id, {})  # after the row: one who labels it holds that, and has committed now
            tell(tx, principal, "api_token", "deleted", token.id)

        self._store.write(work)

    # -- access keys --------------------------------------------------------------------------------------

    def create_access_key(
        self,
        principal: Principal,
        *,
        name: str,
        role: Role | None = None,
        project: str | None = None,
        labels: dict[str, str] | None = None,
    ) -> tuple[AccessKey, str]:
        """Return a new access key and, this once, its secret."""
        role = role or principal.role
        require(principal, Role.MEMBER)
        require(principal, role)
        project_id = self._target_project(principal, project)
        key_id, secret = self._ids.new(id_prefixes.ACCESS_KEY), new_secret()
        check_labels(labels or {})
        encrypted = self._vault.encrypt(secret)

        def work(tx: Tx) -> tuple[AccessKey, str]:
            self._need_project(tx, principal, project_id)
            identity.add_access_key(
                tx,
                id=key_id,
                project_id=project_id,
                name=name,
                labels=labels or {},
                role=role,
                secret_encrypted=encrypted,
            )
            shared.add_labels(tx, key_id, labels or {})
            tell(tx, principal, "access_key", "created", key_id, project_id=project_id)
            made = identity.get_access_key(tx.connection, key_id, project_id=project_id)
            assert made is not None  # noqa: S101 - written above, in this transaction
            return made, secret

        return self._store.write(work)

    def list_access_keys(self, principal: Principal, listing: Listing) -> tuple[list[AccessKey], str | None]:
        with self._store.read() as connection:
            return identity.list_access_keys(connection, listing, project_id=principal.project_id)

    def get_access_key(self, principal: Principal, key_id: str, *, project_id: str | None = None) -> AccessKey:
        with self._store.read() as connection:
            found = identity.get_access_key(connection, key_id, project_id=project_id or principal.project_id)
        if found is None:
            raise _no_access_key(key_id)
        return found

    def update_access_key(
        self,
        principal: Principal,
        key_id: str,
        *,
        name: str | None = None,
        labels: dict[str, str | None] | None = None,
    ) -> AccessKey:
        """Change name and labels (a merge patch)."""
        require(principal, Role.MEMBER)
        key = self.get_access_key(principal, key_id)
        require(principal, Role(key.role))

        def work(tx: Tx) -> None:
            changes = {**_given(name=name), **patched_labels(tx, AccessKeyRow.__table__, key.id, labels)}
            if changes:
                identity.update_access_key(tx, key.id, **changes)
            tell(tx, principal, "access_key", "updated", key.id)

        self._store.write(work)
        return self.get_access_key(principal, key.id)

    def delete_access_key(self, principal: Principal, key_id: str) -> None:
        require(principal, Role.MEMBER)
        key = self.get_access_key(principal, key_id)
        require(principal, Role(key.role))

        def work(tx: Tx) -> None:
            if not identity.delete_access_key(tx, key.id):
                raise _no_access_key(key.id)
            shared.set_labels(tx, key.id, {})  # after the row, as above
            tell(tx, principal, "access_key", "deleted", key.id)

        self._store.write(work)

    def secret_of(self, key_id: str) -> tuple[AccessKey, str] | None:
        """Return an access key with its secret, for checking a signature."""
        with self._store.read() as connection:
            key = identity.get_access_key(connection, key_id)
            encrypted = identity.encrypted_secret(connection, key_id)
        if key is None or encrypted is None:
            return None
        return key, self._vault.decrypt(encrypted)

    def _target_project(self, principal: Principal, project: str | None) -> str:
        return principal.project_id if project is None else self.get_project(principal, project).id

    @staticmethod
    def _hold(tx: Tx, project: Project) -> None:
        if not identity.hold_project(tx, project.id, alone=True):
            raise _no_project(project.id)

    @staticmethod
    def _need_project(tx: Tx, principal: Principal, project_id: str) -> None:
        """Let no credential outlive its project: it may have been deleted while this request was on its way."""
        if identity.hold_project(tx, project_id, alone=False):
            return
        if project_id == principal.project_id:
            raise Unauthenticated("the credential's project is gone")
        raise _no_project(project_id)


def add_project(tx: Tx, project_id: str, *, name: str, description: str, labels: dict[str, str]) -> Project:
    """Write a project into the open transaction."""
    _claim_name(tx, project_id, name)
    identity.add_project(tx, id=project_id, name=name, description=description, labels=labels)
    shared.add_labels(tx, project_id, labels)
    open_project(tx, project_id)
    return Project(
        id=project_id, name=name, labels=labels, description=description, created_at=tx.now, updated_at=tx.now
    )


def add_token(
    tx: Tx,
    token_id: str,
    project_id: str,
    *,
    name: str,
    role: Role,
    token: str,
    expires_at: datetime | None = None,
    labels: dict[str, str] | None = None,
) -> None:
    """Write a token's hash into the open transaction."""
    identity.add_token(
        tx,
        id=token_id,
        project_id=project_id,
        name=name,
        role=role,
        labels=labels or {},
        token_sha256=token_hash(token),
        expires_at=expires_at,
    )
    shared.add_labels(tx, token_id, labels or {})


def _claim_name(tx: Tx, project_id: str, name: str) -> None:
    if not shared.claim(tx, scope="name:project", value=name, resource_id=project_id):
        raise AlreadyExists(
            f"there is a project named {name} already", errors=[FieldError("name", "taken", "is taken")]
        )


def _no_project(id_or_name: str) -> NotFound:
    return NotFound(f"there is no project {id_or_name}", resource=ResourceRef("project", id_or_name))


def _no_token(token_id: str) -> NotFound:
    return NotFound(f"there is no API token {token_id}", resource=ResourceRef("api_token", token_id))


def _no_access_key(key_id: str) -> NotFound:
    return NotFound(f"there is no access key {key_id}", resource=ResourceRef("access_key", key_id))


def _invalid_expiry(message: str) -> InvalidInput:
    return InvalidInput(f"expires_at: {message}", errors=[FieldError("expires_at", "invalid", message)])


def _given(**fields: str | None) -> dict[str, str]:
    """Return the fields that the request gave: the others stay what they are by now."""
    return {name: value for name, value in fields.items() if value is not None}
