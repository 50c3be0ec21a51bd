"""/v1/address_reservations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from flask import Response
from flask.views import MethodView
from marshmallow import Schema, fields, validate

from iaas.api.idempotency import Reply, respond
from iaas.api.requests import Blueprint, principal
from iaas.api.v1.answers import JobAcceptedSchema, accepted_job, accepted_schema
from iaas.api.v1.dumping import ValueSchema, page_response
from iaas.api.v1.jobs import JobSchema
from iaas.api.v1.network_fields import address_field, reference_field
from iaas.api.v1.schemas import (
    NAME,
    LabelledPageQuery,
    LabelsField,
    LabelsPatchField,
    StrictInteger,
    Time,
    listing_schema,
)
from iaas.api.wiring import cloud
from iaas.resources.jobs import Job
from iaas.resources.networks import AddressReservation

blp = Blueprint(
    "address_reservations", __name__, description="Addresses out of the pool, for virtual IPs and pods of any NIC."
)

MAX_COUNT = 1024


class AddressReservationSchema(ValueSchema):
    id = fields.String()
    name = fields.String()
    labels = LabelsField()
    project_id = fields.String()
    subnet_id = fields.String()
    first = fields.String()
    last = fields.String()
    created_at = Time()
    updated_at = Time()


class NewAddressReservationSchema(Schema):
    """One ``address``, those from ``first`` to ``last``, or ``count`` free ones in a row; one free one without any."""

    subnet = reference_field(required=True)
    name = fields.String(validate=NAME)
    labels = LabelsField()
    address = address_field()
    first = address_field()
    last = address_field()
    count = StrictInteger(validate=validate.Range(1, MAX_COUNT))


class AddressReservationPatchSchema(Schema):
    name = fields.String(validate=NAME)
    labels = LabelsPatchField()


class AddressReservationQuery(LabelledPageQuery):
    FILTERS: ClassVar[Mapping[str, str]] = {"subnet": "subnet_id"}

    subnet = fields.String(validate=validate.Length(1, 128), metadata={"description": "name or id"})


AddressReservationAcceptedSchema = accepted_schema("address_reservation", AddressReservationSchema)
_RESERVATION = AddressReservationSchema()
_JOB = JobSchema()


@blp.route("/address_reservations")
class AddressReservations(MethodView):
    @blp.query(AddressReservationQuery)
    @blp.response(200, listing_schema(AddressReservationSchema))
    def get(self, query: dict[str, Any]) -> Response:
        """List address reservations."""
        return page_response(AddressReservationSchema, *cloud().reservations.list_page(principal(), query["listing"]))

    @blp.arguments(NewAddressReservationSchema)
    @blp.response(202, AddressReservationAcceptedSchema)
    def post(self, body: dict[str, Any]) -> Response:
        """Reserve addresses of a subnet."""
        who = principal()
        return respond(lambda: cloud().reservations.create(who, **body), _accepted)


@blp.route("/address_reservations/<reservation>")
class OneAddressReservation(MethodView):
    @blp.response(200, AddressReservationSchema)
    def get(self, reservation: str) -> AddressReservation:
        """Show an address reservation."""
        return cloud().reservations.get(principal(), reservation)

    @blp.arguments(AddressReservationPatchSchema)
    @blp.response(200, AddressReservationSchema)
    def patch(self, body: dict[str, Any], reservation: str) -> AddressReservation:
        """Change name and labels (merge patch)."""
        return cloud().reservations.update(principal(), reservation, **body)

    @blp.response(202, JobAcceptedSchema)
    def delete(self, reservation: str) -> Response:
        """Give the addresses back to the pool."""
        return respond(lambda: cloud().reservations.delete(principal(), reservation), accepted_job)


def _accepted(result: tuple[AddressReservation, Job]) -> Reply:
    reservation, job = result
    document = {"address_reservation": _RESERVATION.dump(reservation), "job": _JOB.dump(job)}
    return Reply(202, document, f"/v1/address_reservations/{reservation.id}")
