"""``iaas key-pair``."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from iaas.cli.exit_status import CommandError, ExitStatus
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
from iaas.client import UNSET, KeyPair

KEY_PAIR = Noun[KeyPair](
    word="key pair",
    collection=lambda client: client.key_pairs,
    columns=(
        Column("ID", lambda key: key.id),
        Column("NAME", lambda key: key.name),
        Column("FINGERPRINT", lambda key: key.fingerprint),
        Column("CREATED", lambda key: key.created_at),
    ),
)


def add(app: typer.Typer) -> None:
    """Add the verbs of key pairs."""
    add_list(app, KEY_PAIR)
    add_get(app, KEY_PAIR)
    add_delete(app, KEY_PAIR, help_text="Remove key pairs. Guests that know them already are not changed.")
    command(app, "create")(create)
    command(app, "update")(update)


def create(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    public_key: Annotated[
        str | None, typer.Option(metavar="FILE", help="A public key you have (- is standard input).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write the private key of a new pair (mode 0600).")
    ] = None,
    label: LabelOption = None,
) -> None:
    """Make a key pair from a public key, or a new one whose private key goes into a file.

    The server does not keep the private key: it is in the file, or nowhere.
    """
    if public_key is not None and out is not None:
        raise typer.BadParameter("--out is for a new private key; with --public-key there is none")
    if public_key is None and out is None and not session.is_json:
        raise typer.BadParameter("give --public-key FILE, or --out FILE for the private key of a new pair")
    text = _read(public_key) if public_key is not None else None
    with session.client() as client, _private_file(out) as descriptor:
        key = client.key_pairs.create(name=name, public_key=text, labels=parse_labels(label) or None)
        if descriptor is not None:
            if key.private_key is None:
                raise CommandError("the server sent no private key")
            with open(descriptor, "w", encoding="ascii", closefd=False) as file:
                file.write(key.private_key)
    if out is not None:
        key = replace(key, raw={field: value for field, value in key.raw.items() if field != "private_key"})
    show(session, key)


def update(
    session: Session,
    name: NameArgument,
    new_name: Annotated[str | None, typer.Option("--name", help="Its new name.")] = None,
    label: LabelOption = None,
    remove_label: RemoveLabelOption = None,
) -> None:
    """Rename a key pair, or change its labels."""
    labels = changed_labels(label, remove_label)
    with session.client() as client:
        key = client.key_pairs.get(name)
        show(session, key.update(name=new_name or UNSET, labels=labels or UNSET))


def _read(path: str) -> str:
    data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    text = data.decode("utf-8", "replace").strip()
    if "PRIVATE KEY" in text:  # the one mistake that must not leave this machine
        raise CommandError(f"{path} holds a private key; the public one is needed (.pub)", ExitStatus.USAGE)
    return text


@contextlib.contextmanager
def _private_file(path: Path | None) -> Iterator[int | None]:
    """Yield a descriptor of a new file for our eyes only, made before the key is, and removed if none came."""
    if path is None:
        yield None
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise CommandError(f"{path} is there already, and is not overwritten") from None
    try:
        yield descriptor
    except BaseException:  # Ctrl-C as well: an empty file must not look like a key
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
