"""``iaas project | api-token | access-key``."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

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
from iaas.cli.output import Column
from iaas.cli.session import Session, command
from iaas.client import UNSET, AccessKey, APIToken, Project

PROJECT = Noun[Project](
    word="project",
    collection=lambda client: client.projects,
    columns=(
        Column("ID", lambda project: project.id),
        Column("NAME", lambda project: project.name),
        Column("DESCRIPTION", lambda project: project.description),
        Column("CREATED", lambda project: project.created_at),
    ),
)
API_TOKEN = Noun[APIToken](
    word="API token",
    collection=lambda client: client.api_tokens,
    columns=(
        Column("ID", lambda token: token.id),
        Column("NAME", lambda token: token.name),
        Column("PROJECT", lambda token: token.project_id),
        Column("ROLE", lambda token: token.role),
        Column("EXPIRES", lambda token: token.expires_at),
        Column("CREATED", lambda token: token.created_at),
    ),
    filters=("name", "sort"),
    has_unique_names=False,
)
ACCESS_KEY = Noun[AccessKey](
    word="access key",
    collection=lambda client: client.access_keys,
    columns=(
        Column("ID", lambda key: key.id),
        Column("NAME", lambda key: key.name),
        Column("PROJECT", lambda key: key.project_id),
        Column("ROLE", lambda key: key.role),
        Column("CREATED", lambda key: key.created_at),
    ),
    filters=("name", "sort"),
    has_unique_names=False,
)

NewNameArgument = Annotated[str, typer.Argument(metavar="NAME")]
RoleOption = Annotated[str | None, typer.Option(help="admin, member or reader.")]
ProjectOption = Annotated[str | None, typer.Option("--project", help="Another project than one's own (admin).")]


def add_project(app: typer.Typer) -> None:
    """Add the verbs of projects."""
    add_list(app, PROJECT)
    add_get(app, PROJECT)
    add_delete(app, PROJECT, help_text="Remove projects that own nothing any more (admin).")

    @command(app, "create")
    def create(
        session: Session,
        name: NewNameArgument,
        description: Annotated[str | None, typer.Option()] = None,
        label: LabelOption = None,
    ) -> None:
        """Make a project (admin)."""
        with session.client() as client:
            show(
                session,
                client.projects.create(name=name, description=description, labels=parse_labels(label) or None),
            )

    @command(app, "update")
    def update(
        session: Session,
        name: NameArgument,
        new_name: Annotated[str | None, typer.Option("--name", help="Its new name.")] = None,
        description: Annotated[str | None, typer.Option()] = None,
        label: LabelOption = None,
        remove_label: RemoveLabelOption = None,
    ) -> None:
        """Change a project's name, description or labels (admin)."""
        labels = changed_labels(label, remove_label)
        with session.client() as client:
            project = client.projects.get(name)
            changed = project.update(
                name=UNSET if new_name is None else new_name,
                description=UNSET if description is None else description,
                labels=labels or UNSET,
            )
            show(session, changed)


def add_api_token(app: typer.Typer) -> None:
    """Add the verbs of API tokens."""
    add_list(app, API_TOKEN)
    add_get(app, API_TOKEN)
    add_delete(app, API_TOKEN, help_text="Revoke API tokens.")

    @command(app, "create")
    def create(
        session: Session,
        name: NewNameArgument,
        role: RoleOption = None,
        project: ProjectOption = None,
        expires_at: Annotated[
            datetime | None, typer.Option(formats=["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d"], help="In UTC; never when absent.")
        ] = None,
    ) -> None:
        """Make an API token. It is shown now and never again."""
        expiry = None if expires_at is None else expires_at.replace(tzinfo=UTC)
        with session.client() as client:
            token = client.api_tokens.create(name=name, role=role, project=project, expires_at=expiry)
        show(session, token)
        _say_once("token")


def add_access_key(app: typer.Typer) -> None:
    """Add the verbs of access keys."""
    add_list(app, ACCESS_KEY)
    add_get(app, ACCESS_KEY)
    add_delete(app, ACCESS_KEY, help_text="Revoke access keys.")

    @command(app, "create")
    def create(session: Session, name: NewNameArgument, role: RoleOption = None, project: ProjectOption = None) -> None:
        """Make an access key for signed dialects. Its secret is shown now and never again."""
        with session.client() as client:
            key = client.access_keys.create(name=name, role=role, project=project)
        show(session, key)
        _say_once("secret access key")


def _say_once(what: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"Keep the {what}: it is not shown again.\n")
