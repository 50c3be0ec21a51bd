"""The verbs that are alike for all nouns (list, get, delete), made from a table of columns."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Protocol, TypeVar

import typer

from iaas.cli.exit_status import CommandError, ExitStatus
from iaas.cli.output import Column, write_details, write_json, write_table
from iaas.cli.session import Session, command
from iaas.client import Client, Collection, NotFound, Resource

R = TypeVar("R", bound=Resource)
MOST_NAMED = 10  # of those that a name could mean

NameArgument = Annotated[str, typer.Argument(metavar="NAME|ID", help="What has no name goes by its id.")]
NamesArgument = Annotated[list[str], typer.Argument(metavar="NAME|ID...", help="What has no name goes by its id.")]
LabelOption = Annotated[list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="Repeat for several.")]
RemoveLabelOption = Annotated[
    list[str] | None, typer.Option("--remove-label", metavar="NAME", help="Repeat for several.")
]
SelectorOption = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="SELECTOR", help="Only with this label: a=b, a, !a. Repeat for several."),
]
SortOption = Annotated[str | None, typer.Option("--sort", metavar="FIELD", help="A leading - sorts downwards.")]
LimitOption = Annotated[int | None, typer.Option("--limit", help="One page of so many instead of all (at most 1000).")]
CursorOption = Annotated[str | None, typer.Option("--cursor", help="The page that next_cursor of the last one names.")]


# The filters a list may have: option, and the server's name for it. Those of a noun are in its ``filters``.
FILTERS: Mapping[str, tuple[str, Any]] = {
    "name": ("name", Annotated[str | None, typer.Option("--name", help="Only the one with this name.")]),
    "status": ("status", Annotated[str | None, typer.Option("--status", help="Only those in this status.")]),
    "kind": ("kind", Annotated[str | None, typer.Option("--kind", help="Only vm, or only container.")]),
    "zone": ("zone", Annotated[str | None, typer.Option("--zone", help="Only those in this zone.")]),
    "instance": ("instance", Annotated[str | None, typer.Option("--instance", help="Only those of this one.")]),
    "subnet": ("subnet", Annotated[str | None, typer.Option("--subnet", help="Only those on this one.")]),
    "vpc": ("vpc", Annotated[str | None, typer.Option("--vpc", help="Only those in this one.")]),
    "mac": ("mac", Annotated[str | None, typer.Option("--mac", help="Only the one with this MAC.")]),
    "address": ("address", Annotated[str | None, typer.Option("--address", help="Only those with this address.")]),
    "label": ("label_selector", SelectorOption),
    "action": ("action", Annotated[str | None, typer.Option("--action", help="Only this one: instance.create.")]),
    "resource": ("resource_id", Annotated[str | None, typer.Option("--resource", help="Only of this resource (id).")]),
    "resource_type": (
        "resource_type",
        Annotated[
            str | None, typer.Option("--resource-type", metavar="TYPE", help="Only of such resources (instance).")
        ],
    ),
    "type": (
        "type_prefix",
        Annotated[
            str | None, typer.Option("--type", metavar="PREFIX", help="Only types that begin so (instance.del).")
        ],
    ),
    "after": ("after", Annotated[str | None, typer.Option("--after", help="Only those after this event (id).")]),
    "deleted": ("deleted", Annotated[bool | None, typer.Option("--deleted", help="Only those that are deleted.")]),
    "sort": ("sort", SortOption),
}


class Removable(Protocol):
    def delete(self) -> None: ...


@dataclass(frozen=True, kw_only=True)  # no slots: Python 3.11 cannot make a slotted, frozen Generic[X](...)
class Noun(Generic[R]):
    """One kind of resource on the command line."""

    word: str  # "key pair"
    collection: Callable[[Client], Collection[R]]
    columns: tuple[Column[R], ...]
    filters: tuple[str, ...] = ("name", "label", "sort")  # names in FILTERS
    has_unique_names: bool = True  # the server then takes a name in the place of an id


def add_list(app: typer.Typer, noun: Noun[R]) -> None:
    """Add ``list`` with the filters that the noun has."""

    def list_all(session: Session, /, limit: int | None, cursor: str | None, **given: Any) -> None:
        filters = {FILTERS[name][0]: ",".join(v) if isinstance(v, list) else v for name, v in given.items()}
        show_list(session, noun, filters, limit=limit, cursor=cursor)

    options = {name: FILTERS[name][1] for name in noun.filters} | {"limit": LimitOption, "cursor": CursorOption}
    keyword = inspect.Parameter.KEYWORD_ONLY
    list_all.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # read by inspect
        [
            inspect.Parameter("session", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Session),
            *(inspect.Parameter(name, keyword, annotation=each, default=None) for name, each in options.items()),
        ]
    )
    list_all.__annotations__ = {"session": Session, **options}
    command(app, "list", help=f"List {noun.word}s.")(list_all)


def add_get(app: typer.Typer, noun: Noun[R]) -> None:
    """Add ``get``."""

    @command(app, "get", help=f"Show one {noun.word} with all its fields.")
    def get(session: Session, name: NameArgument) -> None:
        with session.client() as client:
            show(session, get_one(client, noun, name))


def add_delete(app: typer.Typer, noun: Noun[Any], *, help_text: str) -> None:
    """Add ``delete`` for resources that are gone at once."""

    @command(app, "delete", help=help_text)
    def delete(session: Session, names: NamesArgument) -> None:
        with session.client() as client:
            for name in names:
                found: Removable = get_one(client, noun, name)
                found.delete()


def get_one(client: Client, noun: Noun[R], id_or_name: str) -> R:
    """Return one resource by its id or name; also by a name that need not be unique, if only one has it.

    Raises:
        NotFound: there is none.
        CommandError: several have the name.
    """
    collection = noun.collection(client)
    try:
        return collection.get(id_or_name)
    except NotFound:
        if noun.has_unique_names or not id_or_name:
            raise
        found = [each for each in collection.iterate(name=id_or_name) if each.name == id_or_name]
        if not found:
            raise
    if len(found) > 1:
        ids = ", ".join(each.id for each in found[:MOST_NAMED]) + (", ..." if len(found) > MOST_NAMED else "")
        message = f"{len(found)} {noun.word}s are named {id_or_name}; give the id of one: {ids}"
        raise CommandError(message, ExitStatus.USAGE)
    return found[0]


def show_list(
    session: Session, noun: Noun[R], filters: dict[str, Any], *, limit: int | None, cursor: str | None
) -> None:
    """Write one page when a limit or cursor is given, all pages as one otherwise."""
    with session.client() as client:
        collection = noun.collection(client)
        if limit is not None or cursor is not None:
            page = collection.list(limit=limit, cursor=cursor, **filters)
            rows: Iterable[R] = page
            answer: Any = page.raw
        else:
            rows = list(collection.iterate(**filters))
            answer = {"items": [row.raw for row in rows], "next_cursor": None}
    if session.is_json:
        write_json(answer)
    else:
        write_table(noun.columns, rows)


def show(session: Session, resource: Resource) -> None:
    """Write one resource with all its fields."""
    if session.is_json:
        write_json(resource.raw)
    else:
        write_details(resource.raw)


def changed_labels(label: list[str] | None, remove_label: list[str] | None) -> dict[str, str | None]:
    """Return the merge patch of ``--label`` and ``--remove-label``; empty when neither was given."""
    return {**parse_labels(label), **dict.fromkeys(remove_label or ())}


def parse_labels(terms: list[str] | None) -> dict[str, str]:
    """Return ``["a=b"]`` as a mapping.

    Raises:
        typer.BadParameter: a term has no ``=``.
    """
    labels = {}
    for term in terms or ():
        name, sign, value = term.partition("=")
        if not sign or not name:
            raise typer.BadParameter(f"{term!r} is not NAME=VALUE", param_hint="--label")
        labels[name] = value
    return labels
