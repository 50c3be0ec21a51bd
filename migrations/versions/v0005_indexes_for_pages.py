"""Indexes that lead to a page of instances, whatever it is filtered or sorted by.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_LIVING, _DELETED = sa.text("deleted_at IS NULL"), sa.text("deleted_at IS NOT NULL")
_IN_ORDER = ["project_id", "created_at", "id"]


def upgrade() -> None:
    op.drop_index("ix_instances_project_id_created_at", table_name="instances")
    op.drop_index("ix_instances_project_id_status", table_name="instances")
    op.drop_index("ix_labels_key_value", table_name="labels")
    op.create_index("ix_instances_living", "instances", _IN_ORDER, sqlite_where=_LIVING, postgresql_where=_LIVING)
    op.create_index("ix_instances_deleted", "instances", _IN_ORDER, sqlite_where=_DELETED, postgresql_where=_DELETED)
    op.create_index("ix_instances_project_id_status", "instances", ["project_id", "status", "created_at", "id"])
    op.create_index("ix_instances_project_id_name", "instances", ["project_id", "name", "created_at", "id"])
    op.create_index("ix_labels_key_value", "labels", ["key", "value", "resource_id"])


def downgrade() -> None:
    op.drop_index("ix_labels_key_value", table_name="labels")
    for name in ("project_id_name", "project_id_status", "deleted", "living"):
        op.drop_index(f"ix_instances_{name}", table_name="instances")
    op.create_index("ix_labels_key_value", "labels", ["key", "value"])
    op.create_index("ix_instances_project_id_status", "instances", ["project_id", "status"])
    op.create_index("ix_instances_project_id_created_at", "instances", _IN_ORDER)
