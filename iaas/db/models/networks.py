"""Networks and NICs, in the first form: one default network per zone."""

from __future__ import annotations

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from iaas.db.models.base import ID, NAME, Base, Identified, Stamped


class NetworkRow(Identified, Stamped, Base):
    """``next_offset``: where the search for a free address goes on (round robin, so addresses rest before reuse)."""

    __tablename__ = "networks"

    zone: Mapped[str] = mapped_column(NAME, unique=True)
    cidr: Mapped[str] = mapped_column(String(43))
    gateway: Mapped[str] = mapped_column(String(39))
    next_offset: Mapped[int]


class NICRow(Identified, Stamped, Base):
    __tablename__ = "nics"

    project_id: Mapped[str] = mapped_column(ID, index=True)
    network_id: Mapped[str] = mapped_column(ID)
    instance_id: Mapped[str | None] = mapped_column(ID, index=True)
    device_index: Mapped[int]
    mac: Mapped[str] = mapped_column(String(17))
    address: Mapped[str | None] = mapped_column(String(39))
