"""/v1/nics."""

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
from iaas.api.v1.network_fields import (
    MAX_ADDRESSES,
    PairSchema,
    address_field,
    addresses_field,
    mac_field,
    pairs_field,
    reference_field,
)
from iaas.api.v1.schemas import (
    NAME,
    LabelledPageQuery,
    LabelsField,
    LabelsPatchField,
    NoBodySchema,
    Time,
    listing_schema,
)
from iaas.api.wiring import cloud
from iaas.drivers.interface import PortStatistics
from iaas.resources.networks import NIC, NewNIC, NICStatus, NICTransition, Pair

blp = Blueprint("nics", __name__, description="Network interfaces: on a subnet, attached to an instance or waiting.")

_STATUSES = [status.value for status in NICStatus if status != NICStatus.DELETED]
_TRANSITIONS = [transition.value for transition in NICTransition]
_ADDRESS_WISH = {"description": 'an IPv4 address of the subnet, or "none"; the next one of the pool when absent'}


class NICSchema(ValueSchema):
    id = fields.String()
    name = fields.String()
    labels = LabelsField()
    project_id = fields.String()
    zone = fields.String()
    status = fields.String(validate=validate.OneOf(_STATUSES))
    transition = fields.String(allow_none=True, validate=validate.OneOf(_TRANSITIONS))
    generation = fields.Integer()
    subnet_id = fields.String()
    vpc_id = fields.String(allow_none=True)
    mac = fields.String()
    address = fields.String(allow_none=True, metadata={"description": "what DHCP gives; null: none"})
    secondary_addresses = fields.List(fields.String())
    allowed_pairs = fields.List(fields.Nested(PairSchema))
    instance_id = fields.String(allow_none=True)
    device_index = fields.Integer(allow_none=True)
    delete_with_instance = fields.Boolean()
    created_at = Time()
    updated_at = Time()


class NewNICSchema(Schema):
    subnet = reference_field(required=True)
    name = fields.String(validate=NAME)
    labels = LabelsField()
    address = address_field(metadata=_ADDRESS_WISH)
    mac = mac_field()
    secondary_addresses = addresses_field(MAX_ADDRESSES)
    allowed_pairs = pairs_field()


class NICPatchSchema(Schema):
    name = fields.String(validate=NAME)
    labels = LabelsPatchField()
    address = address_field(metadata={"description": 'another one of the subnet, or "none"'})
    secondary_addresses = addresses_field(MAX_ADDRESSES)
    allowed_pairs = pairs_field()


class AttachNICSchema(Schema):
    instance = reference_field(required=True)


class NICQuery(LabelledPageQuery):
    FILTERS: ClassVar[Mapping[str, str]] = {
        "instance": "instance_id",
        "subnet": "subnet_id",
        "vpc": "vpc_id",
        "mac": "mac",
        "address": "address",
    }

    status = fields.String(validate=validate.OneOf(_STATUSES))
    zone = fields.String(validate=validate.Length(1, 128))
    instance = fields.String(validate=validate.Length(1, 128), metadata={"description": "name or id"})
    subnet = fields.String(validate=validate.Length(1, 128), metadata={"description": "name or id"})
    vpc = fields.String(validate=validate.Length(1, 128), metadata={"description": "name or id"})
    mac = fields.String(validate=validate.Length(1, 32))
    address = fields.String(validate=validate.Length(1, 64), metadata={"description": "the one that DHCP gives"})


class NICStatisticsSchema(Schema):
    """Since the NIC was last plugged, as its machine sees it: received is what came in to it."""

    received_bytes = fields.Integer()
    received_packets = fields.Integer()
    received_dropped = fields.Integer()
    sent_bytes = fields.Integer()
    sent_packets = fields.Integer()
    sent_dropped = fields.Integer()


NICAcceptedSchema = accepted_schema("nic", NICSchema)
_NICS = Answers[NIC]("nic", "/v1/nics", NICSchema)


@blp.route("/nics")
class NICs(MethodView):
    @blp.query(NICQuery)
    @blp.response(200, listing_schema(NICSchema))
    def get(self, query: dict[str, Any]) -> Response:
        """List NICs, also those that were made with their instances."""
        return page_response(NICSchema, *cloud().nics.list_page(principal(), query["listing"]))

    @blp.arguments(NewNICSchema)
    @blp.response(201, NICSchema)
    def post(self, body: dict[str, Any]) -> Response:
        """Create a NIC on a subnet. It outlives the instances that it is attached to."""
        who, wish = principal(), NewNIC(**nic_values(body))
        return respond(lambda: cloud().nics.create(who, wish), _NICS.made)


@blp.route("/nics/<nic>")
class OneNIC(MethodView):
    @blp.doc(**TAGGED)
    @blp.response(200, NICSchema)
    def get(self, nic: str) -> Response:
        """Show a NIC, by id, name or MAC."""
        return _NICS.one(cloud().nics.get(principal(), nic))

    @blp.arguments(NICPatchSchema)
    @blp.doc(**GUARDED, **TAGGED)
    @blp.response(200, NICSchema)
    @blp.alt_response(202, schema=NICAcceptedSchema)
    def patch(self, body: dict[str, Any], nic: str) -> Response:
        """Change name, labels, addresses or allowed pairs (merge patch)."""
        changes = nic_values(body)
        return _NICS.changed(cloud().nics.update(principal(), nic, **changes, if_generation=if_generation()))

    @blp.doc(**GUARDED)
    @blp.response(204)
    def delete(self, nic: str) -> None:
        """Delete a NIC that no instance has."""
        cloud().nics.delete(principal(), nic, if_generation=if_generation())


@blp.route("/nics/<nic>/actions/attach")
class Attach(MethodView):
    @blp.arguments(AttachNICSchema)
    @blp.doc(**GUARDED)
    @blp.response(202, NICAcceptedSchema)
    def post(self, body: dict[str, Any], nic: str) -> Response:
        """Attach a NIC to an instance, running or stopped."""
        who, condition = principal(), if_generation()
        return respond(
            lambda: cloud().nics.attach(who, nic, instance=body["instance"], if_generation=condition), _NICS.accepted
        )


@blp.route("/nics/<nic>/actions/detach")
class Detach(MethodView):
    @blp.arguments(NoBodySchema)
    @blp.doc(**GUARDED)
    @blp.response(202, NICAcceptedSchema)
    def post(self, body: dict[str, Any], nic: str) -> Response:
        """Detach a NIC; it keeps addresses and MAC."""
        who, condition = principal(), if_generation()
        return respond(lambda: cloud().nics.detach(who, nic, if_generation=condition), _NICS.accepted)


@blp.route("/nics/<nic>/statistics")
class Statistics(MethodView):
    @blp.response(200, NICStatisticsSchema)
    @blp.alt_response(409)  # nothing counts for a NIC that is in no running machine
    def get(self, nic: str) -> PortStatistics:
        """Count what went through a NIC since it was last plugged."""
        return cloud().nics.statistics(principal(), nic)


def nic_values(body: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a wish as the values that services take."""
    found = dict(body)
    if "secondary_addresses" in body:
        found["secondary_addresses"] = tuple(body["secondary_addresses"])
    if "allowed_pairs" in body:
        found["allowed_pairs"] = tuple(Pair(cidr=one["cidr"], mac=one["mac"]) for one in body["allowed_pairs"])
    return found
