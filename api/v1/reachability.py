"""/v1/reachability: would a packet arrive, and if not, what stops it?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Response
from flask.views import MethodView
from marshmallow import Schema, fields, validate

from iaas.api.idempotency import Reply, respond_after
from iaas.api.requests import Blueprint, principal
from iaas.api.v1.network_fields import address_field, reference_field
from iaas.api.v1.schemas import StrictInteger
from iaas.api.wiring import cloud
from iaas.kernel.errors import FieldError, InvalidInput
from iaas.reachability import Direction, Element, Protocol

if TYPE_CHECKING:
    from iaas.services.reachability import Answer

blp = Blueprint("reachability", __name__, description="Who reaches whom, and what decides.")


class EndSchema(Schema):
    """A ``nic``, or an ``address`` of a ``vpc``."""

    nic = reference_field()
    vpc = reference_field()
    address = address_field()


class QuestionSchema(Schema):
    source = fields.Nested(EndSchema, required=True)
    target = fields.Nested(EndSchema, required=True)
    source_address = address_field(
        metadata={"description": "that the source speaks with: its first one when absent; may be reserved, or foreign"}
    )
    target_address = address_field(metadata={"description": "of a target NIC that has several; its first when absent"})
    protocol = fields.String(
        load_default=Protocol.ICMP.value, validate=validate.OneOf([each.value for each in Protocol])
    )
    port = StrictInteger(validate=validate.Range(1, 65535), metadata={"description": "of the target, for tcp and udp"})


class HopSchema(Schema):
    """One decision on the way. Where ``passed`` is false the packet was lost; ``rule`` says why."""

    direction = fields.String(validate=validate.OneOf([each.value for each in Direction]))
    element = fields.String(validate=validate.OneOf([each.value for each in Element]))
    id = fields.String()
    passed = fields.Boolean()
    rule = fields.String()
    detail = fields.String()


class SightingSchema(Schema):
    """The packet, or (``back``) its answer, was seen where a NIC, or the router's leg of a subnet, meets the bridge."""

    direction = fields.String(validate=validate.OneOf([each.value for each in Direction]))
    place = fields.String(metadata={"description": "a NIC's id, or a subnet's for its router's leg"})
    leaves = fields.Boolean(metadata={"description": "it went to the machine or router there; else it came from it"})


class ObservedSchema(Schema):
    """What became of a real packet that was let in at the source's NIC."""

    answered = fields.Boolean()
    next_hop = fields.String(metadata={"description": "the address of the first step of its way"})
    next_hop_found = fields.Boolean()
    refused_by = fields.String(allow_none=True)
    sightings = fields.List(fields.Nested(SightingSchema))


class AnswerSchema(Schema):
    """``path`` has all decisions of the rules in their order, those on the way back after those on the way there.

    ``observed`` is null where no packet was sent; else packets decide, and ``reason`` is ``observed`` where they show
    something else than the rules say.
    """

    reachable = fields.Boolean()
    reason = fields.String()
    message = fields.String()
    path = fields.List(fields.Nested(HopSchema))
    observed = fields.Nested(ObservedSchema, allow_none=True)


_ANSWER = AnswerSchema()


@blp.route("/reachability")
class Reachability(MethodView):
    @blp.arguments(QuestionSchema)
    @blp.response(200, AnswerSchema)
    def post(self, body: dict[str, Any]) -> Response:
        """Say whether a packet and its answer arrive, hop by hop. The real backend sends one."""
        who = principal()
        question = {**body, "source": _end(body, "source"), "target": _end(body, "target")}
        question["protocol"] = Protocol(body["protocol"])
        return respond_after(lambda: cloud().reachability.ask(who, **question), _answer)


def _answer(answer: Answer) -> Reply:
    report = answer.observed
    observed = None
    if report is not None:
        observed = {
            "answered": report.answered,
            "next_hop": report.next_hop,
            "next_hop_found": report.next_hop_found,
            "refused_by": report.refused_by,
            "sightings": [
                {
                    "direction": (Direction.BACK if seen.is_back else Direction.FORWARD).value,
                    "place": seen.place,
                    "leaves": seen.leaves,
                }
                for seen in report.sightings
            ],
        }
    shown = {
        "reachable": answer.reachable,
        "reason": answer.reason,
        "message": answer.message,
        "path": answer.verdict.path,
        "observed": observed,
    }
    return Reply(200, _ANSWER.dump(shown))


def _end(body: dict[str, Any], field: str) -> str | tuple[str, str]:
    """Return a NIC, or a VPC and an address in it.

    Raises:
        InvalidInput: it is neither, or both.
    """
    end = body[field]
    if end.keys() == {"nic"}:
        return str(end["nic"])
    if end.keys() == {"vpc", "address"}:
        return str(end["vpc"]), str(end["address"])
    message = "must have a nic, or a vpc and an address"
    raise InvalidInput(f"{field}: {message}", errors=[FieldError(field, "one_of", message)])
