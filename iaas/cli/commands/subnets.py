"""``iaas subnet``."""

from __future__ import annotations

from typing import Annotated

import typer

from iaas.cli.commands.vpcs import OptionalNameArgument
from iaas.cli.nouns import (
    LabelOption,
    NameArgument,
    NamesArgument,
    Noun,
    RemoveLabelOption,
    add_get,
    add_list,
    changed_labels,
    parse_labels,
)
from iaas.cli.output import Column
from iaas.cli.session import Session, command
from iaas.cli.waiting import WaitOption, WaitTimeoutOption, finish
from iaas.client import UNSET, Subnet
from iaas.client.jobs import DEFAULT_WAIT_S

SUBNET = Noun[Subnet](
    word="subnet",
    collection=lambda client: client.subnets,
    columns=(
        Column("ID", lambda subnet: subnet.id),
        Column("NAME", lambda subnet: subnet.name),
        Column(
            "STATUS", lambda subnet: f"{subnet.status} ({subnet.transition})" if subnet.transition else subnet.status
        ),
        Column("ZONE", lambda subnet: subnet.zone),
        Column("VPC", lambda subnet: subnet.vpc_id),
        Column("CIDR", lambda subnet: subnet.cidr),
        Column("GATEWAY", lambda subnet: subnet.gateway),
        Column("SHARED", lambda subnet: subnet.is_shared),
    ),
    filters=("name", "status", "zone", "vpc", "label", "sort"),
)

CIDROption = Annotated[str | None, typer.Option(help="A block inside the VPC's: 10.0.1.0/24.")]
GatewayOption = Annotated[str | None, typer.Option(metavar="ADDRESS", help="The first address when absent.")]
FirstOption = Annotated[str | None, typer.Option(metavar="ADDRESS", help="Where the pool of addresses begins.")]
LastOption = Annotated[str | None, typer.Option(metavar="ADDRESS", help="Where it ends.")]


def add(app: typer.Typer) -> None:
    """Add the verbs of subnets."""
    add_list(app, SUBNET)
    add_get(app, SUBNET)
    for function in (create, update, join, leave, delete):
        command(app)(function)


def create(
    session: Session,
    name: OptionalNameArgument = None,
    vpc: Annotated[str | None, typer.Option(help="Name or id; a bare segment when absent.")] = None,
    cidr: CIDROption = None,
    zone: Annotated[str | None, typer.Option()] = None,
    gateway: GatewayOption = None,
    dhcp_first: FirstOption = None,
    dhcp_last: LastOption = None,
    mtu: Annotated[int | None, typer.Option(help="Of its links (1500).")] = None,
    label: LabelOption = None,
    wait: WaitOption = False,
    wait_timeout: WaitTimeoutOption = DEFAULT_WAIT_S,
) -> None:
    """Create a subnet in a VPC, or a bare one that may join a VPC later.

    iaas subnet create web --vpc shop --cidr 10.0.1.0/24 --wait
    """
    with session.client() as client:
        action = client.subnets.create(
            name=name,
            zone=zone,
            vpc=vpc,
            cidr=cidr,
            gateway=gateway,
            dhcp_first=dhcp_first,
            dhcp_last=dhcp_last,
            mtu=mtu,
            labels=parse_labels(label) or None,
        )
        finish(session, SUBNET, [action], wait=wait, wait_timeout_s=wait_timeout)


def update(
    session: Session,
    name: NameArgument,
    new_name: Annotated[str | None, typer.Option("--name", help="Its new name.")] = None,
    dhcp_first: FirstOption = None,
    dhcp_last: LastOption = None,
    label: LabelOption = None,
    remove_label: RemoveLabelOption = None,
    wait: WaitOption = False,
    wait_timeout: WaitTimeoutOption = DEFAULT_WAIT_S,
) -> None:
    """Change a subnet's name, labels or pool; addresses that are given out stay."""
    labels = changed_labels(label, remove_label)
    with session.client() as client:
        change = client.subnets.get(name).update(
            name=UNSET if new_name is None else new_name,
            dhcp_first=UNSET if dhcp_first is None else dhcp_first,
            dhcp_last=UNSET if dhcp_last is None else dhcp_last,
            labels=labels or UNSET,
        )
        finish(session, SUBNET, [change], wait=wait, wait_timeout_s=wait_timeout)


def join(
    session: Session,
    name: NameArgument,
    vpc: Annotated[str, typer.Option(help="Name or id.")],
    cidr: Annotated[str, typer.Option(help="A block inside the VPC's: 10.0.1.0/24.")],
    gateway: GatewayOption = None,
    dhcp_first: FirstOption = None,
    dhcp_last: LastOption = None,
    wait: WaitOption = False,
    wait_timeout: WaitTimeoutOption = DEFAULT_WAIT_S,
) -> None:
    """Bring a bare subnet into a VPC; its NICs get addresses."""
    with session.client() as client:
        action = client.subnets.get(name).join(vpc, cidr, gateway=gateway, dhcp_first=dhcp_first, dhcp_last=dhcp_last)
        finish(session, SUBNET, [action], wait=wait, wait_timeout_s=wait_timeout)


def leave(
    session: Session,
    name: NameArgument,
    force: Annotated[bool, typer.Option("--force", help="Though NICs lose their addresses.")] = False,
    wait: WaitOption = False,
    wait_timeout: WaitTimeoutOption = DEFAULT_WAIT_S,
) -> None:
    """Take a subnet out of its VPC."""
    with session.client() as client:
        action = client.subnets.get(name).leave(force=force)
        finish(session, SUBNET, [action], wait=wait, wait_timeout_s=wait_timeout)


def delete(
    session: Session, names: NamesArgument, wait: WaitOption = False, wait_timeout: WaitTimeoutOption = DEFAULT_WAIT_S
) -> None:
    """Remove subnets that have neither NICs nor reservations."""
    with session.client() as client:
        actions = [subnet.delete() for subnet in [client.subnets.get(name) for name in names]]
        finish(session, SUBNET, actions, wait=wait, wait_timeout_s=wait_timeout)
