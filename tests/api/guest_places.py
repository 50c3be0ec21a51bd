"""Puts instances of a test's cloud where a test wants them: into a VPC at an address, without any workflow."""

from __future__ import annotations

from typing import Any

from sqlalchemy import update

from iaas.cloud import Cloud
from iaas.db.models import NICRow
from iaas.db.repositories import shared, subnets, vpcs
from iaas.db.store import Tx
from iaas.resources.instances import Instance
from iaas.resources.networks import NetworkStatus


def make_vpc(cloud: Cloud, number: int, *, cidr: str = "127.0.0.0/8") -> str:
    """Return the id of a new VPC whose one subnet is all of its block; of the loopback, unless told otherwise."""
    vpc_id, subnet_id = f"vpc-test{number:04}", f"net-test{number:04}"

    def work(tx: Tx) -> None:
        common: dict[str, Any] = {"project_id": None, "labels": {}, "status": NetworkStatus.ACTIVE, "transition": None}
        options = {"dns_servers": [], "ntp_servers": [], "lease_s": 3600}
        vpcs.add(
            tx,
            id=vpc_id,
            name=vpc_id,
            cidr=cidr,
            dns_domain=f"v{number}.internal",
            dhcp_options=options,
            forwarders=[],
            **common,
        )
        subnets.add(
            tx,
            id=subnet_id,
            name=subnet_id,
            zone=f"nowhere-{number}",
            vpc_id=vpc_id,
            cidr=cidr,
            gateway=None,
            dhcp_first=None,
            dhcp_last=None,
            mtu=1500,
            **common,
        )

    cloud.store.write(work)
    return vpc_id


def put(cloud: Cloud, instance: Instance, vpc_id: str, address: str | None, *, secondary: tuple[str, ...] = ()) -> None:
    """Give the instance's first NIC a place in a VPC of :func:`make_vpc`, and addresses there."""
    nic, subnet_id = instance.nics[0].id, f"net-{vpc_id.removeprefix('vpc-')}"

    def work(tx: Tx) -> None:
        shared.release(tx, scope=subnets.address_scope(instance.nics[0].subnet_id), resource_id=nic)
        for each in ([address] if address else []) + list(secondary):
            assert shared.claim(tx, scope=subnets.address_scope(subnet_id), value=each, resource_id=nic)
        place = {"vpc_id": vpc_id, "subnet_id": subnet_id}
        tx.connection.execute(
            update(NICRow).where(NICRow.id == nic).values(address=address, secondary_addresses=list(secondary), **place)
        )

    cloud.store.write(work)
