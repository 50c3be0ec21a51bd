"""Over-commit and the admin's word on hosts; placement and retention of instances.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from iaas.db.models.base import UTCDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_WITH_PURGE_AT = sa.text("purge_at IS NOT NULL")
_WITH_PURGED_AT = sa.text("purged_at IS NOT NULL")


def upgrade() -> None:
    # No table is copied: these are plain additions, and a copy would lose the named checks on SQLite.
    with op.batch_alter_table("hosts", recreate="never") as batch:
        for name in ("vcpu_overcommit", "memory_overcommit", "disk_overcommit"):
            batch.add_column(sa.Column(name, sa.Double(), nullable=False, server_default="1"))
        batch.add_column(sa.Column("wanted_status", sa.String(length=16), nullable=False, server_default="up"))
    with op.batch_alter_table("instances", recreate="never") as batch:
        batch.add_column(sa.Column("placement", sa.JSON(), nullable=True))
        batch.add_column(sa.Column("retained", sa.JSON(), nullable=True))
        batch.add_column(sa.Column("purge_at", UTCDateTime(), nullable=True))
        batch.add_column(sa.Column("purged_at", UTCDateTime(), nullable=True))
    op.create_index(
        "ix_instances_purge_at",
        "instances",
        ["purge_at"],
        unique=False,
        sqlite_where=_WITH_PURGE_AT,
        postgresql_where=_WITH_PURGE_AT,
    )
    op.create_index(
        "ix_instances_purged_at",
        "instances",
        ["purged_at", "id"],
        unique=False,
        sqlite_where=_WITH_PURGED_AT,
        postgresql_where=_WITH_PURGED_AT,
    )
    # Whatever was deleted before there was a retention is gone from its host since then.
    op.execute(sa.text("UPDATE instances SET purged_at = deleted_at WHERE deleted_at IS NOT NULL"))


def downgrade() -> None:
    op.drop_index("ix_instances_purged_at", table_name="instances")
    op.drop_index("ix_instances_purge_at", table_name="instances")
    with op.batch_alter_table("instances", recreate="never") as batch:
        for name in ("purged_at", "purge_at", "retained", "placement"):
            batch.drop_column(name)
    with op.batch_alter_table("hosts", recreate="never") as batch:
        for name in ("wanted_status", "disk_overcommit", "memory_overcommit", "vcpu_overcommit"):
            batch.drop_column(name)
