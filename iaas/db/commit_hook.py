"""Something more to write in the commit that a service makes, known only to whoever called the service.

A caller sets the hook around its call; the first write of that call runs it after its own work, in the same
transaction. With group commit that happens in another thread, so the hook may use only what it brought along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from iaas.db.store import Tx

T = TypeVar("T")
Hook = Callable[["Tx", Any], None]

_hook: ContextVar[Hook | None] = ContextVar("commit_hook", default=None)


@contextmanager
def in_same_commit(hook: Hook) -> Iterator[None]:
    """Let ``hook`` run with the result of the first write that happens inside the block; it may raise to prevent it."""
    token = _hook.set(hook)
    try:
        yield
    finally:
        _hook.reset(token)


def with_hook(work: Callable[[Tx], T]) -> Callable[[Tx], T]:
    """Return ``work`` followed by the hook, if one is set; it is taken off, so that the next write has none."""
    hook = _hook.get()
    if hook is None:
        return work
    _hook.set(None)

    def both(tx: Tx) -> T:
        result = work(tx)
        hook(tx, result)
        return result

    return both
