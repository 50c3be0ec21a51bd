"""VPCs and subnets for tests of the services."""

from __future__ import annotations

from typing import Any

import pytest

from iaas.cloud import Cloud
from iaas.db.repositories.query import Listing
from iaas.drivers.interface import SubnetState, VPCSpec
from iaas.kernel.errors import CloudError
from iaas.resources.common import Page
from iaas.resources.jobs import EventFilter, Job, JobStatus
from iaas.resources.networks import NIC, VPC, NewNIC, Subnet
from iaas.services.quotas import recount
from iaas.workflows.network_specs import vpc_spec
from tests.factories import job_of, operator, settle

ALL = Listing(page=Page(limit=1000))


def make_vpc(cloud: Cloud, cidr: str = "10.0.0.0/16", **wanted: Any) -> VPC:
    """Return a VPC that is active."""
    vpc, job = cloud.vpcs.create(operator(cloud), cidr=cidr, **wanted)
    done(cloud, job)
    return cloud.vpcs.get(operator(cloud), vpc.id)


def make_subnet(cloud: Cloud, vpc: str | None = None, cidr: str | None = None, **wanted: Any) -> Subnet:
    """Return a subnet that is active; a bare one without ``vpc``."""
    subnet, job = cloud.subnets.create(operator(cloud), vpc=vpc, cidr=cidr, **wanted)
    done(cloud, job)
    return cloud.subnets.get(operator(cloud), subnet.id)


def segment(cloud: Cloud, subnet_id: str) -> SubnetState | None:
    """Return what the data plane has of a subnet."""
    return next((state for state in cloud.backend.networks.subnets() if state.subnet_id == subnet_id), None)


def join(cloud: Cloud, subnet: str, vpc: str, cidr: str, **place: Any) -> None:
    """Let a subnet join a VPC, to the end."""
    done(cloud, cloud.subnets.join(operator(cloud), subnet, vpc=vpc, cidr=cidr, **place)[1])


def make_nic(cloud: Cloud, subnet: str, **wanted: Any) -> NIC:
    return cloud.nics.create(operator(cloud), NewNIC(subnet=subnet, **wanted))


def done(cloud: Cloud, job: Job | None) -> Job:
    """Let everything come to rest and return the job, which must have succeeded."""
    assert job is not None
    settle(cloud)
    found = job_of(cloud, job.id)
    assert found.status == JobStatus.SUCCEEDED, found.error
    return found


def spec_of(cloud: Cloud, vpc_id: str) -> VPCSpec:
    """Return what the driver is told of a VPC."""
    with cloud.store.read() as connection:
        spec = vpc_spec(connection, vpc_id)
    assert spec is not None
    return spec


def used(cloud: Cloud, resource: str) -> int:
    """Return how much of a quota the operator's project uses; it must be what the rows hold."""
    with cloud.store.read() as connection:
        assert recount(connection) == []
    return next(quota.used for quota in cloud.quotas.own(operator(cloud)) if quota.resource == resource)


def events_of(cloud: Cloud, resource_id: str) -> list[str]:
    """Return the types of all events of a resource."""
    found = cloud.events.list_after(operator(cloud), after=0, limit=1000, only=EventFilter(resource_id=resource_id))
    return [event.type for event in found]


def field_of(refused: pytest.ExceptionInfo[CloudError]) -> tuple[str, str]:
    [error] = refused.value.errors
    return error.field, error.code
