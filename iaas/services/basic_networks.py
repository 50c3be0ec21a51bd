"""The basic network of a zone: a subnet that all projects share, in a hidden VPC of the system.

It is there before anybody asks, so that an instance needs no network of its own.
"""

from __future__ import annotations

import ipaddress

from iaas.db.models import SubnetRow, VPCRow
from iaas.db.repositories import shared, subnets, vpcs
from iaas.db.store import Tx
from iaas.kernel import ids as id_prefixes
from iaas.kernel.ids import IdSource
from iaas.resources.networks import NetworkStatus
from iaas.services.revisions import Revisions
from iaas.workflows.network_specs import subnet_configuration, vpc_configuration

DNS_DOMAIN = "internal"
MTU = 1500
_FIRST_BLOCK = 64  # 10.64.0.0/16 and up: low blocks are what tenants like for their own
_FIRST_HOST = 10  # below: the gateway, and room for services of ours

_vpc_revisions = Revisions("vpc", VPCRow.__table__, vpc_configuration)
_subnet_revisions = Revisions("subnet", SubnetRow.__table__, subnet_configuration)


def ensure_basic_network(tx: Tx, ids: IdSource, zone: str, index: int) -> None:
    """Make the zone's basic subnet, if it is not there.

    Args:
        index: the zone's place in the configuration; its block is made of it.
    """
    if subnets.basic_of(tx.connection, zone) is not None:
        return
    block = ipaddress.IPv4Network(f"10.{_FIRST_BLOCK + index % 64}.0.0/16")
    vpc_id, subnet_id = ids.new(id_prefixes.VPC), ids.new(id_prefixes.SUBNET)
    vpcs.add(
        tx,
        id=vpc_id,
        project_id=None,
        zone=zone,
        name=f"system-{zone}"[:128],
        labels={},
        status=NetworkStatus.ACTIVE,
        transition=None,
        cidr=str(block),
        dns_domain=DNS_DOMAIN,
        dhcp_options={"dns_servers": [], "ntp_servers": [], "lease_s": 3600},
        forwarders=[],
    )
    gateway = str(block.network_address + 1)
    subnets.add(
        tx,
        id=subnet_id,
        project_id=None,
        name="basic",
        labels={},
        zone=zone,
        status=NetworkStatus.ACTIVE,
        transition=None,
        vpc_id=vpc_id,
        cidr=str(block),
        gateway=gateway,
        dhcp_first=str(block.network_address + _FIRST_HOST),
        dhcp_last=str(block.broadcast_address - 1),
        mtu=MTU,
    )
    shared.claim(tx, scope=subnets.address_scope(subnet_id), value=gateway, resource_id=subnet_id)
    with _vpc_revisions.change(tx, vpc_id), _subnet_revisions.change(tx, subnet_id):
        pass  # the rows above are the first revision
