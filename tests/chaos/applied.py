"""Holds what rows say of networks against what the simulated world was told of them, word for word."""

from __future__ import annotations

from collections.abc import Iterator

from iaas.cloud import Cloud
from iaas.db.repositories import instances, nics, subnets, vpcs
from iaas.drivers.sim.network_documents import port_document, subnet_document, vpc_document
from iaas.resources.instances import InstanceStatus
from iaas.resources.networks import NetworkStatus
from iaas.workflows.network_specs import port_spec, subnet_spec, vpc_spec
from tests.factories import world

_SUBNET = "SELECT subnet_id, document, vpc_id, cidr, gateway, mtu FROM subnets"


def unapplied(cloud: Cloud) -> list[str]:
    """Return the ids of VPCs, subnets and attached NICs that are not in the world as their rows say.

    Basic networks that nobody has used yet need not be there.
    """
    with world(cloud).read("vpcs") as simulated:
        found_vpcs = dict(simulated.execute("SELECT vpc_id, document FROM vpcs").fetchall())
        found_subnets = {row[0]: row[1:] for row in simulated.execute(_SUBNET).fetchall()}
        found_ports = dict(simulated.execute("SELECT nic_id, document FROM ports").fetchall())
    wanted_ports = dict(_ports(cloud))
    with cloud.store.read() as connection:
        wrong = []
        for vpc in vpcs.all_vpcs(connection):
            is_there = vpc.id in found_vpcs or vpc.project_id is not None
            spec = vpc_spec(connection, vpc.id)
            if vpc.status == NetworkStatus.ACTIVE and is_there and spec is not None:
                wrong += [vpc.id] if found_vpcs.get(vpc.id) != vpc_document(spec) else []
        for subnet in subnets.all_subnets(connection):
            is_there = subnet.id in found_subnets or subnet.project_id is not None
            of = subnet_spec(connection, subnet.id)
            if subnet.status == NetworkStatus.ACTIVE and is_there and of is not None:
                wanted = (subnet_document(of), of.vpc_id, of.cidr, of.gateway, of.mtu)
                wrong += [subnet.id] if found_subnets.get(subnet.id) != wanted else []
    either_way = _of_failed(cloud)
    return wrong + [
        nic
        for nic in {**wanted_ports, **found_ports}
        if wanted_ports.get(nic) != found_ports.get(nic) and nic not in either_way
    ]


def _of_failed(cloud: Cloud) -> frozenset[str]:
    """Return the ids of NICs in instances that are half deleted: their ports may be there or not."""
    with cloud.store.read() as connection:
        return frozenset(
            nic.id
            for instance in instances.all_alive(connection)
            if instance.status == InstanceStatus.FAILED
            for nic in nics.of_instance(connection, instance.id)
        )


def _ports(cloud: Cloud) -> Iterator[tuple[str, str]]:
    """Yield the document of each port that must be there: of a NIC in an instance that is not half deleted."""
    with cloud.store.read() as connection:
        for instance in instances.all_alive(connection):
            if instance.status == InstanceStatus.FAILED:
                continue
            for nic in nics.of_instance(connection, instance.id):
                yield nic.id, port_document(port_spec(nic, hostname=instance.hostname))
