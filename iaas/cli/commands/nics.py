"""``iaas nic``, and the NICs of ``iaas instance create``."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from iaas.cli.commands.vpcs import OptionalNameArgument
from iaas.cli.nouns import (
    LabelOption,
    NameArgument,
    Noun,
    RemoveLabelOption,
    add_delete,
    add_get,
    add_list,
    changed_labels,
    parse_labels,
    show,
)
from iaas.cli.output import Column, write_details, write_json
from iaas.cli.session import Session, command
from iaas.cli.waiting import WaitOption, WaitTimeoutOption, finish
from iaas.client import NIC, UNSET, AllowedPair, NICSpec
from iaas.client.jobs import DEFAULT_WAIT_S

NIC_NOUN = Noun[NIC](
    word="NIC",
    collection=lambda client: client.nics,
    columns=(
        Column("ID", lambda nic: nic.id),
        Column("NAME", lambda nic: nic.name),
        Column("STATUS", lambda nic: f"{nic.status} ({nic.transition})" if nic.transition else nic.status),
        Column("SUBNET", lambda nic: nic.subnet_id),
        Column("MAC", lambda nic: nic.mac),
        Column("ADDRESS", lambda nic: nic.address),
        Column("INSTANCE", lambda nic: nic.instance_id),
        Column("INDEX", lambda nic: nic.device_index),
    ),
    filters=("name", "status", "instance", "subnet", "vpc", "mac", "address", "label", "sort"),
)

SecondaryOption = Annotated[
    list[str] | None, typer.Option("--secondary", metavar="ADDRESS", help="One more address. Repeat for several.")
]
PairOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow", metavar="CIDR[,MAC]", help="What it may speak for, too: routed pods, say. Repeat for several."
    ),
]
NICOption = Annotated[
    list[str] | None,
    typer.Option(
        "--nic",
        metavar="KEY=VALUE,...",
        help="subnet=web,address=10.0.1.10 (or none), mac=, name=, secondary=, allow=; or nic=NAME. Repeatable.",
    ),
]
SubnetsOption = Annotated[
    list[str] | None, typer.Option("--subnet", metavar="NAME|ID", help="A NIC on this subnet. Repeat for several.")
]


def add(app: typer.Typer) -> None:
    """Add the verbs of NICs."""
    add_list(app, NIC_NOUN)
    add_get(app, NIC_NOUN)
    add_delete(app, NIC_NOUN, help_text="Remove NICs that no instance has.")
    for function in (create, update, attach, detach):
        command(app)(function)
    command(app, "stats")(statistics)


def create(
    session: Session,
    subnet: Annotated[str, typer.Option(help="Name or id.")],
    name: OptionalNameArgument = None,
    address: Annotated[
        str | None, typer.Option(help="Of the subnet; the next one of the pool when absent, 'none' for none.")
    ] = None,
    mac: Annotated[str | None, typer.Option(help="One is chosen when absent.")] = None,
    secondary: SecondaryOption = None,
    allow: PairOption = None,
    label: LabelOption = None,
) -> None:
    """Create a NIC that outlives the instances it is attached to.

    iaas nic create spare --subnet web --address 10.0.1.20
    """
    with session.client() as client:
        nic = client.nics.create(
            subnet=subnet,
            name=name,
            address=address,
            mac=mac,
            secondary_addresses=secondary or (),
            allowed_pairs=[parse_pair(each) for each in allow or ()],
            labels=parse_labels(label) or None,
        )
        show(session, nic)


def update(
    session: Session,
    name: NameArgument,
    new_name: Annotated[str | None, typer.Option("--name", help="Its new name.")] = None,
    address: Annotated[str | None, typer.Option(help="Another one of the subnet, or 'none'.")] = None,
    secondary: SecondaryOption = None,
    allow: PairOption = None,
    label: LabelOption = None,
    remove_label: RemoveLabelOption = None,
    wait: WaitOption = False,
    wait_timeout: WaitTimeoutOption = DEFAULT_WAIT_S,
) -> None:
    """Change a NIC. Secondary addresses and pairs replace those there are; '' leaves none."""
    labels = changed_labels(label, remove_label)
    with session.client() as client:
        change = client.nics.get(name).update(
            name=UNSET if new_name is None else new_name,
            address=UNSET if address is None else address,
            secondary_addresses=UNSET if secondary is None else [each for each in secondary if each],
            allowed_pairs=UNSET if allow is None else [parse_pair(each) for each in allow if each],
            labels=labels or UNSET,
        )
        finish(session, NIC_NOUN, [change], wait=wait, wait_timeout_s=wait_timeout)


def attach(
    session: Session,
    name: NameArgument,
    instance: Annotated[str, typer.Argument(metavar="INSTANCE", help="Its name or id; running or stopped.")],
    wait: WaitOption = False,
    wait_timeout: WaitTimeoutOption = DEFAULT_WAIT_S,
) -> None:
    """Attach a NIC to an instance."""
    with session.client() as client:
        action = client.nics.get(name).attach(instance)
        finish(session, NIC_NOUN, [action], wait=wait, wait_timeout_s=wait_timeout)


def detach(
    session: Session,
    name: NameArgument,
    wait: WaitOption = False,
    wait_timeout: WaitTimeoutOption = DEFAULT_WAIT_S,
) -> None:
    """Detach a NIC from its instance; it keeps addresses and MAC."""
    with session.client() as client:
        action = client.nics.get(name).detach()
        finish(session, NIC_NOUN, [action], wait=wait, wait_timeout_s=wait_timeout)


def statistics(session: Session, name: NameArgument) -> None:
    """Count bytes, packets and drops of a NIC since it was last plugged."""
    with session.client() as client:
        counted = dataclasses.asdict(client.nics.get(name).statistics())
    if session.is_json:
        write_json(counted)
    else:
        write_details(counted)


def wanted_nics(subnets: list[str] | None, nics: list[str] | None, *, none: bool) -> list[NICSpec] | None:
    """Return the NICs that ``instance create`` asks for; None when it says nothing of them.

    Raises:
        typer.BadParameter: they cannot be understood.
    """
    if none and (subnets or nics):
        raise typer.BadParameter("--no-nic goes with neither --nic nor --subnet")
    if subnets and nics:
        raise typer.BadParameter("give each NIC by --nic, or each by --subnet: their order counts")
    if none:
        return []
    if nics:
        return [parse_nic(each) for each in nics]
    return [NICSpec(subnet=each) for each in subnets] if subnets else None


def parse_nic(text: str) -> NICSpec:
    """Return ``subnet=web,address=10.0.1.10`` as a wish.

    Raises:
        typer.BadParameter: a part is no KEY=VALUE, or has a key that is not known or comes twice.
    """
    single: dict[str, str] = {}
    secondary: list[str] = []
    pairs: list[AllowedPair] = []
    for part in text.split(","):
        key, sign, value = part.partition("=")
        if not sign or not value:
            raise typer.BadParameter(f"{part!r} is not KEY=VALUE", param_hint="--nic")
        if key == "secondary":
            secondary.append(value)
        elif key == "allow":
            pairs.append(AllowedPair(cidr=value))
        elif key in ("subnet", "nic", "address", "mac", "name") and key not in single:
            single[key] = value
        else:
            raise typer.BadParameter(
                f"{key!r} is given twice, or none of subnet, nic, address, mac, name, secondary, allow",
                param_hint="--nic",
            )
    return NICSpec(
        subnet=single.get("subnet"),
        nic=single.get("nic"),
        address=single.get("address"),
        mac=single.get("mac"),
        name=single.get("name"),
        secondary_addresses=tuple(secondary),
        allowed_pairs=tuple(pairs),
    )


def parse_pair(text: str) -> AllowedPair:
    """Return ``CIDR`` or ``CIDR,MAC`` as a pair."""
    cidr, _, mac = text.partition(",")
    return AllowedPair(cidr=cidr, mac=mac or None)
