"""Commands that other packages add, such as ``serve`` and ``host check``, which need the server's code.

An entry point of the group ``iaas.commands`` names a function ``register(app: typer.Typer) -> None``. The entry
point's own name is the noun, or the command, that it adds to: ``iaas host check`` loads ``host`` and nothing else,
``iaas instance list`` loads nothing, so it is quick and works where the server's parts are missing; only
``iaas --help`` loads all.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterable
from typing import Any

import typer
from typer.core import TyperGroup

from iaas.cli.exit_status import CommandError, printable

GROUP = "iaas.commands"


def noun(app: typer.Typer, name: str, *, help: str | None = None) -> typer.Typer:
    """Return the sub-application ``iaas <name>``: the one that is there, or a new one with this ``help``."""
    for group in app.registered_groups:
        if group.name == name and group.typer_instance is not None:
            return group.typer_instance
    made = typer.Typer(no_args_is_help=True)
    app.add_typer(made, name=name, help=help)
    return made


class Plugins:
    """The entry points of one application, loaded when a command is asked for that it does not have itself."""

    def __init__(self, entry_points: Iterable[importlib.metadata.EntryPoint] | None = None) -> None:
        self._given = entry_points
        self._pending: dict[str, importlib.metadata.EntryPoint] | None = None
        self._app: typer.Typer | None = None

    def attach(self, app: typer.Typer) -> None:
        """Let the commands join ``app``."""
        self._app = app

    def load(self, name: str | None, *, is_needed: bool) -> bool:
        """Register the entry points called ``name`` (None: all) and return whether there were any left to.

        Raises:
            CommandError: one cannot be loaded, and ``is_needed``; otherwise a line on standard error says so.
        """
        pending = self._entry_points()
        wanted = [name] if name in pending else []
        for each in list(pending) if name is None else wanted:
            entry = pending.pop(each)
            try:
                entry.load()(self._app)
            except Exception as error:  # other people's code, loaded: it may break in any way
                message = f"the commands of {each!r} cannot be loaded: {type(error).__name__}: {printable(str(error))}"
                if is_needed:
                    raise CommandError(message) from error
                sys.stderr.write(f"iaas: {message}\n")
        return name is None or bool(wanted)

    def group_class(self, noun_name: str | None = None) -> type[TyperGroup]:
        """Return the class of the click group of ``iaas`` itself, or of one of its nouns."""
        plugins = self

        class PluginGroup(TyperGroup):
            def get_command(self, ctx: Any, cmd_name: str) -> Any:
                found = super().get_command(ctx, cmd_name)
                if found is None and plugins.load(noun_name or cmd_name, is_needed=True):
                    plugins.renew(self, noun_name)
                    found = super().get_command(ctx, cmd_name)
                return found

            def list_commands(self, ctx: Any) -> list[str]:
                if plugins.load(noun_name, is_needed=False):
                    plugins.renew(self, noun_name)
                return super().list_commands(ctx)

        return PluginGroup

    def renew(self, group: TyperGroup, noun_name: str | None) -> None:
        """Give ``group`` the commands that its Typer application has by now."""
        if self._app is None:
            return
        root = typer.main.get_group(self._app)
        source: Any = root if noun_name is None else root.commands[noun_name]
        group.commands.update(source.commands)

    def _entry_points(self) -> dict[str, importlib.metadata.EntryPoint]:
        if self._pending is None:
            found = importlib.metadata.entry_points(group=GROUP) if self._given is None else self._given
            self._pending = {entry.name: entry for entry in found}
        return self._pending
