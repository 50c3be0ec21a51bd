"""What the cloud asks of a backend: small protocols by capability, frozen specs in, frozen states out.

Every call may come from any thread of the executor's pool, and may be repeated: ``ensure_*`` and
``remove_*`` are idempotent, and a call that fails leaves nothing behind of its own making.
Specs carry all a driver needs; a driver never sees a database row.
"""

from iaas.drivers.interface.backend import Backend, HostReport
from iaas.drivers.interface.compute import (
    ComputeCapability,
    ComputeDriver,
    ExecResult,
    GuestFile,
    MachineKind,
    MachineSpec,
    MachineState,
    NICSpec,
    PowerState,
)
from iaas.drivers.interface.errors import (
    BackendDownError,
    DriverError,
    GuestUnavailableError,
    NoCapacityError,
    NotFoundError,
    PermanentError,
    TransientError,
    UnsupportedError,
)
from iaas.drivers.interface.images import ImageArtefact, ImageDriver, ImageImporter, ImageSpec, ImageState
from iaas.drivers.interface.networks import (
    BLACKHOLE,
    METADATA_ADDRESS,
    SERVICE_ADDRESS,
    AllowedPair,
    DNSRecordSpec,
    ForwarderSpec,
    NetworkCapability,
    NetworkDriver,
    PortSpec,
    PortState,
    PortStatistics,
    ReservationSpec,
    RouteSpec,
    SubnetSpec,
    SubnetState,
    VPCSpec,
    VPCState,
)

__all__ = [
    "BLACKHOLE",
    "METADATA_ADDRESS",
    "SERVICE_ADDRESS",
    "AllowedPair",
    "Backend",
    "BackendDownError",
    "ComputeCapability",
    "ComputeDriver",
    "DNSRecordSpec",
    "DriverError",
    "ExecResult",
    "ForwarderSpec",
    "GuestFile",
    "GuestUnavailableError",
    "HostReport",
    "ImageArtefact",
    "ImageDriver",
    "ImageImporter",
    "ImageSpec",
    "ImageState",
    "MachineKind",
    "MachineSpec",
    "MachineState",
    "NICSpec",
    "NetworkCapability",
    "NetworkDriver",
    "NoCapacityError",
    "NotFoundError",
    "PermanentError",
    "PortSpec",
    "PortState",
    "PortStatistics",
    "PowerState",
    "ReservationSpec",
    "RouteSpec",
    "SubnetSpec",
    "SubnetState",
    "TransientError",
    "UnsupportedError",
    "VPCSpec",
    "VPCState",
]
