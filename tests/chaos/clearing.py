"""Takes away whatever a play has left, in any state, and says what stays that should not."""

from __future__ import annotations

from sqlalchemy import select

from iaas.cloud import Cloud
from iaas.db.models import AddressReservationRow, AllocationRow, InstanceRow, NICRow, QuotaRow, SubnetRow, VPCRow
from iaas.db.repositories import instances, nics
from tests.chaos.stage import Stage
from tests.factories import operator, used_capacity

# Ids of what tenants make in these plays; others (flavors, projects) hold their names all the time.
TENANTS = ("i-", "nic-", "net-", "vpc-", "rsv-", "rt-", "dns-")


def clear(stage: Stage) -> None:
    """Delete all that a tenant can delete, and let nothing be left by that, in the database or on the backend."""
    cloud, principal = stage.cloud, operator(stage.cloud)
    with cloud.store.read() as connection:
        left = [*instances.all_alive(connection), *instances.all_retained(connection)]
    for instance in left:
        cloud.instances.delete(principal, instance.id, purge=True)
    stage.rest()
    for nic_id in _ids(cloud, NICRow):
        _let_go_of(stage, nic_id)
    for reservation_id in _ids(cloud, AddressReservationRow):
        cloud.reservations.delete(principal, reservation_id)
        stage.rest()
    for subnet_id in _ids(cloud, SubnetRow):
        cloud.subnets.delete(principal, subnet_id)
        stage.rest()
    for vpc_id in _ids(cloud, VPCRow):
        cloud.vpcs.delete(principal, vpc_id)
        stage.rest()
    assert_nothing_left(cloud)


def _let_go_of(stage: Stage, nic_id: str) -> None:
    """Delete a NIC; routes to it first."""
    cloud, principal = stage.cloud, operator(stage.cloud)
    for vpc_id in _ids(cloud, VPCRow):
        cloud.vpc_entries.replace_routes(principal, vpc_id, [])
    stage.rest()
    cloud.nics.delete(principal, nic_id)


def assert_nothing_left(cloud: Cloud) -> None:
    """Hold an empty cloud against its name: no rows, no claims, no quota, nothing on the backend but basic networks."""
    with cloud.store.read() as connection:
        assert instances.all_alive(connection) == []
        shared = set(connection.execute(select(SubnetRow.id).where(SubnetRow.project_id.is_(None))).scalars())
        shared |= set(connection.execute(select(VPCRow.id).where(VPCRow.project_id.is_(None))).scalars())
        hosts = set(connection.execute(select(InstanceRow.host_id)).scalars())
        quota = connection.execute(select(QuotaRow.resource, QuotaRow.used).where(QuotaRow.used != 0)).all()
        held = connection.execute(select(AllocationRow.__table__).where(AllocationRow.resource_id.not_in(shared)))
        claims = [row for row in held if row.resource_id.startswith(TENANTS)]
        basic = [nic for subnet_id in shared for nic in nics.on_subnet(connection, subnet_id)]
    assert hosts <= {None}, "a deleted instance is still on a host"
    for row in (NICRow, AddressReservationRow, SubnetRow, VPCRow):
        assert _ids(cloud, row) == []
    assert basic == []
    assert quota == [], "quota is held by nothing"
    assert claims == [], "claims are held by nothing"
    assert used_capacity(cloud) == (0, 0, 0)
    assert [state for driver in cloud.backend.compute.values() for state in driver.inventory()] == []
    networks = cloud.backend.networks
    assert {state.vpc_id for state in networks.vpcs()} <= shared, "a VPC without a row"
    assert {state.subnet_id for state in networks.subnets()} <= shared, "a subnet without a row"
    assert [port for subnet_id in sorted(shared) for port in networks.ports(subnet_id)] == []


def _ids(cloud: Cloud, model: type[NICRow | AddressReservationRow | SubnetRow | VPCRow]) -> list[str]:
    """Return the ids of all that belongs to projects."""
    with cloud.store.read() as connection:
        return list(connection.execute(select(model.id).where(model.project_id.is_not(None))).scalars())
