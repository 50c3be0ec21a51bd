"""``iaas quota``."""

from __future__ import annotations

from typing import Annotated

import typer

from iaas.cli.output import Column, write_json, write_table
from iaas.cli.session import Session, command
from iaas.client import Quota

COLUMNS = (
    Column[Quota]("RESOURCE", lambda quota: quota.resource),
    Column[Quota]("USED", lambda quota: quota.used),
    Column[Quota]("LIMIT", lambda quota: quota.limit),
)


def add(app: typer.Typer) -> None:
    """Add the verbs of quotas."""

    @command(app, "list")
    def list_all(
        session: Session,
        project: Annotated[
            str | None,
            typer.Option("--project", metavar="NAME|ID", help="This project (others than one's own: admin)."),
        ] = None,
    ) -> None:
        """List what a project may have, and has."""
        with session.client() as client:
            _show(session, client.quotas.list(project=project))

    @command(app, "set")
    def set_limits(
        session: Session,
        project: Annotated[str, typer.Argument(metavar="PROJECT", help="Name or id.")],
        limits: Annotated[list[str], typer.Argument(metavar="RESOURCE=LIMIT...", help="default in place of a number.")],
    ) -> None:
        """Set limits of a project (admin): instances=10 vcpus=default."""
        with session.client() as client:
            _show(session, client.quotas.update(project, dict(_limit(term) for term in limits)))


def _limit(term: str) -> tuple[str, int | None]:
    name, _, value = term.partition("=")
    if not name or not (value == "default" or (value.isascii() and value.isdigit() and len(value) <= 18)):
        raise typer.BadParameter(f"{term!r} is not RESOURCE=NUMBER or RESOURCE=default", param_hint="RESOURCE=LIMIT")
    return name, None if value == "default" else int(value)


def _show(session: Session, quotas: tuple[Quota, ...]) -> None:
    if session.is_json:
        items = [{"resource": each.resource, "limit": each.limit, "used": each.used} for each in quotas]
        write_json({"items": items, "next_cursor": None})
    else:
        write_table(COLUMNS, quotas)
