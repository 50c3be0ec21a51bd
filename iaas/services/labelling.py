"""Changing labels."""

from __future__ import annotations

from iaas.kernel.labels import check_labels


def merged_labels(labels: dict[str, str], patch: dict[str, str | None] | None) -> dict[str, str]:
    """Return ``labels`` after a merge patch (a null removes). Source: RFC 7396."""
    merged = dict(labels)
    for key, value in (patch or {}).items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = value
    check_labels(merged)
    return merged
