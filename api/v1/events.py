"""/v1/events: what happened, as pages of JSON or as server-sent events."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

from flask import Response, request
from flask.views import MethodView
from marshmallow import Schema, fields, validate

from iaas.api.requests import Blueprint, principal
from iaas.api.v1.dumping import ValueSchema
from iaas.api.v1.schemas import RefSchema, Time, listing_schema, page
from iaas.api.wiring import cloud
from iaas.kernel.clock import rfc3339
from iaas.kernel.errors import FieldError, InvalidInput
from iaas.resources.jobs import Event, EventFilter
from iaas.services.events import EventStream

blp = Blueprint("events", __name__, description="What happened, in order.")

STREAM_TYPE = "text/event-stream"
HEARTBEAT_S = 15.0  # a vanished client is noticed when something is sent, so this frees its thread
RETRY_MS = 2000
_EVENT_ID = re.compile(r"^[0-9]{1,18}$")


class EventSchema(ValueSchema):
    id = fields.String()
    type = fields.String(metadata={"example": "instance.created"})
    resource = fields.Nested(RefSchema)
    project_id = fields.String(
        allow_none=True, metadata={"description": "null: the operators' business (hosts, the doctor), seen by admins"}
    )
    generation = fields.Integer(allow_none=True)
    job_id = fields.String(allow_none=True)
    request_id = fields.String(allow_none=True)
    data = fields.Dict()
    created_at = Time()


class EventQuery(Schema):
    after = fields.String(
        load_default="0",
        validate=validate.Regexp(_EVENT_ID, error="Must be an event's id."),
        metadata={"description": "the id of the last event seen; 0 begins with the oldest that is kept"},
    )
    limit = fields.Integer(
        load_default=100, validate=validate.Range(1, 1000), metadata={"description": "of a page; a stream has none"}
    )
    resource_id = fields.String(validate=validate.Length(1, 64))
    resource_type = fields.String(validate=validate.Length(1, 32), metadata={"example": "instance"})
    type_prefix = fields.String(
        validate=validate.Length(1, 64), metadata={"description": "only types that begin so", "example": "instance.cre"}
    )


@blp.route("/events")
class Events(MethodView):
    @blp.query(EventQuery)
    @blp.alt_response(410)
    @blp.response(200, listing_schema(EventSchema))
    def get(self, query: dict[str, Any]) -> Any:
        """List events after an id, the oldest first; next_cursor is the id to go on from.

        With `Accept: text/event-stream` the answer is a stream of server-sent events that goes on as things
        happen, resumed by the `Last-Event-ID` header or `after`.
        """
        only = EventFilter(
            resource_id=query.get("resource_id"),
            resource_type=query.get("resource_type"),
            type_prefix=query.get("type_prefix"),
        )
        if _wants_stream():
            stream = cloud().events.follow(principal(), after=_resume_after(query["after"]), only=only)
            response = Response(StreamBody(stream), mimetype=STREAM_TYPE)
            # A body of our own kind is not touched by flask-smorest; caches and proxies must not gather it either.
            response.headers["Cache-Control"] = "no-store"
            response.headers["X-Accel-Buffering"] = "no"
            return response
        found = cloud().events.list_after(principal(), after=int(query["after"]), limit=query["limit"], only=only)
        return page(found, str(found[-1].id) if len(found) == query["limit"] else None)


def _wants_stream() -> bool:
    if request.method == "HEAD":
        return False
    return request.accept_mimetypes.best_match(["application/json", STREAM_TYPE]) == STREAM_TYPE


def _resume_after(given: str) -> int:
    """Return where to go on: browsers name it by a header when they connect again, and that is newer."""
    last = request.headers.get("Last-Event-ID", "")
    if not last:
        return int(given)
    if not _EVENT_ID.match(last):
        message = "must be an event's id"
        raise InvalidInput(f"Last-Event-ID: {message}", errors=[FieldError("Last-Event-ID", "invalid", message)])
    return int(last)


class StreamBody(Iterator[bytes]):
    """The body of a stream; an object and not a generator, because a generator that never began closes nothing."""

    def __init__(self, stream: EventStream) -> None:
        self._stream = stream
        self._began = False
        self._sent_at_s = time.monotonic()

    def __next__(self) -> bytes:
        if not self._began:  # at once, so that the client has its answer before anything happens
            self._began = True
            return f"retry: {RETRY_MS}\n\n".encode()
        while True:
            left_s = HEARTBEAT_S - (time.monotonic() - self._sent_at_s)
            found = self._stream.next(timeout_s=max(0.0, left_s))
            if found is None:
                self.close()
                raise StopIteration
            if found or left_s <= 0:
                self._sent_at_s = time.monotonic()
                return b"".join(map(_frame, found)) or b": nothing new\n\n"

    def close(self) -> None:
        self._stream.close()


def _frame(event: Event) -> bytes:
    document = {
        "id": str(event.id),
        "type": event.type,
        "resource": {"type": event.resource.type, "id": event.resource.id},
        "project_id": event.project_id,
        "generation": event.generation,
        "job_id": event.job_id,
        "request_id": event.request_id,
        "data": event.data,
        "created_at": rfc3339(event.created_at),
    }
    # JSON on one line: a line end inside would end the field.
    return f"id: {event.id}\ndata: {json.dumps(document, ensure_ascii=False)}\n\n".encode()
