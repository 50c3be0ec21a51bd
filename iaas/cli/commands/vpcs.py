"""``iaas vpc``, with ``vpc route`` and ``vpc record``."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from iaas.cli.exit_status import CommandError, ExitStatus
from iaas.cli.nouns import (
    CursorOption,
    LabelOption,
    LimitOption,
    NameArgument,
    NamesArgument,
    Noun,
    RemoveLabelOption,
    add_get,
    add_list,
    changed_labels,
    parse_labels,
    show,
    show_list,
)
from iaas.cli.output import Column
from iaas.cli.session import Session, command
from iaas.cli.waiting import WaitOption, WaitTimeoutOption, finish
from iaas.client import UNSET, VPC, DHCPOptions, DNSForwarder, DNSRecord, Route
from iaas.client.jobs import DEFAULT_WAIT_S

VPC_NOUN = Noun[VPC](
    word="VPC",
    collection=lambda client: client.vpcs,
    columns=(
        Column("ID", lambda vpc: vpc.id),
        Column("NAME", lambda vpc: vpc.name),
        Column("STATUS", lambda vpc: f"{vpc.status} ({vpc.transition})" if vpc.transition else vpc.status),
        Column("CIDR", lambda vpc: vpc.cidr),
        Column("DOMAIN", lambda vpc: vpc.dns_domain),
        Column("CREATED", lambda vpc: vpc.created_at),
    ),
    filters=("name", "status", "label", "sort"),
)

VPCArgument = Annotated[str, typer.Argument(metavar="VPC", help="Its name or id.")]
OptionalNameArgument = Annotated[str | None, typer.Argument(metavar="NAME", help="Its id when absent.")]
ForwarderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--forward",
        metavar="DOMAIN=SERVER[,SERVER]",
        help="Ask these DNS servers in the VPC about a domain. Repeat for several.",
    ),
]
ServerOption = Annotated[list[str] | None, typer.Option(metavar="ADDRESS", help="Given by DHCP. Repeat for several.")]
LeaseOption = Annotated[int | None, typer.Option("--lease", metavar="SECONDS", help="Of DHCP (3600).")]


def add(app: typer.Typer) -> None:
    """Add the verbs of VPCs."""
    add_list(app, VPC_NOUN)
    add_get(app, VPC_NOUN)
    for function in (create, update, delete):
        command(app)(function)
    routes = typer.Typer(no_args_is_help=True)
    command(routes, "add")(add_route)
    command(routes, "list")(list_routes)
    command(routes, "delete")(delete_routes)
    app.add_typer(routes, name="route", help="Where packets for other destinations go.")
    records = typer.Typer(no_args_is_help=True)
    command(records, "add")(add_record)
    command(records, "list")(list_records)
    command(records, "delete")(delete_records)
    app.add_typer(records, name="record", help="Names in a VPC's DNS, beside those of instances.")


def create(
    session: Session,
    cidr: Annotated[str, typer.Option(help="Its block of addresses: 10.0.0.0/16.")],
    name: OptionalNameArgument = None,
    domain: Annotated[str | None, typer.Option(help="Of its guests' names (internal).")] = None,
    dns_server: ServerOption = None,
    ntp_server: ServerOption = None,
    lease_s: LeaseOption = None,
    forward: ForwarderOption = None,
    label: LabelOption = None,
    wait: WaitOption = False,
    wait_timeout: WaitTimeoutOption = DEFAULT_WAIT_S,
) -> None:
    """Create a VPC: an address space of its own, with a router.

    iaas vpc create shop --cidr 10.0.0.0/16 --wait
    """
    options = _options(DHCPOptions(), dns_server, ntp_server, lease_s)
    with session.client() as client:
        action = client.vpcs.create(
            cidr=cidr,
            name=name,
            dns_domain=domain,
            dhcp_options=options,
            forwarders=[_forwarder(each) for each in forward or ()],
            labels=parse_labels(label) or None,
        )
        finish(session, VPC_NOUN, [action], wait=wait, wait_timeout_s=wait_timeout)


def update(
    session: Session,
    name: NameArgument,
    new_name: Annotated[str | None, typer.Option("--name", help="Its new name.")] = None,
    domain: Annotated[str | None, typer.Option(help="Of its guests' names.")] = None,
    dns_server: ServerOption = None,
    ntp_server: ServerOption = None,
    lease_s: LeaseOption = None,
    forward: ForwarderOption = None,
    label: LabelOption = None,
    remove_label: RemoveLabelOption = None,
    wait: WaitOption = False,
    wait_timeout: WaitTimeoutOption = DEFAULT_WAIT_S,
) -> None:
    """Change a VPC. Servers and forwarders replace those there are; '' leaves none."""
    labels = changed_labels(label, remove_label)
    with session.client() as client:
        vpc = client.vpcs.get(name)
        options = _options(vpc.dhcp_options, dns_server, ntp_server, lease_s)
        change = vpc.update(
            name=UNSET if new_name is None else new_name,
            dns_domain=UNSET if domain is None else domain,
            dhcp_options=UNSET if options is None else options,
            forwarders=UNSET if forward is None else [_forwarder(each) for each in forward if each],
            labels=labels or UNSET,
        )
        if session.is_json or wait:
            finish(session, VPC_NOUN, [change], wait=wait, wait_timeout_s=wait_timeout)
        else:
            show(session, change.resource)


def delete(
    session: Session, names: NamesArgument, wait: WaitOption = False, wait_timeout: WaitTimeoutOption = DEFAULT_WAIT_S
) -> None:
    """Remove VPCs that have no subnets any more."""
    with session.client() as client:
        actions = [vpc.delete() for vpc in [client.vpcs.get(name) for name in names]]
        finish(session, VPC_NOUN, actions, wait=wait, wait_timeout_s=wait_timeout)


def _options(
    before: DHCPOptions, dns_servers: list[str] | None, ntp_servers: list[str] | None, lease_s: int | None
) -> DHCPOptions | None:
    if dns_servers is None and ntp_servers is None and lease_s is None:
        return None
    return replace(
        before,
        dns_servers=before.dns_servers if dns_servers is None else tuple(filter(None, dns_servers)),
        ntp_servers=before.ntp_servers if ntp_servers is None else tuple(filter(None, ntp_servers)),
        lease_s=before.lease_s if lease_s is None else lease_s,
    )


def _forwarder(text: str) -> DNSForwarder:
    domain, sign, servers = text.partition("=")
    if not sign or not domain or not servers:
        raise typer.BadParameter(f"{text!r} is not DOMAIN=SERVER[,SERVER]", param_hint="--forward")
    return DNSForwarder(domain=domain, servers=tuple(servers.split(",")))


# -- routes -----------------------------------------------------------------------------------------------------


def _routes(vpc: str) -> Noun[Route]:
    return Noun[Route](
        word="route",
        collection=lambda client: client.vpcs.routes_of(vpc),
        columns=(
            Column("ID", lambda route: route.id),
            Column("DESTINATION", lambda route: route.destination),
            Column("TARGET", lambda route: f"{route.target.type} {route.target.id or route.target.address}"),
            Column("NEXT HOP", lambda route: route.next_hop),
            Column("CREATED", lambda route: route.created_at),
        ),
    )


def add_route(
    session: Session,
    vpc: VPCArgument,
    destination: Annotated[str, typer.Argument(metavar="CIDR", help="For which packets.")],
    instance: Annotated[str | None, typer.Option(help="To its first NIC in the VPC (name or id).")] = None,
    nic: Annotated[str | None, typer.Option(help="To this NIC (name or id).")] = None,
    address: Annotated[str | None, typer.Option(help="To this address of the VPC.")] = None,
    wait: WaitOption = False,
    wait_timeout: WaitTimeoutOption = DEFAULT_WAIT_S,
) -> None:
    """Send a VPC's packets for a destination to an instance, a NIC or an address.

    iaas vpc route add shop 10.244.1.0/24 --instance node-1
    """
    with session.client() as client:
        action = client.vpcs.routes_of(vpc).add(destination, instance=instance, nic=nic, address=address)
        finish(session, _routes(vpc), [action], wait=wait, wait_timeout_s=wait_timeout)


def list_routes(session: Session, vpc: VPCArgument, limit: LimitOption = None, cursor: CursorOption = None) -> None:
    """List the routes of a VPC, beside those to its own subnets."""
    show_list(session, _routes(vpc), {}, limit=limit, cursor=cursor)


def delete_routes(
    session: Session,
    vpc: VPCArgument,
    routes: Annotated[list[str], typer.Argument(metavar="ID|CIDR...", help="A route, or its destination.")],
    wait: WaitOption = False,
    wait_timeout: WaitTimeoutOption = DEFAULT_WAIT_S,
) -> None:
    """Remove routes of a VPC."""
    with session.client() as client:
        collection = client.vpcs.routes_of(vpc)
        found = []
        for each in routes:
            if "/" not in each:
                found.append(collection.get(each))
            elif items := collection.list(destination=each).items:
                found += items
            else:
                raise CommandError(f"VPC {vpc} has no route for {each}", ExitStatus.NOT_FOUND)
        actions = [route.delete() for route in found]
        finish(session, _routes(vpc), actions, wait=wait, wait_timeout_s=wait_timeout)


# -- DNS records ------------------------------------------------------------------------------------------------


def _records(vpc: str) -> Noun[DNSRecord]:
    return Noun[DNSRecord](
        word="DNS record",
        collection=lambda client: client.vpcs.dns_records_of(vpc),
        columns=(
            Column("ID", lambda record: record.id),
            Column("NAME", lambda record: record.name),
            Column("TYPE", lambda record: record.type),
            Column("VALUES", lambda record: record.values),
            Column("TTL", lambda record: record.ttl_s),
        ),
    )


def add_record(
    session: Session,
    vpc: VPCArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="In the VPC's domain; with a dot at its end, in any.")],
    values: Annotated[list[str], typer.Argument(metavar="VALUE...", help="Addresses, one name, or texts.")],
    type: Annotated[str, typer.Option(help="A, CNAME or TXT.")] = "A",
    ttl_s: Annotated[int | None, typer.Option("--ttl", metavar="SECONDS", help="How long answers hold (60).")] = None,
    wait: WaitOption = False,
    wait_timeout: WaitTimeoutOption = DEFAULT_WAIT_S,
) -> None:
    """Give a name to addresses of a VPC.

    iaas vpc record add shop db 10.0.2.10
    """
    with session.client() as client:
        action = client.vpcs.dns_records_of(vpc).add(name, values, type=type, ttl_s=ttl_s)
        finish(session, _records(vpc), [action], wait=wait, wait_timeout_s=wait_timeout)


def list_records(session: Session, vpc: VPCArgument, limit: LimitOption = None, cursor: CursorOption = None) -> None:
    """List the DNS records of a VPC, beside the names of instances."""
    show_list(session, _records(vpc), {}, limit=limit, cursor=cursor)


def delete_records(
    session: Session,
    vpc: VPCArgument,
    records: Annotated[list[str], typer.Argument(metavar="ID...")],
    wait: WaitOption = False,
    wait_timeout: WaitTimeoutOption = DEFAULT_WAIT_S,
) -> None:
    """Remove DNS records of a VPC."""
    with session.client() as client:
        collection = client.vpcs.dns_records_of(vpc)
        actions = [record.delete() for record in [collection.get(each) for each in records]]
        finish(session, _records(vpc), actions, wait=wait, wait_timeout_s=wait_timeout)
