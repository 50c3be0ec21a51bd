"""VPCs: made, changed, deleted, at the level of the service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from iaas.cloud import Cloud
from iaas.db.models import SubnetRow
from iaas.db.repositories import subnets
from iaas.db.repositories.query import Listing
from iaas.db.statements import update_rows
from iaas.drivers.interface import ForwarderSpec, PermanentError, TransientError
from iaas.kernel.errors import (
    AlreadyExists,
    InTransition,
    InUse,
    InvalidInput,
    InvalidState,
    NotCancellable,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    QuotaExceeded,
    ResourceRef,
)
from iaas.kernel.labels import parse_selector
from iaas.resources.common import Role
from iaas.resources.jobs import JobStatus
from iaas.resources.networks import DHCPOptions, Forwarder, NewRoute
from tests.factories import assert_consistent, job_of, open_cloud, operator, principal_in, settle, world
from tests.unit.services.networks import ALL, done, events_of, field_of, make_subnet, make_vpc, spec_of, used


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with open_cloud() as opened:
        yield opened
        settle(opened)
        assert_consistent(opened)


def routers(cloud: Cloud) -> set[str]:
    """Return the VPCs that the data plane has, without those that no tenant sees."""
    with cloud.store.read() as connection:
        hidden = {subnet.vpc_id for subnet in subnets.shared_ones(connection)}
    return {state.vpc_id for state in cloud.backend.networks.vpcs()} - hidden


def test_a_vpc_is_made(cloud: Cloud) -> None:
    accepted, job = cloud.vpcs.create(operator(cloud), cidr="10.0.0.0/16", name="prod", labels={"env": "prod"})
    assert (accepted.status, accepted.transition, accepted.generation) == ("pending", "creating", 1)
    assert (job.action, job.resource) == ("vpc.create", ResourceRef("vpc", accepted.id))
    done(cloud, job)
    vpc = cloud.vpcs.get(operator(cloud), "prod")
    assert vpc == cloud.vpcs.get(operator(cloud), accepted.id)
    assert (vpc.status, vpc.transition, vpc.dns_domain) == ("active", None, "internal")
    assert vpc.dhcp_options == DHCPOptions()
    assert vpc.revision == vpc.applied_revision == 1
    assert routers(cloud) == {vpc.id}
    assert events_of(cloud, vpc.id) == ["vpc.creating", "vpc.created"]
    assert used(cloud, "vpcs") == 1


def test_without_a_name_the_id_is_its_name(cloud: Cloud) -> None:
    vpc = make_vpc(cloud)
    assert vpc.name == vpc.id


def test_two_vpcs_have_the_same_block(cloud: Cloud) -> None:
    first, second = make_vpc(cloud), make_vpc(cloud)
    assert first.cidr == second.cidr
    assert routers(cloud) == {first.id, second.id}


def test_a_name_is_taken_once_in_a_project(cloud: Cloud) -> None:
    make_vpc(cloud, name="prod")
    with pytest.raises(AlreadyExists) as refused:
        make_vpc(cloud, name="prod")
    assert field_of(refused) == ("name", "taken")
    other, _ = principal_in(cloud, "other")
    cloud.vpcs.create(other, cidr="10.0.0.0/16", name="prod")


def test_another_project_does_not_see_it(cloud: Cloud) -> None:
    vpc = make_vpc(cloud, name="prod")
    other, _ = principal_in(cloud, "other")
    for wanted in (vpc.id, "prod"):
        with pytest.raises(NotFound):
            cloud.vpcs.get(other, wanted)
        with pytest.raises(NotFound):
            cloud.vpcs.delete(other, wanted)
    assert cloud.vpcs.list_page(other, ALL)[0] == []


def test_hidden_vpcs_are_never_seen(cloud: Cloud) -> None:
    basic = cloud.subnets.get(operator(cloud), "basic")
    assert basic.vpc_id is not None
    assert cloud.vpcs.list_page(operator(cloud), ALL)[0] == []
    with pytest.raises(NotFound):
        cloud.vpcs.get(operator(cloud), basic.vpc_id)
    with pytest.raises(NotFound):
        cloud.vpc_entries.add_routes(
            operator(cloud), basic.vpc_id, [NewRoute(destination="10.9.0.0/16", address="10.64.0.9")]
        )


def test_readers_change_nothing(cloud: Cloud) -> None:
    vpc = make_vpc(cloud)
    reader, _ = principal_in(cloud, "default", Role.READER)
    assert cloud.vpcs.get(reader, vpc.id) == vpc
    with pytest.raises(PermissionDenied):
        cloud.vpcs.create(reader, cidr="10.0.0.0/16")
    with pytest.raises(PermissionDenied):
        cloud.vpcs.update(reader, vpc.id, name="mine")
    with pytest.raises(PermissionDenied):
        cloud.vpcs.delete(reader, vpc.id)


def test_lists_take_selectors_and_filters(cloud: Cloud) -> None:
    web = make_vpc(cloud, name="web", labels={"tier": "web"})
    make_vpc(cloud, name="db", labels={"tier": "db"})
    found, _ = cloud.vpcs.list_page(operator(cloud), Listing(labels=parse_selector("tier=web")))
    assert found == [web]
    found, _ = cloud.vpcs.list_page(operator(cloud), Listing(filters={"name": "web"}))
    assert found == [web]


@pytest.mark.parametrize(
    ("wish", "field", "code"),
    [
        ({"cidr": "10.0.0.1/16"}, "cidr", "host_bits"),
        ({"cidr": "fd00::/48"}, "cidr", "not_supported"),
        ({"dns_domain": "a b"}, "dns_domain", "invalid"),
        ({"dhcp_options": DHCPOptions(dns_servers=("x",))}, "dhcp_options.dns_servers.0", "invalid"),
        ({"dhcp_options": DHCPOptions(dns_servers=("::1",))}, "dhcp_options.dns_servers.0", "not_supported"),
        ({"dhcp_options": DHCPOptions(ntp_servers=("127.0.0.1",))}, "dhcp_options.ntp_servers.0", "reserved"),
        ({"dhcp_options": DHCPOptions(ntp_servers=("10.0.0.2",) * 2)}, "dhcp_options.ntp_servers.1", "twice"),
        ({"dhcp_options": DHCPOptions(lease_s=119)}, "dhcp_options.lease_s", "out_of_range"),
        ({"forwarders": [Forwarder(domain="", servers=("10.0.0.2",))]}, "forwarders.0.domain", "invalid"),
        ({"forwarders": [Forwarder(domain="c.local", servers=())]}, "forwarders.0.servers", "required"),
        ({"forwarders": [Forwarder(domain="c.local", servers=("dns",))]}, "forwarders.0.servers.0", "invalid"),
        ({"forwarders": [Forwarder(domain="internal", servers=("10.0.0.2",))]}, "forwarders.0.domain", "reserved"),
        ({"forwarders": [Forwarder(domain="c.local", servers=("10.0.0.2",))] * 2}, "forwarders.1.domain", "twice"),
        ({"labels": {"not a key": "x"}}, "labels.not a key", "invalid_key"),
    ],
)
def test_each_wrong_field_is_named(cloud: Cloud, wish: dict[str, Any], field: str, code: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        cloud.vpcs.create(operator(cloud), **{"cidr": "10.0.0.0/16", **wish})
    assert field_of(refused) == (field, code)
    assert used(cloud, "vpcs") == 0


def test_what_guests_notice_is_applied_by_a_job(cloud: Cloud) -> None:
    vpc = make_vpc(cloud)
    options = DHCPOptions(dns_servers=("10.0.0.53",), ntp_servers=("10.0.0.123",), lease_s=600)
    forwarders = [Forwarder(domain="Cluster.Local.", servers=("10.0.0.10", "10.0.0.11"))]
    changed, job = cloud.vpcs.update(
        operator(cloud), vpc.id, dns_domain="corp.example", dhcp_options=options, forwarders=forwarders
    )
    assert job is not None
    assert job.action == "vpc.apply"
    assert (changed.transition, changed.generation) == (None, vpc.generation + 1)
    assert changed.dhcp_options == options
    done(cloud, job)
    spec = spec_of(cloud, vpc.id)
    assert (spec.dns_domain, spec.dns_servers, spec.lease_s) == ("corp.example", ("10.0.0.53",), 600)
    assert spec.forwarders == (ForwarderSpec(domain="cluster.local", servers=("10.0.0.10", "10.0.0.11")),)
    assert spec.revision == changed.generation
    assert changed.revision == changed.applied_revision == 2
    assert events_of(cloud, vpc.id)[-2:] == ["vpc.updated", "vpc.applied"]


def test_name_and_labels_need_no_job(cloud: Cloud) -> None:
    vpc = make_vpc(cloud, name="old", labels={"a": "1", "b": "2"})
    changed, job = cloud.vpcs.update(operator(cloud), "old", name="new", labels={"a": None, "c": "3"})
    assert job is None
    assert (changed.name, changed.labels, changed.generation) == ("new", {"b": "2", "c": "3"}, vpc.generation + 1)
    make_vpc(cloud, name="old")
    with pytest.raises(AlreadyExists):
        cloud.vpcs.update(operator(cloud), "new", name="old")
    assert cloud.vpcs.update(operator(cloud), "new", dns_domain="internal") == (changed, None)


def test_the_own_domain_is_never_forwarded(cloud: Cloud) -> None:
    vpc = make_vpc(cloud, forwarders=[Forwarder(domain="corp.example", servers=("10.0.0.2",))])
    with pytest.raises(InvalidInput) as refused:
        cloud.vpcs.update(operator(cloud), vpc.id, dns_domain="corp.example")
    assert field_of(refused) == ("forwarders.0.domain", "reserved")


def test_if_match(cloud: Cloud) -> None:
    vpc = make_vpc(cloud)
    with pytest.raises(PreconditionFailed):
        cloud.vpcs.update(operator(cloud), vpc.id, name="x", if_generation=vpc.generation - 1)
    with pytest.raises(PreconditionFailed):
        cloud.vpcs.delete(operator(cloud), vpc.id, if_generation=vpc.generation + 1)
    changed, _ = cloud.vpcs.update(operator(cloud), vpc.id, name="x", if_generation=vpc.generation)
    assert changed.name == "x"


def test_a_deleted_vpc_holds_nothing(cloud: Cloud) -> None:
    vpc = make_vpc(cloud, name="prod", labels={"env": "prod"})
    subnet = make_subnet(cloud, "prod", "10.0.1.0/24")
    routes, _ = cloud.vpc_entries.add_routes(
        operator(cloud), "prod", [NewRoute(destination="10.9.0.0/16", address="10.0.1.9")]
    )
    cloud.vpc_entries.add_record(operator(cloud), "prod", name="db", type="A", values=["10.0.1.5"])
    settle(cloud)
    with pytest.raises(InUse) as refused:
        cloud.vpcs.delete(operator(cloud), "prod")
    assert refused.value.blockers == (ResourceRef("subnet", subnet.id),)
    cloud.subnets.delete(operator(cloud), subnet.id)
    settle(cloud)
    deleting, job = cloud.vpcs.delete(operator(cloud), "prod")
    assert (deleting.status, deleting.transition) == ("active", "deleting")
    with pytest.raises(InTransition):
        cloud.vpcs.delete(operator(cloud), "prod")
    with pytest.raises(InTransition):
        cloud.vpc_entries.delete_route(operator(cloud), "prod", routes[0].id)
    done(cloud, job)
    with pytest.raises(NotFound):
        cloud.vpcs.get(operator(cloud), vpc.id)
    assert routers(cloud) == set()
    assert [used(cloud, name) for name in ("vpcs", "subnets", "routes", "dns_records")] == [0, 0, 0, 0]
    assert events_of(cloud, vpc.id)[-2:] == ["vpc.deleting", "vpc.deleted"]
    make_vpc(cloud, name="prod")


def test_nothing_is_changed_while_it_is_made(cloud: Cloud) -> None:
    vpc, _ = cloud.vpcs.create(operator(cloud), cidr="10.0.0.0/16")
    for attempt in (
        lambda: cloud.vpcs.delete(operator(cloud), vpc.id),
        lambda: cloud.vpcs.update(operator(cloud), vpc.id, dns_domain="corp"),
        lambda: cloud.subnets.create(operator(cloud), vpc=vpc.id, cidr="10.0.1.0/24"),
        lambda: cloud.vpc_entries.add_record(operator(cloud), vpc.id, name="db", type="A", values=["10.0.1.5"]),
    ):
        with pytest.raises(InTransition):
            attempt()


def test_one_that_failed_holds_nothing_and_is_deletable(cloud: Cloud) -> None:
    world(cloud).faults.fail_next("ensure_vpc", PermanentError("no room for another namespace"))
    vpc, job = cloud.vpcs.create(operator(cloud), cidr="10.0.0.0/16", name="prod")
    settle(cloud)
    assert job_of(cloud, job.id).status == JobStatus.FAILED
    failed = cloud.vpcs.get(operator(cloud), vpc.id)
    assert (failed.status, failed.transition) == ("failed", None)
    assert failed.failure is not None
    assert "no room" in failed.failure.message
    assert used(cloud, "vpcs") == 0
    assert routers(cloud) == set()
    again = make_vpc(cloud, name="prod")
    assert cloud.vpcs.get(operator(cloud), "prod") == again
    with pytest.raises(InvalidState):
        cloud.subnets.create(operator(cloud), vpc=vpc.id, cidr="10.0.1.0/24")
    with pytest.raises(InvalidState):
        cloud.vpcs.update(operator(cloud), vpc.id, dns_domain="corp")
    make_vpc(cloud, name="web")
    renamed, _ = cloud.vpcs.update(operator(cloud), vpc.id, name="web")  # it holds no name, so none is in its way
    assert renamed.name == "web"
    done(cloud, cloud.vpcs.delete(operator(cloud), vpc.id)[1])
    assert used(cloud, "vpcs") == 2
    assert events_of(cloud, vpc.id) == [
        "vpc.creating",
        "vpc.create_failed",
        "vpc.updated",
        "vpc.deleting",
        "vpc.deleted",
    ]


def test_one_whose_deletion_failed_can_be_deleted_again(cloud: Cloud) -> None:
    vpc = make_vpc(cloud, name="prod")
    cloud.vpc_entries.add_record(operator(cloud), "prod", name="db", type="A", values=["10.0.1.5"])
    settle(cloud)
    world(cloud).faults.fail_next("remove_vpc", PermanentError("busy"))
    _, job = cloud.vpcs.delete(operator(cloud), vpc.id)
    settle(cloud)
    assert job_of(cloud, job.id).status == JobStatus.FAILED
    assert cloud.vpcs.get(operator(cloud), vpc.id).status == "failed"
    assert [used(cloud, name) for name in ("vpcs", "dns_records")] == [0, 0]
    done(cloud, cloud.vpcs.delete(operator(cloud), vpc.id)[1])
    assert routers(cloud) == set()
    assert [used(cloud, name) for name in ("vpcs", "dns_records")] == [0, 0]


def test_a_creation_that_is_called_off_leaves_nothing(cloud: Cloud) -> None:
    world(cloud).faults.fail_next("ensure_vpc", TransientError("later"))
    vpc, job = cloud.vpcs.create(operator(cloud), cidr="10.0.0.0/16")
    cloud.executor.run_due()
    cloud.jobs.cancel(operator(cloud), job.id)
    settle(cloud)
    assert job_of(cloud, job.id).status == JobStatus.CANCELLED
    assert cloud.vpcs.get(operator(cloud), vpc.id).status == "failed"
    assert routers(cloud) == set()
    assert used(cloud, "vpcs") == 0


def test_an_application_cannot_be_called_off(cloud: Cloud) -> None:
    vpc = make_vpc(cloud)
    _, job = cloud.vpcs.update(operator(cloud), vpc.id, dns_domain="corp")
    assert job is not None
    with pytest.raises(NotCancellable):
        cloud.jobs.cancel(operator(cloud), job.id)


def test_an_application_that_comes_late_brings_nothing_back(cloud: Cloud) -> None:
    vpc = make_vpc(cloud)
    world(cloud).faults.fail_next("ensure_vpc", TransientError("later"), count=3)
    _, applying = cloud.vpcs.update(operator(cloud), vpc.id, dns_domain="corp")
    assert applying is not None
    cloud.executor.run_due()  # the first attempt; more come when the VPC is gone
    _, deleting = cloud.vpcs.delete(operator(cloud), vpc.id)
    done(cloud, deleting)
    assert job_of(cloud, applying.id).status == JobStatus.SUCCEEDED
    assert routers(cloud) == set()


def test_a_deletion_waits_for_a_subnet_that_is_leaving(cloud: Cloud) -> None:
    vpc = make_vpc(cloud)
    subnet = make_subnet(cloud, vpc.id, "10.0.1.0/24")
    world(cloud).faults.fail_next("ensure_subnet", TransientError("later"), count=2)
    _, leaving = cloud.subnets.leave(operator(cloud), subnet.id)
    _, deleting = cloud.vpcs.delete(operator(cloud), vpc.id)
    done(cloud, deleting)
    assert job_of(cloud, leaving.id).status == JobStatus.SUCCEEDED
    assert routers(cloud) == set()


def test_the_quota(cloud: Cloud) -> None:
    cloud.quotas.update(operator(cloud), "default", {"vpcs": 1})
    make_vpc(cloud)
    with pytest.raises(QuotaExceeded) as refused:
        make_vpc(cloud)
    assert field_of(refused) == ("vpcs", "quota_exceeded")


def test_a_count_that_is_wrong_is_found(cloud: Cloud) -> None:
    subnet = make_subnet(cloud)

    def set_status(status: str) -> None:
        rows = SubnetRow.__table__
        cloud.store.write(lambda tx: update_rows(tx.connection, rows, {"id": subnet.id}, {"status": status}))

    set_status("failed")
    with pytest.raises(AssertionError):
        used(cloud, "subnets")
    set_status("active")
    assert used(cloud, "subnets") == 1
