"""What goes to standard output: aligned tables for people, JSON exactly as the API gave it for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar

from iaas.cli.exit_status import printable

T = TypeVar("T")
_GAP = "   "
_STYLES = {
    "running": "green",
    "succeeded": "green",
    "available": "green",
    "up": "green",
    "pending": "yellow",
    "queued": "yellow",
    "draining": "yellow",
    "failed": "red",
    "down": "red",
    "cancelled": "red",
    "stopped": "dim",
}


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"


@dataclass(frozen=True)  # no slots: Python 3.11 cannot make a slotted, frozen Generic[X](...)
class Column(Generic[T]):
    """One column of a table: its head, and what it shows of a row."""

    head: str
    value: Callable[[T], object]


def write_json(value: object) -> None:
    """Write ``value`` for programs; pure ASCII where standard output cannot hold more."""
    plain = "utf" not in (sys.stdout.encoding or "").lower()
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=plain) + "\n")


def write_table(columns: Sequence[Column[T]], rows: Iterable[T]) -> None:
    """Write a table: coloured and fitted to the window on a terminal, plain aligned lines elsewhere."""
    heads = [column.head for column in columns]
    cells = [[text_of(column.value(row)) for column in columns] for row in rows]
    if sys.stdout.isatty():
        _write_rich(heads, cells)
        return
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    for line in (heads, *cells):
        padded = _GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        sys.stdout.write(padded.rstrip() + "\n")


def write_details(fields: Mapping[str, Any]) -> None:
    """Write one resource, a field a line, all that the API gave."""
    width = max((len(name) for name in fields), default=0)
    for name, value in fields.items():
        sys.stdout.write(f"{printable(name).ljust(width)}{_GAP}{text_of(value)}".rstrip() + "\n")


def text_of(value: object) -> str:
    """Return a cell: ``-`` for nothing, times in UTC, lists with commas, labels as ``a=b``."""
    if value is None or value in ("", (), [], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, Mapping):
        return ", ".join(f"{printable(str(name))}={text_of(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        nested = any(isinstance(each, Mapping) for each in value)
        return ("; " if nested else ", ").join(text_of(each) for each in value)
    return printable(str(value))


def _write_rich(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    # Only a terminal pays for loading it, and a script that reads a pipe does not wait.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        table.add_column(head, overflow="fold")
    for line in cells:
        # Text, not str: a name such as "[red]" is a name and no markup.
        table.add_row(*(Text(cell, style=_STYLES.get(cell.partition(" ")[0], "")) for cell in line))
    Console(highlight=False).print(table)
