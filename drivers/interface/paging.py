"""Listing a part of what there is, for drivers whose backend lists all or nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable


def chosen(ids: Iterable[str], *, only: Collection[str] | None, after: str, limit: int | None) -> list[str]:
    """Return the ids that a listing shows: sorted, behind ``after``, among ``only`` if given, at most ``limit``."""
    return sorted(each for each in ids if each > after and (only is None or each in only))[:limit]
