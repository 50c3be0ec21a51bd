"""What every log line inside a block is about: request, job, step.

One context variable that holds one mapping. It is set for every step of every job, so that must cost next to
nothing; who logs merges it in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

_NOTHING: Mapping[str, Any] = {}
_scope: ContextVar[Mapping[str, Any]] = ContextVar("iaas_log_scope", default=_NOTHING)


def in_scope(fields: Mapping[str, Any], function: Callable[[], T]) -> T:
    """Return what ``function`` returns; whatever it logs carries ``fields``, in place of those around it."""
    token = _scope.set(fields)
    try:
        return function()
    finally:
        _scope.reset(token)


def enter_scope(fields: Mapping[str, Any]) -> None:
    """Let everything that this thread logs from now on carry ``fields``, in place of those before."""
    _scope.set(fields)


def current_scope() -> Mapping[str, Any]:
    return _scope.get()


def merge_scope(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the present scope to a log line; what the line says itself stays. A processor of structlog."""
    for name, value in _scope.get().items():
        event.setdefault(name, value)
    return event
