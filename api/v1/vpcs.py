"""/v1/vpcs. Their routes and DNS records are in ``vpc_entries``."""

from __future__ import annotations

from typing import Any

from flask import Response
from flask.views import MethodView
from marshmallow import Schema, fields, validate

from iaas.api.idempotency import respond
from iaas.api.requests import Blueprint, if_generation, principal
from iaas.api.v1.answers import Answers, accepted_schema
from iaas.api.v1.document import GUARDED, TAGGED
from iaas.api.v1.dumping import ValueSchema, page_response
from iaas.api.v1.network_fields import addresses_field, cidr_field
from iaas.api.v1.schemas import (
    NAME,
    FailureSchema,
    LabelledPageQuery,
    LabelsField,
    LabelsPatchField,
    StrictInteger,
    Time,
    listing_schema,
)
from iaas.api.wiring import cloud
from iaas.resources.networks import VPC, DHCPOptions, Forwarder, NetworkStatus, NetworkTransition

blp = Blueprint("vpcs", __name__, description="Isolated address spaces, each with its router, routes, DHCP and DNS.")

MAX_SERVERS = 8
MAX_FORWARDERS = 64
_DOMAIN = validate.Length(1, 253)
_LEASE_S = validate.Range(120, 31_536_000)
STATUSES = [status.value for status in NetworkStatus if status != NetworkStatus.DELETED]
TRANSITIONS = [transition.value for transition in NetworkTransition]


class DHCPOptionsSchema(Schema):
    """What DHCP gives beside the address. Without ``dns_servers`` guests ask their gateway."""

    dns_servers = addresses_field(MAX_SERVERS, load_default=[])
    ntp_servers = addresses_field(MAX_SERVERS, load_default=[])
    lease_s = StrictInteger(load_default=3600, validate=_LEASE_S)


class DHCPOptionsPatchSchema(Schema):
    """All of it: so a merge leaves the same as a replacement."""

    dns_servers = addresses_field(MAX_SERVERS, required=True)
    ntp_servers = addresses_field(MAX_SERVERS, required=True)
    lease_s = StrictInteger(required=True, validate=_LEASE_S)


class ForwarderSchema(Schema):
    """Questions about ``domain`` and below go to these DNS servers inside the VPC."""

    domain = fields.String(required=True, validate=_DOMAIN)
    servers = addresses_field(MAX_SERVERS, required=True)


class VPCSchema(ValueSchema):
    id = fields.String()
    name = fields.String()
    labels = LabelsField()
    project_id = fields.String()
    status = fields.String(validate=validate.OneOf(STATUSES))
    transition = fields.String(allow_none=True, validate=validate.OneOf(TRANSITIONS))
    failure = fields.Nested(FailureSchema, allow_none=True)
    generation = fields.Integer()
    revision = fields.Integer(metadata={"description": "counts changes of what routers do"})
    applied_revision = fields.Integer(metadata={"description": "the one that is to be applied; behind when staged"})
    cidr = fields.String()
    dns_domain = fields.String()
    dhcp_options = fields.Nested(DHCPOptionsSchema)
    forwarders = fields.List(fields.Nested(ForwarderSchema))
    created_at = Time()
    updated_at = Time()


class NewVPCSchema(Schema):
    cidr = cidr_field(required=True)
    name = fields.String(validate=NAME)
    labels = LabelsField()
    dns_domain = fields.String(validate=_DOMAIN, metadata={"description": "of its guests' names; internal when absent"})
    dhcp_options = fields.Nested(DHCPOptionsSchema)
    forwarders = fields.List(fields.Nested(ForwarderSchema), validate=validate.Length(max=MAX_FORWARDERS))


class VPCPatchSchema(Schema):
    name = fields.String(validate=NAME)
    labels = LabelsPatchField()
    dns_domain = fields.String(validate=_DOMAIN)
    dhcp_options = fields.Nested(DHCPOptionsPatchSchema)
    forwarders = fields.List(fields.Nested(ForwarderSchema), validate=validate.Length(max=MAX_FORWARDERS))


class VPCQuery(LabelledPageQuery):
    status = fields.String(validate=validate.OneOf(STATUSES))


VPCAcceptedSchema = accepted_schema("vpc", VPCSchema)
_VPCS = Answers[VPC]("vpc", "/v1/vpcs", VPCSchema)


@blp.route("/vpcs")
class VPCs(MethodView):
    @blp.query(VPCQuery)
    @blp.response(200, listing_schema(VPCSchema))
    def get(self, query: dict[str, Any]) -> Response:
        """List VPCs."""
        return page_response(VPCSchema, *cloud().vpcs.list_page(principal(), query["listing"]))

    @blp.arguments(NewVPCSchema)
    @blp.response(202, VPCAcceptedSchema)
    def post(self, body: dict[str, Any]) -> Response:
        """Create a VPC."""
        who, wish = principal(), _values(body)
        return respond(lambda: cloud().vpcs.create(who, **wish), _VPCS.accepted)


@blp.route("/vpcs/<vpc>")
class OneVPC(MethodView):
    @blp.doc(**TAGGED)
    @blp.response(200, VPCSchema)
    def get(self, vpc: str) -> Response:
        """Show a VPC."""
        return _VPCS.one(cloud().vpcs.get(principal(), vpc))

    @blp.arguments(VPCPatchSchema)
    @blp.doc(**GUARDED, **TAGGED)
    @blp.response(200, VPCSchema)
    @blp.alt_response(202, schema=VPCAcceptedSchema)
    def patch(self, body: dict[str, Any], vpc: str) -> Response:
        """Change name, labels, domain, DHCP options (all three) or forwarders (merge patch)."""
        return _VPCS.changed(
            cloud().vpcs.update(principal(), vpc, **_values(body), if_generation=if_generation()),
        )

    @blp.doc(**GUARDED)
    @blp.response(202, VPCAcceptedSchema)
    def delete(self, vpc: str) -> Response:
        """Delete a VPC that has no subnets; its routes and records go with it."""
        return respond(lambda: cloud().vpcs.delete(principal(), vpc, if_generation=if_generation()), _VPCS.accepted)


def _values(body: dict[str, Any]) -> dict[str, Any]:
    found = dict(body)
    if (options := body.get("dhcp_options")) is not None:
        found["dhcp_options"] = DHCPOptions(
            dns_servers=tuple(options["dns_servers"]),
            ntp_servers=tuple(options["ntp_servers"]),
            lease_s=options["lease_s"],
        )
    if (forwarders := body.get("forwarders")) is not None:
        found["forwarders"] = tuple(
            Forwarder(domain=one["domain"], servers=tuple(one["servers"])) for one in forwarders
        )
    return found
