"""How much of each resource a project may have, and has."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from iaas.db.models.base import ID, Base


class QuotaRow(Base):
    """``used`` changes by conditional updates in the commit of what it counts; ``max_used`` null is the default."""

    __tablename__ = "quotas"
    __table_args__ = (CheckConstraint("used >= 0", name="ck_quotas_used"),)

    project_id: Mapped[str] = mapped_column(ID, primary_key=True)
    resource: Mapped[str] = mapped_column(String(32), primary_key=True)
    used: Mapped[int] = mapped_column(BigInteger)
    max_used: Mapped[int | None] = mapped_column(BigInteger)  # "limit" would have to be quoted everywhere
