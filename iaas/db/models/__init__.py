"""All tables. Importing this fills ``Base.metadata`` (Alembic compares against it)."""

from iaas.db.models.base import Base
from iaas.db.models.catalog import FlavorRow, HostRow, ImageRow, KeyPairRow, ZoneRow
from iaas.db.models.idempotency import IdempotencyRow
from iaas.db.models.identity import AccessKeyRow, APITokenRow, ProjectRow
from iaas.db.models.instances import InstanceRow
from iaas.db.models.jobs import EventRow, JobRow
from iaas.db.models.networks import AddressReservationRow, DNSRecordRow, NICRow, RouteRow, SubnetRow, VPCRow
from iaas.db.models.quotas import QuotaRow
from iaas.db.models.shared import AllocationRow, LabelRow, ReportRow, SettingRow

__all__ = [
    "APITokenRow",
    "AccessKeyRow",
    "AddressReservationRow",
    "AllocationRow",
    "Base",
    "DNSRecordRow",
    "EventRow",
    "FlavorRow",
    "HostRow",
    "IdempotencyRow",
    "ImageRow",
    "InstanceRow",
    "JobRow",
    "KeyPairRow",
    "LabelRow",
    "NICRow",
    "ProjectRow",
    "QuotaRow",
    "ReportRow",
    "RouteRow",
    "SettingRow",
    "SubnetRow",
    "VPCRow",
    "ZoneRow",
]
