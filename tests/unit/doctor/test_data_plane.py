"""What is in a network, beyond its being there, is brought by a repair."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from iaas.cloud import Cloud
from iaas.db.repositories.query import Listing
from iaas.doctor.data_plane import rebuild_networks
from iaas.drivers.interface import BackendDownError, PermanentError
from iaas.resources.jobs import JobStatus
from iaas.resources.networks import NewNIC
from tests.chaos.applied import unapplied
from tests.factories import assert_consistent, create, job_of, open_cloud, operator, settle, world
from tests.unit.services.networks import make_subnet, make_vpc


@pytest.fixture(params=[False, True], ids=["inline", "pool"])
def cloud(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    """A cloud with an instance in a VPC of its project."""
    with open_cloud(blocking=request.param) as opened:
        make_vpc(opened, name="prod")
        make_subnet(opened, "prod", "10.0.1.0/24", name="web")
        create(opened, name="web-1", nics=(NewNIC(subnet="web"),))
        yield opened
        settle(opened)
        assert_consistent(opened)


def test_a_change_that_failed_for_good_is_brought_by_a_repair(cloud: Cloud) -> None:
    world(cloud).faults.fail_next("ensure_vpc", PermanentError("no"))
    _, job = cloud.vpc_entries.add_record(operator(cloud), "prod", name="db", type="A", values=("10.0.1.9",))
    settle(cloud)
    assert job_of(cloud, job.id).status == JobStatus.FAILED
    assert unapplied(cloud) == [cloud.vpcs.get(operator(cloud), "prod").id]
    assert cloud.doctor.repair().findings == ()
    assert unapplied(cloud) == []


def test_everything_is_made_again_after_a_host_restart(cloud: Cloud) -> None:
    with world(cloud).write("test") as connection:
        for table in ("ports", "port_addresses", "port_macs", "subnets", "vpcs"):
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
                connection.execute(f"DELETE FROM {table}")  # noqa: S608 - names of ours
    assert unapplied(cloud) != []
    assert rebuild_networks(cloud.store, cloud.backend, at_rest_only=True) == []
    assert unapplied(cloud) == []


def test_what_a_job_is_at_work_on_is_left_to_it(cloud: Cloud) -> None:
    cloud.subnets.delete(operator(cloud), make_subnet(cloud, "prod", "10.0.2.0/24", name="goes").id)
    settle(cloud)
    instance = cloud.instances.list_page(operator(cloud), Listing())[0][0]
    cloud.instances.delete(operator(cloud), instance.id, purge=True)
    cloud.backend.networks.remove_port(instance.nics[0].subnet_id, instance.nics[0].id)
    rebuild_networks(cloud.store, cloud.backend, at_rest_only=True)
    assert cloud.backend.networks.ports(instance.nics[0].subnet_id) == []
    settle(cloud)


def test_what_the_driver_refuses_is_named_and_the_rest_goes_on(cloud: Cloud) -> None:
    vpc = make_vpc(cloud, name="other", cidr="10.9.0.0/16")
    world(cloud).faults.fail_next("ensure_vpc", BackendDownError("no"), count=2)
    refused = rebuild_networks(cloud.store, cloud.backend, at_rest_only=True)
    assert vpc.id in refused
    assert len(refused) == 2
