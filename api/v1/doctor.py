"""/v1/doctor: does the database say what the backends have? For the operator."""

from __future__ import annotations

from typing import Any

from flask import Response
from flask.views import MethodView
from marshmallow import Schema, fields, validate

from iaas.api.idempotency import Reply, respond_after
from iaas.api.requests import Blueprint
from iaas.api.v1.schemas import NoBodySchema, RefSchema, Time
from iaas.api.wiring import cloud
from iaas.doctor.findings import Drift, Finding, Report

blp = Blueprint("doctor", __name__, description="Does the database say what the backends have?")


class FindingSchema(Schema):
    drift = fields.String(validate=validate.OneOf([drift.value for drift in Drift]))
    resource = fields.Nested(RefSchema)
    project_id = fields.String(allow_none=True)
    message = fields.String()
    repair = fields.String(allow_none=True, metadata={"description": "what a repair does; null: a person decides"})
    reason = fields.String(allow_none=True, metadata={"description": "why the repair just tried did not succeed"})


class ReportSchema(Schema):
    looked_at = Time(allow_none=True, metadata={"description": "null before the first look"})
    duration_s = fields.Float()
    checked = fields.Dict(keys=fields.String(), values=fields.Integer())
    unchecked = fields.Dict(
        keys=fields.String(), values=fields.String(), metadata={"description": "what did not answer, and why"}
    )
    findings = fields.List(fields.Nested(FindingSchema), metadata={"description": "what is wrong now"})
    omitted = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        metadata={"description": "how many more there are of each drift: a report holds a bounded number of findings"},
    )
    repaired = fields.List(fields.Nested(FindingSchema), metadata={"description": "what this call has repaired"})


_REPORT = ReportSchema()


@blp.route("/doctor")
class Doctor(MethodView):
    @blp.response(200, ReportSchema)
    def get(self) -> dict[str, Any]:
        """Show the last report; the doctor looks at the start, from time to time, and on request."""
        return _document(cloud().doctor.last)


@blp.route("/doctor/actions/check")
class Check(MethodView):
    @blp.arguments(NoBodySchema)
    @blp.response(200, ReportSchema)
    def post(self, body: dict[str, Any]) -> Response:
        """Look now. Changes nothing."""
        return respond_after(cloud().doctor.check, _reply)


@blp.route("/doctor/actions/repair")
class Repair(MethodView):
    @blp.arguments(NoBodySchema)
    @blp.response(200, ReportSchema)
    def post(self, body: dict[str, Any]) -> Response:
        """Look twice, repair what was wrong both times where that is safe, and show what is left."""
        return respond_after(cloud().doctor.repair, _reply)


def _reply(report: Report) -> Reply:
    return Reply(200, _REPORT.dump(_document(report)))


def _document(report: Report | None) -> dict[str, Any]:
    if report is None:
        nothing: dict[str, Any] = {"checked": {}, "unchecked": {}, "findings": [], "omitted": {}, "repaired": []}
        return {"looked_at": None, "duration_s": 0.0, **nothing}
    return {
        "looked_at": report.looked_at,
        "duration_s": round(report.duration_s, 3),
        "checked": dict(report.checked),
        "unchecked": dict(report.unchecked),
        "findings": [_finding(each, report.failed.get(each.key)) for each in report.findings],
        "omitted": dict(report.omitted),
        "repaired": [_finding(each, None) for each in report.repaired],
    }


def _finding(finding: Finding, reason: str | None) -> dict[str, Any]:
    return {
        "drift": finding.drift.value,
        "resource": {"type": finding.resource.type, "id": finding.resource.id},
        "project_id": finding.project_id,
        "message": finding.message,
        "repair": finding.repair,
        "reason": reason,
    }
