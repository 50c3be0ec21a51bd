"""What every command needs: where the cloud is, as whom, and how to show what it says.

The global options may stand before the noun (``iaas -o json instance list``) or at the end, where the hand
is (``iaas instance list -o json``); the later one counts.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec, get_type_hints

import typer

from iaas.cli.output import Output
from iaas.client import Client

P = ParamSpec("P")
_PANEL = "Global options"

EndpointOption = Annotated[
    str | None, typer.Option("--endpoint", help="URL of the server [IAAS_ENDPOINT].", rich_help_panel=_PANEL)
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token", help="API token [IAAS_TOKEN]. Others can see it in the process list.", rich_help_panel=_PANEL
    ),
]
CredentialsOption = Annotated[
    Path | None,
    typer.Option("--credentials", help="The server's credentials file [IAAS_CREDENTIALS].", rich_help_panel=_PANEL),
]
OutputOption = Annotated[
    Output | None, typer.Option("--output", "-o", help="How to show results.", rich_help_panel=_PANEL)
]
_GLOBAL: dict[str, Any] = {
    "endpoint": EndpointOption,
    "token": TokenOption,
    "credentials": CredentialsOption,
    "output": OutputOption,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One run of the CLI. ``http`` is a stand-in for the network (tests)."""

    endpoint: str | None = None
    token: str | None = None
    credentials: Path | None = None
    output: Output = Output.TABLE
    http: Any = None

    @property
    def is_json(self) -> bool:
        """Whether results are for programs."""
        return self.output is Output.JSON

    def client(self) -> Client:
        """Return a client for the cloud that options, environment or file name; close it (``with``).

        Raises:
            ConfigurationError: none of them names one.
        """
        # One retry: a person at a terminal wants to know soon that nobody answers.
        return Client(self.endpoint, self.token, credentials_file=self.credentials, max_retries=1, http=self.http)

    def with_options(self, **options: Any) -> Session:
        """Return the session with those options that are not None."""
        return replace(self, **{name: value for name, value in options.items() if value is not None})


def command(
    app: typer.Typer, name: str | None = None, **settings: Any
) -> Callable[[Callable[Concatenate[Session, P], None]], Callable[Concatenate[Session, P], None]]:
    """Return a decorator that makes a function a command of ``app``: its first parameter is the ``Session``.

    The other parameters are Typer's; the global options join them. ``settings`` go to ``app.command``.
    """

    def register(function: Callable[Concatenate[Session, P], None]) -> Callable[Concatenate[Session, P], None]:
        hints = get_type_hints(function, include_extras=True)
        _, *own = inspect.signature(function).parameters.values()

        @functools.wraps(function)
        def run(ctx: typer.Context, **values: Any) -> None:
            options = {option: values.pop(option) for option in _GLOBAL}
            session: Session = ctx.obj or Session()
            function(session.with_options(**options), **values)  # type: ignore[call-arg]  # names checked by Typer

        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [
            inspect.Parameter("ctx", keyword, annotation=typer.Context),
            *(each.replace(kind=keyword, annotation=hints[each.name]) for each in own),
            *(inspect.Parameter(each, keyword, annotation=_GLOBAL[each], default=None) for each in _GLOBAL),
        ]
        # Typer reads both; the wrapped function's own are strings that only its module can evaluate.
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by inspect
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        app.command(name, **settings)(run)
        return function

    return register
