"""Structured logs on standard error: one line a fact, keys before words. See docs/logging.md.

The standard library's loggers (drivers use them, and other people's packages) go through the same processors, so
a driver's line names the request, job and step that it was made for.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from iaas.kernel.log_scope import merge_scope

# Chatty beyond any use at the level that is asked for: their lines are theirs, not ours.
_OTHERS_LEAST = logging.WARNING
_OURS = "iaas"


def configure(level: str, *, as_json: bool) -> None:
    """Set up logging for this process; ``level`` is a name of the standard library's."""
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Any] = [
        merge_scope,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer(default=str, ensure_ascii=False)
        if as_json
        else structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"])
    )
    structlog.configure(
        processors=[*shared, _without_none, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _without_none, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, _OTHERS_LEAST))
    logging.getLogger(_OURS).setLevel(number)


def _without_none(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Leave out what is not known: a job that no request asked for has no request id."""
    return {key: value for key, value in event.items() if value is not None}
