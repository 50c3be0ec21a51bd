"""The CLI's ``iaas backup`` and ``iaas restore``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from iaas.cli.exit_status import CommandError


def register_backup(app: typer.Typer) -> None:
    @app.command("backup")
    def backup(
        to: Annotated[Path, typer.Option(help="The file to write; it must not exist.")],
        state: Annotated[Path | None, typer.Option(help="The state folder; that of 'iaas serve' when absent.")] = None,
    ) -> None:
        """Copy a simulated cloud into a file, its secrets included; the server may be running."""
        from iaas.api.backup import BackupError, back_up

        try:
            back_up(_folder(state), to.absolute())
        except BackupError as error:
            raise CommandError(str(error)) from error
        sys.stdout.write(f"{to}\n")


def register_restore(app: typer.Typer) -> None:
    @app.command("restore")
    def restore(
        source: Annotated[Path, typer.Argument(metavar="FILE", help="What 'iaas backup' wrote.")],
        state: Annotated[Path | None, typer.Option(help="The folder to make; it must not hold anything yet.")] = None,
    ) -> None:
        """Make a state folder out of a copy; then start a server on it."""
        from iaas.api.backup import BackupError
        from iaas.api.backup import restore as make

        target = _folder(state)
        try:
            make(source.absolute(), target)
        except BackupError as error:
            raise CommandError(str(error)) from error
        sys.stdout.write(f"{target}\n")


def _folder(state: Path | None) -> Path:
    from iaas.api.commands import default_state_dir

    return (state or default_state_dir("sim")).absolute()
