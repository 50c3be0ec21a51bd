"""The command tree of ``iaas``: one noun per resource."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from iaas import __version__
from iaas.cli.plugins import Plugins
from iaas.cli.session import CredentialsOption, EndpointOption, OutputOption, Session, TokenOption


def _show_version(is_asked: bool) -> None:
    if is_asked:
        sys.stdout.write(f"iaas {__version__}\n")
        raise typer.Exit


def build_app(plugins: Plugins | None = None, *, with_nouns: bool = True) -> typer.Typer:
    """Return the whole application; commands of ``plugins`` join it when they are asked for.

    Without its nouns it has only those of ``plugins``: what ``iaas serve`` needs, which has to start in a second.
    """
    plugins = plugins or Plugins()
    app = typer.Typer(
        name="iaas",
        help="A cloud on one machine: VMs and container machines behind one API, simulated or real.",
        cls=plugins.group_class(),
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def options(
        ctx: typer.Context,
        endpoint: EndpointOption = None,
        token: TokenOption = None,
        credentials: CredentialsOption = None,
        output: OutputOption = None,
        version: bool = typer.Option(
            False, "--version", help="Show the version and exit.", is_eager=True, callback=_show_version
        ),
    ) -> None:
        session: Session = ctx.obj or Session()
        ctx.obj = session.with_options(endpoint=endpoint, token=token, credentials=credentials, output=output)

    if with_nouns:
        _add_nouns(app, plugins)
    plugins.attach(app)
    return app


def _add_nouns(app: typer.Typer, plugins: Plugins) -> None:
    from iaas.cli.commands import activity, forwarding, reachability

    for name, help_text, adders in _nouns():
        noun = typer.Typer(no_args_is_help=True, cls=plugins.group_class(name))
        for add in adders:
            add(noun)
        app.add_typer(noun, name=name, help=help_text)
    forwarding.add(app)
    reachability.add(app)
    activity.add_meta(app)


def _nouns() -> tuple[tuple[str, str, tuple[Callable[[typer.Typer], None], ...]], ...]:
    from iaas.cli.commands import (
        activity,
        catalog,
        identity,
        instance_access,
        instances,
        key_pairs,
        nics,
        quotas,
        reservations,
        subnets,
        vpcs,
    )

    return (
        ("instance", "Machines: VMs and container machines.", (instances.add, instance_access.add)),
        ("vpc", "Address spaces, each with its router.", (vpcs.add,)),
        ("subnet", "Layer-2 segments, in a VPC or bare.", (subnets.add,)),
        ("nic", "Network interfaces that come and go.", (nics.add,)),
        ("reservation", "Addresses for virtual IPs and pods.", (reservations.add,)),
        ("image", "What instances boot.", (catalog.add_image,)),
        ("flavor", "Named shapes.", (catalog.add_flavor,)),
        ("key-pair", "SSH keys that guests let in.", (key_pairs.add,)),
        ("zone", "Parts of the cloud that fail on their own.", (catalog.add_zone,)),
        ("host", "Machines that run instances (admin).", (catalog.add_host,)),
        ("project", "Owners of resources (admin).", (identity.add_project,)),
        ("quota", "How much a project may have, and has.", (quotas.add,)),
        ("api-token", "Credentials of this API.", (identity.add_api_token,)),
        ("access-key", "Credentials of signed dialects.", (identity.add_access_key,)),
        ("job", "Asynchronous actions and their outcome.", (activity.add_job,)),
        ("event", "What happened, in order.", (activity.add_event,)),
    )
