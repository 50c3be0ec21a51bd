"""/metrics, for Prometheus. It names no tenant's data, but what an operator sees: hosts, load, failures."""

from __future__ import annotations

from flask import Flask, Response, current_app, request

from iaas.api.wiring import cloud

PATH = "/metrics"
_OPEN = "IAAS_METRICS_OPEN"


def register(app: Flask, *, is_open: bool) -> None:
    """Add the page, for admins' credentials; for everybody when ``is_open``."""

    def metrics() -> Response:
        from iaas.metrics.recorder import CONTENT_TYPE

        return Response(cloud().metrics.text(), content_type=CONTENT_TYPE)

    app.config[_OPEN] = is_open
    app.add_url_rule(PATH, "metrics", metrics, methods=["GET"])


def is_open() -> bool:
    """Return whether the present request is for this page and needs no credential."""
    return request.path == PATH and bool(current_app.config[_OPEN])
