"""Bring what is applied of a subnet to the data plane: a changed configuration, or its joining or leaving a VPC.

Late jobs do no harm: each brings the newest there is.
"""

from __future__ import annotations

from dataclasses import replace

from iaas.db.repositories import instances, nics, shared, subnets
from iaas.db.store import Tx
from iaas.drivers.interface import NotFoundError, PermanentError, PortSpec
from iaas.kernel.errors import Failure
from iaas.resources.networks import NICTransition
from iaas.workflows import network_rows
from iaas.workflows.apply_vpc import bring_vpc
from iaas.workflows.framework import Context, Done, NeverCancel, Outcome, RowStep, Step, Workflow
from iaas.workflows.network_specs import port_spec, subnet_spec
from iaas.workflows.port_steps import take_back_port


def ensure_subnet(ctx: Context) -> Outcome:
    """Make sure of the subnet as it is applied; of one that is going, that this did not bring it back.

    It may leave its VPC, or go, while the driver is at it: the row is looked at again afterwards, as for VPCs.
    """
    subnet_id = ctx.job.resource.id
    with ctx.store.read() as connection:
        is_wanted = network_rows.is_wanted(subnets.get(connection, subnet_id))
        spec = subnet_spec(connection, subnet_id)
    if is_wanted and spec is not None:
        if spec.vpc_id is not None:
            bring_vpc(ctx, spec.vpc_id)
        try:
            ctx.backend.networks.ensure_subnet(spec)
        except NotFoundError:  # of its VPC: it has left that, and another job is to say so
            if not _is_late(ctx, subnet_id, spec.revision):
                raise
        with ctx.store.read() as connection:
            is_wanted = network_rows.is_wanted(subnets.get(connection, subnet_id))
    if not is_wanted:
        ctx.backend.networks.remove_subnet(subnet_id)
    return Done()


def ensure_ports(ctx: Context) -> Outcome:
    """Give the ports of attached NICs the addresses that they have now."""
    networks = ctx.backend.networks
    specs = _port_specs(ctx)
    try:
        for spec in specs:
            networks.ensure_port(spec)
    except PermanentError:
        # They may have changed addresses among each other: then first all let go of theirs.
        for spec in specs:
            networks.ensure_port(replace(spec, addresses=(), names=()))
        for spec in specs:
            networks.ensure_port(spec)
    for spec in specs:
        take_back_port(ctx, subnet_id=spec.subnet_id, nic_id=spec.nic_id)
    return Done()


def _port_specs(ctx: Context) -> list[PortSpec]:
    found = []
    with ctx.store.read() as connection:
        for nic in nics.on_subnet(connection, ctx.job.resource.id):
            if nic.instance_id is None or nic.transition == NICTransition.DETACHING:
                continue
            instance = instances.get(connection, nic.instance_id)
            if instance is not None:
                found.append(port_spec(nic, hostname=instance.hostname))
    return found


def _is_late(ctx: Context, subnet_id: str, revision: int) -> bool:
    with ctx.store.read() as connection:
        spec = subnet_spec(connection, subnet_id)
    return spec is None or spec.revision > revision


def mark_applied(tx: Tx, ctx: Context) -> None:
    network_rows.emit(tx, ctx, "applied")


def mark_joined(tx: Tx, ctx: Context) -> None:
    """From now on routes may lead to it."""
    subnet_id = ctx.job.resource.id
    subnets.change(tx, subnet_id, transition=None)
    network_rows.emit(tx, ctx, "joined")
    subnet = subnets.get(tx.connection, subnet_id)
    if subnet is not None and subnet.vpc_id is not None:
        network_rows.follow_subnet(tx, ctx, subnet.vpc_id)


def mark_left(tx: Tx, ctx: Context) -> None:
    """From now on others may have its block."""
    _end_leaving(tx, ctx)
    network_rows.emit(tx, ctx, "left")


def rest_as_left(tx: Tx, ctx: Context, failure: Failure) -> None:
    """The row says what shall be: it is in no VPC."""
    _end_leaving(tx, ctx)
    network_rows.emit_failure(tx, ctx, failure)


def _end_leaving(tx: Tx, ctx: Context) -> None:
    subnet_id = ctx.job.resource.id
    shared.release(tx, scope=network_rows.leaving_scope(ctx.input["vpc_id"]), resource_id=subnet_id)
    subnets.change(tx, subnet_id, transition=None)


def say_failed(tx: Tx, ctx: Context, failure: Failure) -> None:
    """The rows stay as they are: they say what shall be. The doctor names what the data plane lacks of it."""
    network_rows.emit_failure(tx, ctx, failure)


def rest_as_declared(tx: Tx, ctx: Context, failure: Failure) -> None:
    """As :func:`say_failed`, for a job that has a transition to end."""
    subnets.change(tx, ctx.job.resource.id, transition=None)
    network_rows.emit_failure(tx, ctx, failure)


WORKFLOW = Workflow(
    action="subnet.apply",
    steps=(
        Step("ensure_subnet", do=ensure_subnet),
        RowStep("mark_applied", do=mark_applied),
    ),
    on_failed=say_failed,
    cancel=NeverCancel(reason="the change is made already; change it back"),
)

JOIN = Workflow(
    action="subnet.join",
    steps=(
        Step("ensure_subnet", do=ensure_subnet),
        Step("ensure_ports", do=ensure_ports),
        RowStep("mark_joined", do=mark_joined),
    ),
    on_failed=rest_as_declared,
    cancel=NeverCancel(reason="the NICs of the subnet have their addresses already; let it leave again"),
)

LEAVE = Workflow(
    action="subnet.leave",
    steps=(
        Step("ensure_subnet", do=ensure_subnet),
        Step("ensure_ports", do=ensure_ports),
        RowStep("mark_left", do=mark_left),
    ),
    on_failed=rest_as_left,
    cancel=NeverCancel(reason="the NICs of the subnet have lost their addresses already"),
)
