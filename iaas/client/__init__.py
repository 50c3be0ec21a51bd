"""Python SDK of the cloud: ``Client``, typed resources with verbs, waits, and one tree of exceptions.

>>> with Client("http://127.0.0.1:8080", token) as client:  # doctest: +SKIP
...     web = client.instances.create(kind="vm", image="tiny", flavor="small", name="web").wait()
...     web = web.wait_until_ready()
"""

from iaas.client.actions import Action, wait_all
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
from iaas.client.placement import Placement, PlacementRule
from iaas.client.quotas import Quota, Quotas
from iaas.client.resource import UNSET, Resource
from iaas.kernel.errors import Failure, FieldError, ResourceRef

__all__ = [
    "UNSET",
    "APIError",
    "APIToken",
    "AccessKey",
    "Action",
    "BackendUnavailable",
    "Capabilities",
    "Client",
    "Collection",
    "ConfigurationError",
    "Conflict",
    "ConnectionFailed",
    "Credentials",
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
    "NameTaken",
    "NeverReady",
    "NotCancellable",
    "NotFound",
    "NotSupported",
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
    "ServerError",
    "Unauthenticated",
    "UnexpectedAnswer",
    "WaitTimeout",
    "Zone",
    "default_credentials_files",
    "find_credentials",
    "wait_all",
]
