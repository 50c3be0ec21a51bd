"""Projects, API tokens, access keys."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, or_, select, update

from iaas.db.models import AccessKeyRow, APITokenRow, InstanceRow, KeyPairRow, LabelRow, ProjectRow
from iaas.db.repositories.query import Listing, list_rows
from iaas.db.statements import Prepared
from iaas.db.store import Tx
from iaas.kernel.errors import ResourceRef
from iaas.resources.identity import AccessKey, APIToken, Project

_projects = ProjectRow.__table__
_tokens = APITokenRow.__table__
_keys = AccessKeyRow.__table__

_TOKEN_BY_HASH = Prepared(select(_tokens).where(_tokens.c.token_sha256 == bindparam("token_sha256")))


def add_project(tx: Tx, **values: Any) -> None:
    tx.connection.execute(insert(ProjectRow).values(**values, created_at=tx.now, updated_at=tx.now))


def list_projects(connection: Connection, listing: Listing) -> tuple[list[Project], str | None]:
    rows, cursor = list_rows(connection, _projects, listing)
    return [Project(**row._asdict()) for row in rows], cursor


def get_project(connection: Connection, id_or_name: str) -> Project | None:
    query = select(_projects).where(or_(_projects.c.id == id_or_name, _projects.c.name == id_or_name))
    row = connection.execute(query.order_by((_projects.c.id == id_or_name).desc())).first()  # a name may be an id
    return Project(**row._mapping) if row else None


def update_project(tx: Tx, project_id: str, **changes: Any) -> None:
    query = update(ProjectRow).where(_projects.c.id == project_id).values(**changes, updated_at=tx.now)
    tx.connection.execute(query)


def hold_project(tx: Tx, project_id: str, *, alone: bool) -> bool:
    """Keep the project from being deleted until the commit; False when it is gone already.

    Args:
        alone: let nobody else hold it meanwhile: whoever deletes or renames it. Others may hold it side by side.
    """
    query = select(_projects.c.id).where(_projects.c.id == project_id).with_for_update(read=not alone)
    return tx.connection.execute(query).first() is not None


def delete_project(tx: Tx, project_id: str) -> None:
    """Delete the project with its credentials."""
    for table in (_tokens, _keys):
        of_project = select(table.c.id).where(table.c.project_id == project_id)
        tx.connection.execute(delete(LabelRow).where(LabelRow.resource_id.in_(of_project)))
    tx.connection.execute(delete(APITokenRow).where(_tokens.c.project_id == project_id))
    tx.connection.execute(delete(AccessKeyRow).where(_keys.c.project_id == project_id))
    tx.connection.execute(delete(ProjectRow).where(_projects.c.id == project_id))


def project_contents(connection: Connection, project_id: str, *, limit: int = 20) -> list[ResourceRef]:
    """Return resources that keep a project from being deleted, deleted instances that hold their disk included."""
    instances, key_pairs = InstanceRow.__table__.c, KeyPairRow.__table__.c
    found = [
        ResourceRef("instance", row.id)
        for row in connection.execute(
            select(instances.id).where(instances.project_id == project_id, instances.purged_at.is_(None)).limit(limit)
        )
    ]
    query = select(key_pairs.id).where(key_pairs.project_id == project_id).limit(limit)
    return found + [ResourceRef("key_pair", row.id) for row in connection.execute(query)]


def add_token(tx: Tx, **values: Any) -> None:
    tx.connection.execute(insert(APITokenRow).values(**values, created_at=tx.now))


def token_by_hash(connection: Connection, token_sha256: str) -> APIToken | None:
    row = _TOKEN_BY_HASH.first(connection, {"token_sha256": token_sha256})
    return _token(row) if row else None


def list_tokens(connection: Connection, listing: Listing, *, project_id: str) -> tuple[list[APIToken], str | None]:
    rows, cursor = list_rows(
        connection, _tokens, listing, equal={"project_id": project_id}, sortable=("created_at", "name")
    )
    return [_token(row) for row in rows], cursor


def get_token(connection: Connection, token_id: str, *, project_id: str) -> APIToken | None:
    query = select(_tokens).where(_tokens.c.id == token_id, _tokens.c.project_id == project_id)
    row = connection.execute(query).first()
    return _token(row) if row else None


def update_token(tx: Tx, token_id: str, **changes: Any) -> None:
    tx.connection.execute(update(APITokenRow).where(_tokens.c.id == token_id).values(**changes))


def delete_token(tx: Tx, token_id: str) -> bool:
    """Delete the token; False when it is gone already."""
    return tx.connection.execute(delete(APITokenRow).where(_tokens.c.id == token_id)).rowcount == 1


def add_access_key(tx: Tx, **values: Any) -> None:
    tx.connection.execute(insert(AccessKeyRow).values(**values, created_at=tx.now))


def list_access_keys(
    connection: Connection, listing: Listing, *, project_id: str
) -> tuple[list[AccessKey], str | None]:
    rows, cursor = list_rows(
        connection, _keys, listing, equal={"project_id": project_id}, sortable=("created_at", "name")
    )
    return [_access_key(row) for row in rows], cursor


def get_access_key(connection: Connection, key_id: str, *, project_id: str | None = None) -> AccessKey | None:
    query = select(_keys).where(_keys.c.id == key_id)
    if project_id is not None:
        query = query.where(_keys.c.project_id == project_id)
    row = connection.execute(query).first()
    return _access_key(row) if row else None


def encrypted_secret(connection: Connection, key_id: str) -> bytes | None:
    return connection.execute(select(_keys.c.secret_encrypted).where(_keys.c.id == key_id)).scalar()


def update_access_key(tx: Tx, key_id: str, **changes: Any) -> None:
    tx.connection.execute(update(AccessKeyRow).where(_keys.c.id == key_id).values(**changes))


def delete_access_key(tx: Tx, key_id: str) -> bool:
    """Delete the access key; False when it is gone already."""
    return tx.connection.execute(delete(AccessKeyRow).where(_keys.c.id == key_id)).rowcount == 1


def _token(row: Any) -> APIToken:
    return APIToken(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        labels=row.labels,
        role=row.role,
        expires_at=row.expires_at,
        created_at=row.created_at,
    )


def _access_key(row: Row[Any]) -> AccessKey:
    return AccessKey(
        id=row.id, project_id=row.project_id, name=row.name, labels=row.labels, role=row.role, created_at=row.created_at
    )
