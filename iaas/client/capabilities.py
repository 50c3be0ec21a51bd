"""What a server says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from iaas.client.resource import STRINGS


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Named abilities of the server and its backend. ``compute`` maps each kind to what its machines can do;
    ``proxy_url`` leads into guests, None where nothing does."""

    version: str = ""
    backend: str = ""
    dialects: tuple[str, ...] = field(default=(), metadata=STRINGS)
    zones: tuple[str, ...] = field(default=(), metadata=STRINGS)
    proxy_url: str | None = None
    compute: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    networks: tuple[str, ...] = field(default=(), metadata=STRINGS)
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """``status`` is ``ok``, or ``degraded`` when a part does not answer; ``problems`` says which, and why."""

    status: str = ""
    backend: str = ""
    problems: Mapping[str, str] = field(default_factory=dict, hash=False)
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
