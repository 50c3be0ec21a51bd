"""/v1/subnets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from flask import Response
from flask.views import MethodView
from marshmallow import Schema, fields, validate

from iaas.api.idempotency import respond
from iaas.api.requests import Blueprint, if_generation, principal
from iaas.api.v1.answers import Answers, accepted_schema
from iaas.api.v1.document import GUARDED, TAGGED
from iaas.api.v1.dumping import ValueSchema, page_response
from iaas.api.v1.network_fields import address_field, cidr_field, reference_field
from iaas.api.v1.schemas import (
    NAME,
    FailureSchema,
    LabelledPageQuery,
    LabelsField,
    LabelsPatchField,
    StrictBoolean,
    StrictInteger,
    Time,
    listing_schema,
)
from iaas.api.v1.vpcs import STATUSES, TRANSITIONS
from iaas.api.wiring import cloud
from iaas.resources.networks import Subnet

blp = Blueprint("subnets", __name__, description="Layer-2 segments, each in one zone; in a VPC or bare.")


class SubnetSchema(ValueSchema):
    id = fields.String()
    name = fields.String()
    labels = LabelsField()
    project_id = fields.String(allow_none=True, metadata={"description": "null: all projects share it"})
    zone = fields.String()
    status = fields.String(validate=validate.OneOf(STATUSES))
    transition = fields.String(allow_none=True, validate=validate.OneOf(TRANSITIONS))
    failure = fields.Nested(FailureSchema, allow_none=True)
    generation = fields.Integer()
    revision = fields.Integer()
    applied_revision = fields.Integer()
    vpc_id = fields.String(allow_none=True, metadata={"description": "null: a bare segment, without addresses"})
    cidr = fields.String(allow_none=True)
    gateway = fields.String(allow_none=True)
    dhcp_first = fields.String(allow_none=True, metadata={"description": "the first address of the pool"})
    dhcp_last = fields.String(allow_none=True)
    mtu = fields.Integer()
    is_shared = fields.Boolean(metadata={"description": "a zone's basic subnet: everybody's NICs may be there"})
    created_at = Time()
    updated_at = Time()


class NewSubnetSchema(Schema):
    """With ``vpc`` and ``cidr``, or with neither: then it may join a VPC later."""

    name = fields.String(validate=NAME)
    labels = LabelsField()
    zone = fields.String(validate=validate.Length(1, 128))
    vpc = reference_field()
    cidr = cidr_field()
    gateway = address_field(metadata={"description": "the first address of the block when absent"})
    dhcp_first = address_field(metadata={"description": "where the pool begins; after the gateway when absent"})
    dhcp_last = address_field(metadata={"description": "where the pool ends; at the last host when absent"})
    mtu = StrictInteger(validate=validate.Range(576, 9000))


class SubnetPatchSchema(Schema):
    name = fields.String(validate=NAME)
    labels = LabelsPatchField()
    dhcp_first = address_field()
    dhcp_last = address_field()


class JoinSchema(Schema):
    vpc = reference_field(required=True)
    cidr = cidr_field(required=True)
    gateway = address_field()
    dhcp_first = address_field()
    dhcp_last = address_field()


class LeaveSchema(Schema):
    force = StrictBoolean(load_default=False, metadata={"description": "though NICs have addresses, which they lose"})


class SubnetQuery(LabelledPageQuery):
    FILTERS: ClassVar[Mapping[str, str]] = {"vpc": "vpc_id"}

    status = fields.String(validate=validate.OneOf(STATUSES))
    zone = fields.String(validate=validate.Length(1, 128))
    vpc = fields.String(validate=validate.Length(1, 128), metadata={"description": "name or id"})


class OneSubnetQuery(Schema):
    zone = fields.String(validate=validate.Length(1, 128), metadata={"description": "whose basic subnet is meant"})


SubnetAcceptedSchema = accepted_schema("subnet", SubnetSchema)
_SUBNETS = Answers[Subnet]("subnet", "/v1/subnets", SubnetSchema)


@blp.route("/subnets")
class Subnets(MethodView):
    @blp.query(SubnetQuery)
    @blp.response(200, listing_schema(SubnetSchema))
    def get(self, query: dict[str, Any]) -> Response:
        """List subnets: first those that all projects share, then one's own."""
        return page_response(SubnetSchema, *cloud().subnets.list_page(principal(), query["listing"]))

    @blp.arguments(NewSubnetSchema)
    @blp.response(202, SubnetAcceptedSchema)
    def post(self, body: dict[str, Any]) -> Response:
        """Create a subnet, in a VPC or bare."""
        who = principal()
        return respond(lambda: cloud().subnets.create(who, **body), _SUBNETS.accepted)


@blp.route("/subnets/<subnet>")
class OneSubnet(MethodView):
    @blp.query(OneSubnetQuery)
    @blp.doc(**TAGGED)
    @blp.response(200, SubnetSchema)
    def get(self, query: dict[str, Any], subnet: str) -> Response:
        """Show a subnet; a zone's basic one by the name "basic" too."""
        return _SUBNETS.one(cloud().subnets.get(principal(), subnet, zone=query.get("zone")))

    @blp.arguments(SubnetPatchSchema)
    @blp.doc(**GUARDED, **TAGGED)
    @blp.response(200, SubnetSchema)
    @blp.alt_response(202, schema=SubnetAcceptedSchema)
    def patch(self, body: dict[str, Any], subnet: str) -> Response:
        """Change name, labels or the pool of addresses (merge patch)."""
        return _SUBNETS.changed(cloud().subnets.update(principal(), subnet, **body, if_generation=if_generation()))

    @blp.doc(**GUARDED)
    @blp.response(202, SubnetAcceptedSchema)
    def delete(self, subnet: str) -> Response:
        """Delete a subnet that has neither NICs nor reservations."""
        return respond(
            lambda: cloud().subnets.delete(principal(), subnet, if_generation=if_generation()), _SUBNETS.accepted
        )


@blp.route("/subnets/<subnet>/actions/join")
class Join(MethodView):
    @blp.arguments(JoinSchema)
    @blp.response(202, SubnetAcceptedSchema)
    def post(self, body: dict[str, Any], subnet: str) -> Response:
        """Take a bare subnet into a VPC; the NICs on it get addresses."""
        who = principal()
        return respond(lambda: cloud().subnets.join(who, subnet, **body), _SUBNETS.accepted)


@blp.route("/subnets/<subnet>/actions/leave")
class Leave(MethodView):
    @blp.arguments(LeaveSchema)
    @blp.response(202, SubnetAcceptedSchema)
    def post(self, body: dict[str, Any], subnet: str) -> Response:
        """Take a subnet out of its VPC: a bare segment is left."""
        who = principal()
        return respond(lambda: cloud().subnets.leave(who, subnet, **body), _SUBNETS.accepted)
