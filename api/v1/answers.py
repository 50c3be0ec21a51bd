"""Answers that several collections give alike: one resource with its ETag, and what was accepted with a job."""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

from flask import Response, jsonify
from marshmallow import Schema, fields

from iaas.api.idempotency import Reply, respond
from iaas.api.v1.jobs import JobSchema
from iaas.resources.jobs import Job


class Generational(Protocol):
    """A resource whose changes are counted."""

    @property
    def id(self) -> str: ...
    @property
    def generation(self) -> int: ...


G = TypeVar("G", bound=Generational)

_JOB = JobSchema()


class JobAcceptedSchema(Schema):
    job = fields.Nested(JobSchema)


def accepted_schema(word: str, item: type[Schema]) -> type[Schema]:
    """Return the schema of ``{"<word>": {...}, "job": {...}}``."""
    name = item.__name__.removesuffix("Schema") + "Accepted"
    members = {word: fields.Nested(item), "job": fields.Nested(JobSchema)}
    return Schema.from_dict(members, name=name)  # type: ignore[arg-type]  # the library's own signature is narrower


def accepted_job(job: Job) -> Reply:
    """Return the answer to what leaves no resource to show."""
    return Reply(202, {"job": _JOB.dump(job)})


class Answers(Generic[G]):
    """How resources of one type are answered with.

    Args:
        word: the member that holds one (``"vpc"``).
        path: of their collection.
        schema: theirs.
    """

    def __init__(self, word: str, path: str, schema: type[Schema]) -> None:
        self._word = word
        self._path = path
        self._schema = schema()

    def one(self, value: G) -> Response:
        """Return 200 with the resource and its ETag."""
        response = jsonify(self._schema.dump(value))
        response.headers["ETag"] = f'"{value.generation}"'
        return response

    def made(self, value: G) -> Reply:
        """Return 201 with the resource."""
        document: dict[str, Any] = self._schema.dump(value)
        return Reply(201, document, f"{self._path}/{value.id}")

    def accepted(self, result: tuple[G, Job]) -> Reply:
        """Return 202 with the resource and the job that goes on."""
        value, job = result
        document = {self._word: self._schema.dump(value), "job": _JOB.dump(job)}
        return Reply(202, document, f"{self._path}/{value.id}")

    def changed(self, result: tuple[G, Job | None]) -> Response:
        """Return 200 with the resource when its change is done, 202 with the job when a backend must follow."""
        value, job = result
        if job is None:
            return self.one(value)
        response = respond(lambda: (value, job), self.accepted)
        response.headers["ETag"] = f'"{value.generation}"'
        return response
