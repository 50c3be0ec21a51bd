"""Rules by which a new instance is put on a host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from iaas.client.resource import label_selector


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementRule:
    """Which instances of the project: those named (ids or names), or those whose labels fit; one of the two.

    ``labels`` is a selector (``"a=b,!c"``) or a mapping of labels. A rule that is not ``strict`` is a wish.
    """

    instances: Sequence[str] = ()
    labels: Mapping[str, str] | str | None = None
    strict: bool = True

    def to_body(self) -> dict[str, Any]:
        body: dict[str, Any] = {"strict": self.strict}
        if self.instances:
            body["instances"] = list(self.instances)
        if (selector := label_selector(self.labels)) is not None:
            body["label_selector"] = selector
        return body


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """``affinity``: on a host with one of these; ``anti_affinity``: with none of them; ``host``: there (admins)."""

    affinity: PlacementRule | None = None
    anti_affinity: PlacementRule | None = None
    host: str | None = None

    def to_body(self) -> dict[str, Any]:
        body: dict[str, Any] = {}
        if self.affinity is not None:
            body["affinity"] = self.affinity.to_body()
        if self.anti_affinity is not None:
            body["anti_affinity"] = self.anti_affinity.to_body()
        if self.host is not None:
            body["host"] = self.host
        return body
