"""/v1/vpcs/{vpc}/routes and dns_records: what lives in a VPC only."""

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
from iaas.api.v1.network_fields import address_field, cidr_field, reference_field
from iaas.api.v1.schemas import PageQuery, StrictInteger, Time, listing_schema, page
from iaas.api.wiring import cloud
from iaas.resources.jobs import Job
from iaas.resources.networks import DNSRecord, NewRoute, Route, RouteTarget

blp = Blueprint("vpc_entries", __name__, description="Routes and DNS records of VPCs.")

MAX_ROUTES = 1000
RECORD_TYPES = ("A", "CNAME", "TXT")


_TARGET = {
    "type": "object",
    "required": ["type"],
    "properties": {
        "type": {"type": "string", "enum": [each.value for each in RouteTarget]},
        "id": {"type": "string", "description": "of an instance or NIC"},
        "address": {"type": "string"},
    },
}


class RouteSchema(ValueSchema):
    id = fields.String()
    vpc_id = fields.String()
    destination = fields.String()
    target = fields.Function(lambda route: _target(route), metadata=_TARGET)
    next_hop = fields.String(
        allow_none=True,
        metadata={"description": "the address that the target has now; null while it has none: packets are refused"},
    )
    created_at = Time()
    updated_at = Time()


class NewRouteSchema(Schema):
    """One of ``instance``, ``nic`` and ``address``."""

    destination = cidr_field(required=True)
    instance = reference_field()
    nic = reference_field()
    address = address_field()


class RouteQuery(PageQuery):
    FILTERS: ClassVar[Mapping[str, str]] = {"destination": "destination"}

    destination = fields.String(validate=validate.Length(1, 64))


class RouteBatchSchema(Schema):
    routes = fields.List(fields.Nested(NewRouteSchema), required=True, validate=validate.Length(1, MAX_ROUTES))


class RouteTableSchema(Schema):
    routes = fields.List(fields.Nested(NewRouteSchema), required=True, validate=validate.Length(0, MAX_ROUTES))


class RoutesAcceptedSchema(Schema):
    routes = fields.List(fields.Nested(RouteSchema))
    job = fields.Nested(JobSchema)


class DNSRecordSchema(ValueSchema):
    id = fields.String()
    vpc_id = fields.String()
    name = fields.String(metadata={"description": "relative to the VPC's domain unless it ends with a dot"})
    type = fields.String(validate=validate.OneOf(RECORD_TYPES))
    values = fields.List(fields.String())
    ttl_s = fields.Integer()
    created_at = Time()
    updated_at = Time()


class DNSRecordQuery(PageQuery):
    FILTERS: ClassVar[Mapping[str, str]] = {"type": "type"}

    name = fields.String(validate=validate.Length(1, 254))
    type = fields.String(validate=validate.OneOf(RECORD_TYPES))


class NewDNSRecordSchema(Schema):
    name = fields.String(
        required=True,
        validate=validate.Length(1, 254),
        metadata={"description": "relative to the VPC's domain unless it ends with a dot"},
    )
    type = fields.String(required=True, validate=validate.OneOf(RECORD_TYPES))
    values = fields.List(
        fields.String(validate=validate.Length(1, 255)), required=True, validate=validate.Length(1, 64)
    )
    ttl_s = StrictInteger(load_default=60, validate=validate.Range(1, 604_800))


RouteAcceptedSchema = accepted_schema("route", RouteSchema)
DNSRecordAcceptedSchema = accepted_schema("dns_record", DNSRecordSchema)
_ROUTE = RouteSchema()
_RECORD = DNSRecordSchema()
_JOB = JobSchema()


