"""Labels and selectors, in the form that Kubernetes made known.

Source: Kubernetes documentation, "Labels and Selectors": a key is an optional DNS prefix and a slash, then
a name of at most 63 characters; a selector is a comma-separated list of requirements that must all hold.
Values may be longer here (255) and hold ``:/@+``, since cloud tools put paths and addresses into them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from iaas.kernel.errors import FieldError, InvalidInput

KEY = re.compile(r"^(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$")
VALUE = re.compile(r"^[A-Za-z0-9_.:/@+-]{0,255}$")
MAX_LABELS = 64
MAX_TERMS = 64  # each becomes a subquery, and databases bound the depth of a condition

_IN = re.compile(r"^(?P<key>\S+)\s+(?P<op>in|notin)\s+\((?P<values>[^()]*)\)$")


@dataclass(frozen=True, slots=True)
class LabelTerm:
    """One requirement: the key is there, with one of ``values`` if any are given; or not so, if ``negated``."""

    key: str
    values: tuple[str, ...] = ()
    negated: bool = False


def parse_selector(text: str) -> list[LabelTerm]:
    """Parse ``a=b,c!=d,e,!f,g in (h,i),j notin (k)``.

    Raises:
        InvalidInput: names ``label_selector`` and the part that is wrong.
    """
    if not text.strip():
        return []
    parts = _split(text)
    if len(parts) > MAX_TERMS:
        message = f"at most {MAX_TERMS} requirements"
        raise InvalidInput(f"label_selector: {message}", errors=[FieldError("label_selector", "too_many", message)])
    return [_term(part.strip()) for part in parts]


def _split(text: str) -> list[str]:
    return re.split(r",(?![^()]*\))", text)


def _term(part: str) -> LabelTerm:
    if match := _IN.fullmatch(part):
        values = tuple(value.strip() for value in match["values"].split(","))
        term = LabelTerm(match["key"], values, match["op"] == "notin")
    elif "!=" in part:
        key, _, value = part.partition("!=")
        term = LabelTerm(key.strip(), (value.strip(),), True)
    elif "=" in part:
        key, _, value = part.partition("=")
        term = LabelTerm(key.strip(), (value.removeprefix("=").strip(),))
    elif part.startswith("!"):
        term = LabelTerm(part[1:].strip(), (), True)
    else:
        term = LabelTerm(part)
    if not KEY.fullmatch(term.key) or not all(VALUE.fullmatch(value) for value in term.values):
        raise InvalidInput(
            f"label_selector: {part!r} is not a requirement such as a=b, !c",
            errors=[FieldError("label_selector", "invalid", f"{part!r} is not a requirement such as a=b, !c")],
        )
    return term


def fits(labels: Mapping[str, str], terms: Sequence[LabelTerm]) -> bool:
    """Return whether labels satisfy all of a selector's terms."""
    return all(
        (term.key in labels and (not term.values or labels[term.key] in term.values)) != term.negated for term in terms
    )


def check_labels(labels: dict[str, str]) -> None:
    """Accept a set of labels, or raise InvalidInput naming the label."""
    if len(labels) > MAX_LABELS:
        raise InvalidInput(
            f"labels: at most {MAX_LABELS}", errors=[FieldError("labels", "too_many", f"at most {MAX_LABELS} labels")]
        )
    for key, value in labels.items():
        if not KEY.fullmatch(key):
            message = "must be [prefix/]name, the name 1 to 63 of letters, digits, _ . -"
            raise InvalidInput(
                f"labels.{key[:80]}: {message}", errors=[FieldError(f"labels.{key}", "invalid_key", message)]
            )
        if not VALUE.fullmatch(value):
            message = "must be at most 255 of letters, digits, _ . : / @ + -"
            raise InvalidInput(
                f"labels.{key}: {message}", errors=[FieldError(f"labels.{key}", "invalid_value", message)]
            )
