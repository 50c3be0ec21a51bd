"""``iaas reachability``: would a packet arrive, and if not, what stops it?"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from iaas.cli.exit_status import CommandError, ExitStatus, printable
from iaas.cli.output import Column, write_json, write_table
from iaas.cli.session import Session, command
from iaas.client import NIC, AddressIn, Client, Hop, NotFound, Sighting

_COLUMNS = (
    Column[Hop]("WAY", lambda hop: "there" if hop.direction == "forward" else "back"),
    Column[Hop]("AT", lambda hop: f"{hop.element} {hop.id}"),
    Column[Hop]("PASSED", lambda hop: hop.passed),
    Column[Hop]("RULE", lambda hop: hop.rule),
    Column[Hop]("DETAIL", lambda hop: hop.detail),
)
_SEEN = (
    Column[Sighting]("WAY", lambda seen: seen.direction),
    Column[Sighting]("SEEN", lambda seen: f"{'going to' if seen.leaves else 'coming from'} {seen.place}"),
)
_END_HELP = "An instance, a NIC, or VPC/ADDRESS."


def add(app: typer.Typer) -> None:
    """Add the command."""
    command(app)(reachability)


def reachability(
    session: Session,
    source: Annotated[str, typer.Argument(metavar="FROM", help=_END_HELP)],
    target: Annotated[str, typer.Argument(metavar="TO", help=_END_HELP)],
    port: Annotated[int | None, typer.Option("--port", "-p", min=1, max=65535, help="Of the target.")] = None,
    protocol: Annotated[str | None, typer.Option(help="icmp, tcp or udp; tcp when a port is given.")] = None,
) -> None:
    """Say whether a packet arrives, and its answer comes back. The real backend sends one.

    The exit status is 1 when it does not.

    iaas reachability web-1 db-1 --port 5432
    """
    with session.client() as client:
        verdict = client.reachability.check(_end(client, source), _end(client, target), protocol=protocol, port=port)
    if session.is_json:
        write_json(verdict.raw)
    else:
        word = "reachable" if verdict.reachable else "not reachable"
        sys.stdout.write(f"{word} ({verdict.reason}): {printable(verdict.message)}\n")
        if verdict.path:
            write_table(_COLUMNS, verdict.path)
        if verdict.observed is not None:
            sys.stdout.write("seen on its way:\n")
            write_table(_SEEN, verdict.observed.sightings)
    if not verdict.reachable:
        raise typer.Exit(ExitStatus.ERROR)


def _end(client: Client, text: str) -> NIC | AddressIn | str:
    vpc, slash, address = text.partition("/")
    if slash:
        return AddressIn(vpc=vpc, address=address)
    try:
        return client.nics.get(text)
    except NotFound:
        nics = client.instances.get(text).nics
    if not nics:
        raise CommandError(f"instance {text} has no NIC")
    return nics[0].id
