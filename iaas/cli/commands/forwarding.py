"""``iaas forward`` and ``iaas instance forward``: ports of this machine that lead to ports of guests."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Annotated

import typer

from iaas.cli.exit_status import CommandError, one_line
from iaas.cli.nouns import NameArgument
from iaas.cli.session import Session, command
from iaas.client import AddressIn, Client, IaasError, Instance

PortsArgument = Annotated[
    list[str],
    typer.Argument(metavar="[[ADDRESS:]LOCAL:]REMOTE...", help="Port 0, or none, is any free one; see --help."),
]


def add(app: typer.Typer) -> None:
    """Add ``iaas forward``."""
    command(app)(forward)


def add_to_instance(app: typer.Typer) -> None:
    """Add ``iaas instance forward``."""
    command(app, "forward")(forward_to_instance)


def forward(
    session: Session,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="An instance, or VPC/ADDRESS.")],
    ports: PortsArgument,
) -> None:
    """Lead ports of this machine to ports of an instance, or of any address in a VPC, until Ctrl-C.

    8080:80 leads 127.0.0.1:8080 to port 80, 0.0.0.0:8080:80 does so for the neighbours too, and 80 takes any free
    local port. One line for each goes to standard output when it can be used.

    iaas forward web-1 8080:80

    iaas forward shop/10.0.1.10 5432
    """
    wanted = [_parse_forward(each) for each in ports]
    with session.client() as client:
        vpc, slash, address = target.partition("/")
        if slash:
            _forward(client, AddressIn(vpc=client.vpcs.get(vpc).id, address=address), target, wanted)
        else:
            instance = client.instances.get(target)
            _forward(client, instance, instance.name or instance.id, wanted)


def forward_to_instance(session: Session, name: NameArgument, ports: PortsArgument) -> None:
    """Lead ports of this machine to ports of an instance, until Ctrl-C; see 'iaas forward'."""
    wanted = [_parse_forward(each) for each in ports]
    with session.client() as client:
        instance = client.instances.get(name)
        _forward(client, instance, instance.name or instance.id, wanted)


def _forward(client: Client, target: Instance | AddressIn, shown: str, wanted: list[tuple[str, int, int]]) -> None:
    # The SDK's sockets and threads; a command that only lists instances does not pay for loading them.
    from iaas.client.tunnel import Forwarder

    with ExitStack() as open_forwarders:
        forwarders = []
        for address, local_port, remote_port in wanted:
            try:
                made = Forwarder((address, local_port), client, target, remote_port, on_error=_report)
            except OSError as error:
                raise CommandError(f"cannot listen on {address}:{local_port}: {error.strerror}") from error
            forwarders.append(open_forwarders.enter_context(made))
            host, bound_port = made.address
            host = f"[{host}]" if ":" in host else host
            sys.stdout.write(f"{host}:{bound_port} -> {shown}:{remote_port}\n")
            sys.stdout.flush()
        for each in forwarders:
            each.wait()


def _parse_forward(text: str) -> tuple[str, int, int]:
    head, _, remote = text.rpartition(":")
    address, _, local = head.rpartition(":")
    try:
        local_port, remote_port = int(local or 0), int(remote)
    except ValueError:
        local_port, remote_port = -1, -1
    if not (0 <= local_port <= 65535 and 1 <= remote_port <= 65535):
        raise typer.BadParameter(f"{text!r} is not [[ADDRESS:]LOCAL:]REMOTE, with port numbers")
    return address.strip("[]") or "127.0.0.1", local_port, remote_port


def _report(error: IaasError) -> None:
    sys.stderr.write(f"iaas: {one_line(error)}\n")
    sys.stderr.flush()
