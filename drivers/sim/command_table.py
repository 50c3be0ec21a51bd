"""Tables of the programs in simulated guests, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from iaas.drivers.sim.shell import Outcome

if TYPE_CHECKING:
    from iaas.drivers.sim.guest import Guest

USAGE = 2


class OutOfTimeError(Exception):
    """The command has used up the time it was given."""


Command = Callable[["Guest", list[str], bytes], Outcome]


class CommandTable(dict[str, Command]):
    """Programs by name."""

    def add(self, *names: str) -> Callable[[Command], Command]:
        """Return a decorator that makes a function the program of these names."""

        def register(function: Command) -> Command:
            self.update(dict.fromkeys(names, function))
            return function

        return register


def encoded(content: str) -> bytes:
    """Return output as bytes; what came in as bytes and is no text goes out as it was."""
    return content.encode(errors="surrogateescape")


def wrong(name: str, message: str, exit_code: int = USAGE) -> Outcome:
    """Return how a program ends that was used wrongly."""
    return Outcome(exit_code, b"", f"{name}: {message}\n".encode(errors="replace"))


def options_of(arguments: list[str], known: str) -> tuple[set[str], list[str]] | None:
    """Return the single-letter options and what follows them; None when one is not ``known``."""
    found: set[str] = set()
    for position, argument in enumerate(arguments):
        if argument == "--":
            return found, arguments[position + 1 :]
        if len(argument) < 2 or not argument.startswith("-"):
            return found, arguments[position:]
        if not set(argument[1:]) <= set(known):
            return None
        found |= set(argument[1:])
    return found, []
