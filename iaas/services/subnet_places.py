"""The place of a subnet in a VPC: its block among the others', the addresses of its NICs, who must follow."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from sqlalchemy import Connection

from iaas.db.repositories import nics, reservations, shared, subnets, vpc_entries, vpcs
from iaas.db.store import Tx
from iaas.kernel.errors import InTransition, InUse, OutOfCapacity, ResourceRef
from iaas.resources.common import Principal
from iaas.resources.jobs import Job
from iaas.resources.networks import NetworkStatus, Subnet
from iaas.services.cidrs import AddressPlan, check_host, check_pool, check_subnet_block, invalid, plan_addresses
from iaas.services.network_changes import again_vpc, ref, refusal
from iaas.workflows.network_rows import leaving_scope

NOWHERE: dict[str, Any] = dict.fromkeys(("vpc_id", "cidr", "gateway", "dhcp_first", "dhcp_last"))
"""The columns of a subnet's place in a VPC, as they are for one in no VPC."""


def planned_place(
    vpc_cidr: str, cidr: str | None, gateway: str | None, dhcp_first: str | None, dhcp_last: str | None
) -> AddressPlan:
    """Return the place that is asked for in a VPC; raises InvalidInput. Its neighbours are not looked at."""
    if cidr is None:
        raise invalid("cidr", "required", "a subnet in a VPC needs a block of it")
    block = check_subnet_block(cidr, vpc_cidr)
    return plan_addresses(block, gateway=gateway, dhcp_first=dhcp_first, dhcp_last=dhcp_last)


def place_columns(vpc_id: str, plan: AddressPlan) -> dict[str, Any]:
    """Return the columns of a subnet with that place in a VPC."""
    return {
        "vpc_id": vpc_id,
        "cidr": plan.cidr,
        "gateway": plan.gateway,
        "dhcp_first": plan.dhcp_first,
        "dhcp_last": plan.dhcp_last,
    }


def changed_pool(current: Subnet, dhcp_first: str | None, dhcp_last: str | None) -> dict[str, Any]:
    """Return the columns of the pool that change; raises InvalidInput."""
    given = [(name, text) for name, text in (("dhcp_first", dhcp_first), ("dhcp_last", dhcp_last)) if text is not None]
    if not given:
        return {}
    if current.cidr is None or current.gateway is None or current.dhcp_first is None or current.dhcp_last is None:
        raise invalid(given[0][0], "excluded", "is for a subnet in a VPC; one in no VPC has no addresses")
    block = IPv4Network(current.cidr)
    pool = {
        "dhcp_first": check_host(current.dhcp_first if dhcp_first is None else dhcp_first, block, "dhcp_first"),
        "dhcp_last": check_host(current.dhcp_last if dhcp_last is None else dhcp_last, block, "dhcp_last"),
    }
    check_pool(pool["dhcp_first"], pool["dhcp_last"], IPv4Address(current.gateway))
    return {name: str(address) for name, address in pool.items() if str(address) != getattr(current, name)}


def hold_vpc(tx: Tx, vpc_id: str, plan: AddressPlan, action: str) -> None:
    """Hold an active VPC's row, and return when the block is free there; nobody takes it before the commit.

    Raises:
        InTransition, InvalidState, NotFound: the VPC is not active, or a subnet is about to leave the block.
        InvalidInput: the block overlaps a subnet's, or is where a route leads.
    """
    vpcs.lock(tx, vpc_id)
    vpc = again_vpc(tx, vpc_id)
    if vpc.status != NetworkStatus.ACTIVE or vpc.transition is not None:
        raise refusal(vpc, action)
    block = IPv4Network(plan.cidr)
    for other in subnets.of_vpc(tx.connection, vpc_id):
        if other.cidr is not None and block.overlaps(IPv4Network(other.cidr)):
            raise invalid("cidr", "overlaps", f"{block} overlaps {other.cidr} of subnet {other.id}")
    for cidr, leaver in shared.holders_in(tx.connection, leaving_scope(vpc_id)).items():
        if block.overlaps(IPv4Network(cidr)):
            message = f"subnet {leaver} is leaving the VPC and has {cidr} until then: wait for that job"
            raise InTransition(message, resource=ResourceRef("subnet", leaver))
    if shared.holder_of(tx.connection, scope=f"route:{vpc_id}", value=plan.cidr) is not None:
        raise invalid("cidr", "conflict", f"the VPC has a route for {block}: remove it first")


def claim_gateway(tx: Tx, subnet_id: str, plan: AddressPlan) -> None:
    """Take the gateway's address out of the pool. The scope is the subnet's own and still empty."""
    shared.claim(tx, scope=subnets.address_scope(subnet_id), value=plan.gateway, resource_id=subnet_id)


def give_addresses(tx: Tx, subnet: Subnet) -> None:
    """Give an address to each NIC of a subnet that has just joined its VPC.

    Raises:
        OutOfCapacity: there are not as many.
    """
    found = nics.on_subnet(tx.connection, subnet.id)
    if not found:
        return
    addresses = subnets.claim_addresses(tx, subnet, [nic.id for nic in found])
    if addresses is None:
        message = f"{subnet.dhcp_first} to {subnet.dhcp_last} are not enough for the {len(found)} NICs of the subnet"
        raise OutOfCapacity(message, resource=ref(subnet))
    for nic, address in zip(found, addresses, strict=True):
        nics.change(tx, nic.id, vpc_id=subnet.vpc_id, address=address)


def take_addresses(tx: Tx, before: Subnet) -> None:
    """Take the addresses of all NICs, and the gateway's, of a subnet that has just left its VPC.

    Its block stays taken until the router has let go of it.
    """
    assert before.vpc_id is not None and before.cidr is not None  # noqa: S101, PT018 - the caller has looked; for the type checker
    nics.leave_vpc(tx, before.id)
    shared.release_scope(tx, subnets.address_scope(before.id))
    shared.claim(tx, scope=leaving_scope(before.vpc_id), value=before.cidr, resource_id=before.id)


def refuse_inhabited(
    connection: Connection,
    subnet: Subnet,
    wish: str,
    *,
    only_addressed: bool = False,
    reservations_only: bool = False,
) -> None:
    """Return when nothing is on the subnet that stands against ``wish``.

    Args:
        only_addressed: NICs without addresses do not count.
        reservations_only: NICs do not count at all.

    Raises:
        InUse: something is; ``blockers`` names it.
    """
    inhabitants = [] if reservations_only else nics.on_subnet(connection, subnet.id)
    blockers = [ResourceRef("nic", nic.id) for nic in inhabitants if nic.addresses or not only_addressed]
    blockers += [ResourceRef("address_reservation", one.id) for one in reservations.of_subnet(connection, subnet.id)]
    if blockers:
        message = f"subnet {subnet.id} has {len(blockers)} NICs and address reservations that must go before {wish}"
        raise InUse(message, resource=ref(subnet), blockers=blockers)


def follow_routes(tx: Tx, principal: Principal, vpc_id: str, add_job: Callable[..., Job]) -> None:
    """Have the VPC applied again if it has routes: they may lead to a subnet that is about to go."""
    if vpc_entries.count_routes(tx.connection, vpc_id) and vpcs.change(tx, vpc_id):
        add_job(
            tx,
            action="vpc.apply",
            resource=ResourceRef("vpc", vpc_id),
            project_id=principal.project_id,
            request_id=principal.request_id,
        )
