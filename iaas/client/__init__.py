"""Python SDK of the cloud: ``Client``, typed resources with verbs, waits, and one tree of exceptions.

>>> with Client("http://127.0.0.1:8080", token) as client:  # doctest: +SKIP
...     web = client.instances.create(kind="vm", image="tiny", flavor="small", name="web").wait()
...     web = web.wait_until_ready()
"""

from iaas.client.actions import Action, Change, wait_all
from iaas.client.address_reservations import AddressReservation
from iaas.client.capabilities import Capabilities, Health
from iaas.client.catalog import Flavor, Host, Image, KeyPair, Zone
from iaas.client.client import Client
from iaas.client.collection import Collection, Page
from iaas.client.credentials import Credentials, default_credentials_files, find_credentials
from iaas.client.doctor import DoctorReport, Finding
from iaas.client.errors import (
    APIError,
    BackendUnavailable,
    ConfigurationError,
    Conflict,
    ConnectionFailed,
    EventsExpired,
    GuestUnavailable,
    IaasError,
    InTransition,
    InUse,
    InvalidInput,
    InvalidState,
    JobFailed,
    NameTaken,
    NeverReady,
    NotCancellable,
    NotFound,
    NotSupported,
    OutOfCapacity,
    PermissionDenied,
    PreconditionFailed,
    QuotaExceeded,
    RateLimited,
    ServerError,
    Unauthenticated,
    UnexpectedAnswer,
    WaitTimeout,
)
from iaas.client.events import Event
from iaas.client.identity import AccessKey, APIToken, Project
from iaas.client.instances import ExecResult, Instance, InstanceNIC, InstanceSpec
from iaas.client.jobs import Job, Progress
from iaas.client.nics import NIC, NO_ADDRESS, AllowedPair, NICSpec, NICStatistics
from iaas.client.placement import Placement, PlacementRule
from iaas.client.quotas import Quota, Quotas
from iaas.client.reachability import AddressIn, Hop, Observed, Sighting, Verdict
from iaas.client.resource import UNSET, Resource
from iaas.client.subnets import Subnet
from iaas.client.vpc_entries import DNSRecord, NewRoute, Route, RoutesAction, RouteTarget
from iaas.client.vpcs import VPC, DHCPOptions, DNSForwarder
from iaas.kernel.errors import Failure, FieldError, ResourceRef

__all__ = [
    "NIC",
    "NO_ADDRESS",
    "UNSET",
    "VPC",
    "APIError",
    "APIToken",
    "AccessKey",
    "Action",
    "AddressIn",
    "AddressReservation",
    "AllowedPair",
    "BackendUnavailable",
    "Capabilities",
    "Change",
    "Client",
    "Collection",
    "ConfigurationError",
    "Conflict",
    "ConnectionFailed",
    "Credentials",
    "DHCPOptions",
    "DNSForwarder",
    "DNSRecord",
    "DoctorReport",
    "Event",
    "EventsExpired",
    "ExecResult",
    "Failure",
    "FieldError",
    "Finding",
    "Flavor",
    "GuestUnavailable",
    "Health",
    "Hop",
    "Host",
    "IaasError",
    "Image",
    "InTransition",
    "InUse",
    "Instance",
    "InstanceNIC",
    "InstanceSpec",
    "InvalidInput",
    "InvalidState",
    "Job",
    "JobFailed",
    "KeyPair",
    "NICSpec",
    "NICStatistics",
    "NameTaken",
    "NeverReady",
    "NewRoute",
    "NotCancellable",
    "NotFound",
    "NotSupported",
    "Observed",
    "OutOfCapacity",
    "Page",
    "PermissionDenied",
    "Placement",
    "PlacementRule",
    "PreconditionFailed",
    "Progress",
    "Project",
    "Quota",
    "QuotaExceeded",
    "Quotas",
    "RateLimited",
    "Resource",
    "ResourceRef",
    "Route",
    "RouteTarget",
    "RoutesAction",
    "ServerError",
    "Sighting",
    "Subnet",
    "Unauthenticated",
    "UnexpectedAnswer",
    "Verdict",
    "WaitTimeout",
    "Zone",
    "default_credentials_files",
    "find_credentials",
    "wait_all",
]
