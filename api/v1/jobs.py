"""/v1/jobs."""

from __future__ import annotations

from typing import Any

from flask import Response
from flask.views import MethodView
from marshmallow import Schema, fields, validate

from iaas.api.idempotency import Reply, respond
from iaas.api.requests import Blueprint, principal
from iaas.api.v1.dumping import ValueSchema
from iaas.api.v1.schemas import REF, FailureSchema, NoBodySchema, PageQuery, Time, listing_schema, page
from iaas.api.wiring import cloud
from iaas.resources.jobs import Job, JobStatus

blp = Blueprint("jobs", __name__, description="Asynchronous actions.")

MAX_WAIT_S = 60


class ProgressSchema(Schema):
    step = fields.Integer(metadata={"description": "1-based; equals steps when the last one runs or all are done"})
    steps = fields.Integer()
    name = fields.String()
    message = fields.String()
    attempts = fields.Integer(metadata={"description": "how often the step has failed; it is tried again"})


class JobSchema(ValueSchema):
    id = fields.String()
    action = fields.String(metadata={"example": "instance.create"})
    status = fields.String(validate=validate.OneOf([status.value for status in JobStatus]))
    progress = fields.Nested(ProgressSchema)
    resources = fields.Method("list_resources", metadata={"type": "array", "items": REF})
    error = fields.Nested(FailureSchema, allow_none=True)
    cancel_requested = fields.Function(lambda job: job.cancel_requested_at is not None, metadata={"type": "boolean"})
    project_id = fields.String()
    created_at = Time()
    finished_at = Time(allow_none=True)

    def list_resources(self, job: Job) -> list[dict[str, str]]:
        return [{"type": job.resource.type, "id": job.resource.id}]


_JOB = JobSchema()


class JobQuery(PageQuery):
    sort = fields.String(load_default="-created_at", validate=validate.OneOf(["created_at", "-created_at"]))
    status = fields.String(validate=validate.OneOf([status.value for status in JobStatus]))
    action = fields.String(validate=validate.Length(1, 64))
    resource_id = fields.String(validate=validate.Length(1, 64))


class WaitQuery(Schema):
    wait = fields.Integer(
        load_default=0,
        validate=validate.Range(0, MAX_WAIT_S),
        metadata={"description": "seconds to wait for the end; the server may answer earlier when many wait"},
    )


@blp.route("/jobs")
class Jobs(MethodView):
    @blp.query(JobQuery)
    @blp.response(200, listing_schema(JobSchema))
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """List jobs, the newest first."""
        listing = query["listing"]
        return page(*cloud().jobs.list_page(principal(), listing, resource_id=query.get("resource_id")))


@blp.route("/jobs/<job_id>")
class OneJob(MethodView):
    @blp.query(WaitQuery)
    @blp.response(200, JobSchema)
    def get(self, query: dict[str, Any], job_id: str) -> Job:
        """Show a job; with ?wait= when it has ended, or after that many seconds."""
        return cloud().jobs.wait(principal(), job_id, timeout_s=query["wait"])


@blp.route("/jobs/<job_id>/actions/cancel")
class Cancel(MethodView):
    @blp.arguments(NoBodySchema)
    @blp.response(202, JobSchema)
    def post(self, body: dict[str, Any], job_id: str) -> Response:
        """Call a job off: what it has done is undone, and it ends as cancelled."""
        who, service = principal(), cloud().jobs
        return respond(lambda: service.cancel(who, job_id), lambda job: Reply(202, _JOB.dump(job)))
