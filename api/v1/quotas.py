"""/v1/quotas, and /v1/projects/{project}/quotas for the operator."""

from __future__ import annotations

from typing import Any

from flask.views import MethodView
from marshmallow import Schema, fields, validate

from iaas.api.requests import Blueprint, principal
from iaas.api.v1.dumping import ValueSchema
from iaas.api.v1.schemas import StrictInteger, listing_schema, page
from iaas.api.wiring import cloud
from iaas.services.quotas import DEFAULTS, MAX_LIMIT, UNKNOWN

blp = Blueprint("quotas", __name__, description="How much a project may have.")


class QuotaSchema(ValueSchema):
    resource = fields.String(validate=validate.OneOf(list(DEFAULTS)))
    limit = fields.Integer()
    used = fields.Integer()


QuotaListSchema = listing_schema(QuotaSchema)
_LIMITS = {
    name: StrictInteger(
        allow_none=True,
        validate=validate.Range(0, MAX_LIMIT),
        metadata={"description": "null goes back to the default"},
    )
    for name in DEFAULTS
}


class _Limits(Schema):
    error_messages = {"unknown": UNKNOWN}  # noqa: RUF012 - the library's attribute


QuotaPatchSchema = _Limits.from_dict(_LIMITS, name="QuotaPatch")  # type: ignore[arg-type]  # as in schemas.py


@blp.route("/quotas")
class Quotas(MethodView):
    @blp.response(200, QuotaListSchema)
    def get(self) -> dict[str, Any]:
        """List the quotas of one's own project: limits, and what is in use."""
        return page(cloud().quotas.own(principal()), None)


@blp.route("/projects/<project>/quotas")
class ProjectQuotas(MethodView):
    @blp.response(200, QuotaListSchema)
    def get(self, project: str) -> dict[str, Any]:
        """List the quotas of a project; to others than admins only their own exists."""
        return page(cloud().quotas.of_project(principal(), project), None)

    @blp.arguments(QuotaPatchSchema)
    @blp.response(200, QuotaListSchema)
    def patch(self, body: dict[str, Any], project: str) -> dict[str, Any]:
        """Set limits of a project (admins, merge patch by name); below what is in use is allowed."""
        return page(cloud().quotas.update(principal(), project, body), None)
