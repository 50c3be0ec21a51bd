"""Driver calls that let a NIC into its network, and put it out; shared by workflows of instances and of NICs."""

from __future__ import annotations

from iaas.db.repositories import instances, nics, subnets
from iaas.drivers.interface import NICSpec, NotFoundError, PermanentError
from iaas.resources.instances import InstanceTransition
from iaas.resources.networks import NIC, NICTransition
from iaas.workflows.framework import Context
from iaas.workflows.network_specs import port_spec, subnet_spec, vpc_spec


def ensure_port(ctx: Context, nic: NIC, *, hostname: str) -> None:
    """Make sure of the NIC's VPC, subnet and port.

    Raises:
        PermanentError: its subnet is gone.
    """
    ensure_subnet(ctx, nic.subnet_id)
    ctx.backend.networks.ensure_port(port_spec(nic, hostname=hostname))


def ensure_new_port(ctx: Context, nic: NIC, *, hostname: str) -> None:
    """As :func:`ensure_port`, for one of many new NICs: a simulated subnet that was ensured as it is, still is so.

    On a real host it may have been lost meanwhile, and a look costs little beside a machine.
    """
    with ctx.store.read() as connection:
        now = subnets.generations(connection, nic.subnet_id)
    if ctx.backend.blocking or now is None or ctx.ensured_subnets.get(nic.subnet_id) != now:
        ensure_port(ctx, nic, hostname=hostname)
        if now is not None:
            ctx.ensured_subnets[nic.subnet_id] = now
        return
    try:
        ctx.backend.networks.ensure_port(port_spec(nic, hostname=hostname))
    except NotFoundError:  # somebody has taken it all the same
        ensure_port(ctx, nic, hostname=hostname)


def take_back_port(ctx: Context, *, subnet_id: str, nic_id: str) -> None:
    """Remove a port that was just ensured, if its NIC is on its way out, or out, meanwhile.

    Who took it out may have removed the port before it was ensured, and would not come again.
    """
    with ctx.store.read() as connection:
        nic = nics.get(connection, nic_id)
        instance = instances.get(connection, nic.instance_id) if nic is not None and nic.instance_id else None
    goes = nic is not None and nic.transition == NICTransition.DETACHING
    if instance is None or goes or instance.transition == InstanceTransition.DELETING:
        ctx.backend.networks.remove_port(subnet_id, nic_id)


def ensure_subnet(ctx: Context, subnet_id: str) -> None:
    """Make sure of a subnet and its VPC, as they are applied."""
    with ctx.store.read() as connection:
        subnet = subnet_spec(connection, subnet_id)
        vpc = vpc_spec(connection, subnet.vpc_id) if subnet is not None and subnet.vpc_id is not None else None
    if subnet is None:
        raise PermanentError(f"subnet {subnet_id} is gone")
    if vpc is not None:
        ctx.backend.networks.ensure_vpc(vpc)
    ctx.backend.networks.ensure_subnet(subnet)


def nic_spec(nic: NIC, *, mtu: int = 1500) -> NICSpec:
    """Return what a compute driver must know of a NIC that has its place in an instance."""
    return NICSpec(nic_id=nic.id, subnet_id=nic.subnet_id, mac=nic.mac, device_index=nic.device_index or 0, mtu=mtu)
