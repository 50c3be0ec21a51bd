"""/v1/capabilities and /v1/health: open to everybody, so that clients can look before they ask."""

from __future__ import annotations

from typing import Any

from flask import current_app
from flask.views import MethodView
from marshmallow import Schema, fields

from iaas import __version__
from iaas.api.requests import Blueprint
from iaas.api.wiring import cloud
from iaas.db.repositories.query import Listing

blp = Blueprint("meta", __name__, description="What this server can do, and how it is.")

PROXY_URL = "IAAS_PROXY_URL"
DIALECTS = ("v1",)


class CapabilitiesSchema(Schema):
    version = fields.String()
    backend = fields.String()
    dialects = fields.List(fields.String())
    zones = fields.List(fields.String())
    proxy_url = fields.String(allow_none=True, metadata={"description": "HTTP CONNECT proxy that leads to guests"})
    compute = fields.Dict(keys=fields.String(), values=fields.List(fields.String()))
    networks = fields.List(fields.String())


class HealthSchema(Schema):
    status = fields.String(metadata={"description": "ok, or degraded when a backend does not answer"})
    backend = fields.String()
    problems = fields.Dict(keys=fields.String(), values=fields.String())


@blp.route("/capabilities")
class Capabilities(MethodView):
    @blp.doc(security=[])
    @blp.response(200, CapabilitiesSchema)
    def get(self) -> dict[str, Any]:
        """Show what this server and its backends can do."""
        backend = cloud().backend
        zones, _ = cloud().catalog.list_zones(Listing())
        return {
            "version": __version__,
            "backend": backend.name,
            "dialects": list(DIALECTS),
            "zones": sorted(zone.name for zone in zones),
            "proxy_url": current_app.config.get(PROXY_URL),
            "compute": {kind.value: sorted(driver.capabilities) for kind, driver in backend.compute.items()},
            "networks": sorted(backend.networks.capabilities),
        }


@blp.route("/health")
class Health(MethodView):
    @blp.doc(security=[])
    @blp.response(200, HealthSchema)
    def get(self) -> dict[str, Any]:
        """Show whether the backends answer."""
        problems = cloud().health.problems()
        return {"status": "degraded" if problems else "ok", "backend": cloud().backend.name, "problems": problems}
