"""``iaas instance console | exec | ssh | proxy``: what runs in an instance, from the user's shell.

The host has no leg in a guest's network; all but the first two go through the server's proxy.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import socket
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from iaas.cli.commands import forwarding
from iaas.cli.exit_status import CommandError
from iaas.cli.nouns import NameArgument
from iaas.cli.output import write_json
from iaas.cli.session import Session, command
from iaas.client import Client
from iaas.client.credentials import ENDPOINT_VARIABLE, FILE_VARIABLE, TOKEN_VARIABLE

_CHUNK_BYTES = 64 * 1024


def add(app: typer.Typer) -> None:
    """Add the verbs that reach into an instance."""
    command(app)(console)
    command(app, "exec")(execute)
    command(app)(ssh)
    forwarding.add_to_instance(app)
    command(app)(proxy)


def console(
    session: Session,
    name: NameArgument,
    tail_bytes: Annotated[int | None, typer.Option(help="How much of its end (65536).")] = None,
) -> None:
    """Show the end of the console output."""
    with session.client() as client:
        output = client.instances.get(name).console(tail_bytes=tail_bytes)
    if session.is_json:
        write_json({"output": output})
    else:
        sys.stdout.write(output if not output or output.endswith("\n") else output + "\n")


def execute(
    session: Session,
    name: NameArgument,
    arguments: Annotated[list[str], typer.Argument(metavar="-- COMMAND [ARGS]...")],
    timeout_s: Annotated[int, typer.Option("--timeout", metavar="SECONDS", help="At most 300.")] = 30,
    stdin: Annotated[bool, typer.Option("--stdin", "-i", help="Pass standard input on, up to its end.")] = False,
) -> None:
    """Run a command as root in the guest, without a shell in between.

    Its output, errors and exit status become this command's own: 127 when the guest has no such command, 124 when
    it took longer than the timeout. Put -- before a command that has options.
    """
    given = sys.stdin.read() if stdin else None
    with session.client() as client:
        result = client.instances.get(name).execute(arguments, timeout_s=timeout_s, stdin=given)
    if session.is_json:
        write_json(dataclasses.asdict(result))
    else:
        sys.stdout.write(result.stdout)
        sys.stdout.flush()
        sys.stderr.write(result.stderr)
        if result.truncated:
            sys.stderr.write("iaas: the output was longer and has been cut\n")
    raise typer.Exit(result.exit_code)


def ssh(
    session: Session,
    name: NameArgument,
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[-- COMMAND [ARGS]...]")] = None,
    identity: Annotated[Path | None, typer.Option("--identity", "-i", metavar="FILE", help="Private key.")] = None,
    login: Annotated[str, typer.Option("--login", "-l", metavar="USER")] = "root",
    port: Annotated[int, typer.Option("--port", "-p", min=1, max=65535)] = 22,
    check_host_key: Annotated[
        bool, typer.Option("--check-host-key", help="As ssh does by itself, with the known_hosts file.")
    ] = False,
) -> None:
    """Log in to an instance with the system's ssh, through the server's proxy.

    Host keys are not checked, and known_hosts is left alone: instances are made and thrown away, each with a new
    key, and the way to them is the server's own proxy. --check-host-key turns the check on.
    """
    program = shutil.which("ssh")
    if program is None:
        raise CommandError("there is no ssh on this machine; install OpenSSH's client")
    with session.client() as client:
        instance = client.instances.get(name)
        environment = os.environ | _environment(session, client)
    words = [
        program,
        "-o",
        f"ProxyCommand={_proxy_command()}",
        *(["-i", str(identity), "-o", "IdentitiesOnly=yes"] if identity else []),
        *([] if check_host_key else _NO_HOST_KEY_CHECK),
        *("-l", login, "-p", str(port), instance.id),
        *(arguments or ()),
    ]
    sys.stdout.flush()
    os.execve(program, words, environment)  # noqa: S606 - no shell; ssh takes our place, with terminal and signals


def proxy(
    session: Session,
    name: NameArgument,
    port: Annotated[int, typer.Argument(metavar="PORT", min=1, max=65535)],
) -> None:
    """Connect standard input and output to a port of an instance (ssh's ProxyCommand)."""
    from iaas.client.tunnel import open_tunnel

    with session.client() as client, open_tunnel(client, name, port) as tunnel:
        # A daemon: it may sit in a read of the terminal that nobody will ever end.
        threading.Thread(target=_send_stdin, args=(tunnel,), name="iaas-stdin", daemon=True).start()
        while chunk := tunnel.recv(_CHUNK_BYTES):
            _write_all(sys.stdout.fileno(), chunk)


_NO_HOST_KEY_CHECK = (
    *("-o", "StrictHostKeyChecking=no"),
    *("-o", f"UserKnownHostsFile={os.devnull}"),
    *("-o", "LogLevel=ERROR"),  # else ssh warns, each time, that it has added the key to that file
)


def _proxy_command() -> str:
    words = [sys.executable, "-m", "iaas.cli", "instance", "proxy"]
    # ssh expands % itself and hands the line to a shell.
    return " ".join([*(shlex.quote(word).replace("%", "%%") for word in words), "%h", "%p"])


def _environment(session: Session, client: Client) -> dict[str, str]:
    """Return what lets the proxy command find the same cloud; in the environment, where others cannot see the token."""
    found = {ENDPOINT_VARIABLE: client.credentials.endpoint}
    if client.credentials.api_token:
        found[TOKEN_VARIABLE] = client.credentials.api_token
    if session.credentials:
        found[FILE_VARIABLE] = str(session.credentials.absolute())
    return found


def _send_stdin(tunnel: socket.socket) -> None:
    try:
        while chunk := os.read(sys.stdin.fileno(), _CHUNK_BYTES):
            tunnel.sendall(chunk)
        tunnel.shutdown(socket.SHUT_WR)
    except OSError:
        # The other end has gone; the reading side sees that too, and ends the command.
        return


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