@blp.route("/vpcs/<vpc>/routes")
class Routes(MethodView):
    @blp.query(RouteQuery)
    @blp.response(200, listing_schema(RouteSchema))
    def get(self, query: dict[str, Any], vpc: str) -> dict[str, Any]:
        """List a VPC's routes; those to its own subnets are there by themselves."""
        return page(*cloud().vpc_entries.list_routes(principal(), vpc, query["listing"]))

    @blp.arguments(NewRouteSchema)
    @blp.response(202, RouteAcceptedSchema)
    def post(self, body: dict[str, Any], vpc: str) -> Response:
        """Add a route."""
        who = principal()
        return respond(lambda: cloud().vpc_entries.add_routes(who, vpc, [NewRoute(**body)]), _added)

    @blp.arguments(RouteTableSchema)
    @blp.response(202, RoutesAcceptedSchema)
    def put(self, body: dict[str, Any], vpc: str) -> Response:
        """Replace all routes at once."""
        who, wishes = principal(), _wishes(body)
        return respond(lambda: cloud().vpc_entries.replace_routes(who, vpc, wishes), _all_added)


@blp.route("/vpcs/<vpc>/routes:batch")
class RouteBatch(MethodView):
    @blp.arguments(RouteBatchSchema)
    @blp.response(202, RoutesAcceptedSchema)
    def post(self, body: dict[str, Any], vpc: str) -> Response:
        """Add many routes, all or none."""
        who, wishes = principal(), _wishes(body)
        return respond(lambda: cloud().vpc_entries.add_routes(who, vpc, wishes, is_batch=True), _all_added)


@blp.route("/vpcs/<vpc>/routes/<route>")
class OneRoute(MethodView):
    @blp.response(200, RouteSchema)
    def get(self, vpc: str, route: str) -> Route:
        """Show a route."""
        return cloud().vpc_entries.get_route(principal(), vpc, route)

    @blp.response(202, JobAcceptedSchema)
    def delete(self, vpc: str, route: str) -> Response:
        """Delete a route."""
        return respond(lambda: cloud().vpc_entries.delete_route(principal(), vpc, route), accepted_job)


@blp.route("/vpcs/<vpc>/dns_records")
class DNSRecords(MethodView):
    @blp.query(DNSRecordQuery)
    @blp.response(200, listing_schema(DNSRecordSchema))
    def get(self, query: dict[str, Any], vpc: str) -> Response:
        """List a VPC's DNS records; names of instances are there by themselves."""
        return page_response(DNSRecordSchema, *cloud().vpc_entries.list_records(principal(), vpc, query["listing"]))

    @blp.arguments(NewDNSRecordSchema)
    @blp.response(202, DNSRecordAcceptedSchema)
    def post(self, body: dict[str, Any], vpc: str) -> Response:
        """Add a DNS record."""
        who, record = principal(), {**body, "values": tuple(body["values"])}
        return respond(lambda: cloud().vpc_entries.add_record(who, vpc, **record), _record_added)


@blp.route("/vpcs/<vpc>/dns_records/<record>")
class OneDNSRecord(MethodView):
    @blp.response(200, DNSRecordSchema)
    def get(self, vpc: str, record: str) -> DNSRecord:
        """Show a DNS record."""
        return cloud().vpc_entries.get_record(principal(), vpc, record)

    @blp.response(202, JobAcceptedSchema)
    def delete(self, vpc: str, record: str) -> Response:
        """Delete a DNS record."""
        return respond(lambda: cloud().vpc_entries.delete_record(principal(), vpc, record), accepted_job)


def _target(route: Route) -> dict[str, str]:
    member = "address" if route.target_type == RouteTarget.ADDRESS else "id"
    return {"type": route.target_type, member: route.target}


def _wishes(body: dict[str, Any]) -> list[NewRoute]:
    return [NewRoute(**one) for one in body["routes"]]


def _added(result: tuple[list[Route], Job]) -> Reply:
    [route], job = result
    document = {"route": _ROUTE.dump(route), "job": _JOB.dump(job)}
    return Reply(202, document, f"/v1/vpcs/{route.vpc_id}/routes/{route.id}")


def _all_added(result: tuple[list[Route], Job]) -> Reply:
    routes, job = result
    return Reply(202, {"routes": _ROUTE.dump(routes, many=True), "job": _JOB.dump(job)})


def _record_added(result: tuple[DNSRecord, Job]) -> Reply:
    record, job = result
    document = {"dns_record": _RECORD.dump(record), "job": _JOB.dump(job)}
    return Reply(202, document, f"/v1/vpcs/{record.vpc_id}/dns_records/{record.id}")
