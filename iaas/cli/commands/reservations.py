"""``iaas reservation``."""

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
    show,
)
from iaas.cli.output import Column
from iaas.cli.session import Session, command
from iaas.cli.waiting import WaitOption, WaitTimeoutOption, finish
from iaas.client import UNSET, AddressReservation
from iaas.client.jobs import DEFAULT_WAIT_S

RESERVATION = Noun[AddressReservation](
    word="address reservation",
    collection=lambda client: client.address_reservations,
    columns=(
        Column("ID", lambda reservation: reservation.id),
        Column("NAME", lambda reservation: reservation.name),
        Column("SUBNET", lambda reservation: reservation.subnet_id),
        Column("FIRST", lambda reservation: reservation.first),
        Column("LAST", lambda reservation: reservation.last),
    ),
    filters=("name", "subnet", "label", "sort"),
)


def add(app: typer.Typer) -> None:
    """Add the verbs of address reservations."""
    add_list(app, RESERVATION)
    add_get(app, RESERVATION)
    for function in (create, update, delete):
        command(app)(function)


def create(
    session: Session,
    subnet: Annotated[str, typer.Option(help="Name or id; in a VPC.")],
    name: OptionalNameArgument = None,
    address: Annotated[str | None, typer.Option(help="This one.")] = None,
    first: Annotated[str | None, typer.Option(metavar="ADDRESS", help="All from this one ...")] = None,
    last: Annotated[str | None, typer.Option(metavar="ADDRESS", help="... to this one.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="So many free ones in a row (1).")] = None,
    label: LabelOption = None,
    wait: WaitOption = False,
    wait_timeout: WaitTimeoutOption = DEFAULT_WAIT_S,
) -> None:
    """Reserve addresses for virtual IPs and pods: every NIC of yours on the subnet may answer for them.

    iaas reservation create pods --subnet web --count 50
    """
    with session.client() as client:
        action = client.address_reservations.create(
            subnet=subnet,
            name=name,
            address=address,
            first=first,
            last=last,
            count=count,
            labels=parse_labels(label) or None,
        )
        finish(session, RESERVATION, [action], wait=wait, wait_timeout_s=wait_timeout)


def update(
    session: Session,
    name: NameArgument,
    new_name: Annotated[str | None, typer.Option("--name", help="Its new name.")] = None,
    label: LabelOption = None,
    remove_label: RemoveLabelOption = None,
) -> None:
    """Rename an address reservation, or change its labels."""
    labels = changed_labels(label, remove_label)
    with session.client() as client:
        reservation = client.address_reservations.get(name)
        show(session, reservation.update(name=UNSET if new_name is None else new_name, labels=labels or UNSET))


def delete(
    session: Session, names: NamesArgument, wait: WaitOption = False, wait_timeout: WaitTimeoutOption = DEFAULT_WAIT_S
) -> None:
    """Give reserved addresses back."""
    with session.client() as client:
        actions = [each.delete() for each in [client.address_reservations.get(name) for name in names]]
        finish(session, RESERVATION, actions, wait=wait, wait_timeout_s=wait_timeout)
