"""Zones, hosts, flavors, images, key pairs."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from iaas.db.models.base import ID, NAME, Base, Identified, Named, Stamped


class ZoneRow(Base):
    """A zone's id is its name: ids of zones are words in every cloud."""

    __tablename__ = "zones"

    id: Mapped[str] = mapped_column(NAME, primary_key=True)
    name: Mapped[str] = mapped_column(NAME)
    labels: Mapped[dict[str, str]]
    status: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime]


class HostRow(Identified, Stamped, Base):
    """``vcpus``, ``memory_mib`` and ``disk_gib`` are what is given out: what the host has, times its over-commit.

    ``*_used`` are reserved by conditional updates; the checks make a lost race impossible. ``status`` is
    ``wanted_status`` (an admin's word), or ``down`` while the backend does not report the host.
    """

    __tablename__ = "hosts"
    __table_args__ = (
        CheckConstraint("vcpus_used >= 0", name="ck_hosts_vcpus_used"),
        CheckConstraint("memory_mib_used >= 0", name="ck_hosts_memory_mib_used"),
        CheckConstraint("disk_gib_used >= 0", name="ck_hosts_disk_gib_used"),
    )

    name: Mapped[str] = mapped_column(NAME, unique=True)
    labels: Mapped[dict[str, str]]
    zone: Mapped[str] = mapped_column(NAME, index=True)
    status: Mapped[str] = mapped_column(String(16))
    vcpus: Mapped[int]
    vcpus_used: Mapped[int]
    memory_mib: Mapped[int]
    memory_mib_used: Mapped[int]
    disk_gib: Mapped[int]
    disk_gib_used: Mapped[int]
    vcpu_overcommit: Mapped[float]
    memory_overcommit: Mapped[float]
    disk_overcommit: Mapped[float]
    wanted_status: Mapped[str] = mapped_column(String(16))


class FlavorRow(Named, Base):
    __tablename__ = "flavors"

    vcpus: Mapped[int]
    memory_mib: Mapped[int]
    root_disk_gib: Mapped[int]
    max_nics: Mapped[int]


class ImageRow(Named, Base):
    __tablename__ = "images"

    status: Mapped[str] = mapped_column(String(16))
    source: Mapped[str] = mapped_column(String(1024))
    kinds: Mapped[list[str]]
    os: Mapped[str] = mapped_column(String(64))


class KeyPairRow(Named, Base):
    __tablename__ = "key_pairs"

    project_id: Mapped[str] = mapped_column(ID, index=True)
    public_key: Mapped[str] = mapped_column(Text)
    fingerprint: Mapped[str] = mapped_column(String(64))
