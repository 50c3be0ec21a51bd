"""/v1/instances."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from flask import Response, jsonify
from flask.views import MethodView
from marshmallow import Schema, fields, validate

from iaas.api.idempotency import Reply, respond, respond_after
from iaas.api.requests import Blueprint, if_generation, principal
from iaas.api.v1.document import GUARDED, TAGGED
from iaas.api.v1.dumping import ValueSchema, page_response, prepared_json
from iaas.api.v1.jobs import JobSchema
from iaas.api.v1.loading import PlainSchema
from iaas.api.v1.network_fields import reference_field
from iaas.api.v1.nics import NewNICSchema, nic_values
from iaas.api.v1.schemas import (
    NAME,
    FailureSchema,
    LabelledPageQuery,
    LabelsField,
    LabelsPatchField,
    NoBodySchema,
    StrictBoolean,
    StrictInteger,
    Time,
    listing_schema,
)
from iaas.api.wiring import cloud
from iaas.kernel.errors import FieldError, InvalidInput
from iaas.resources.instances import (
    ExecOutcome,
    Instance,
    InstanceStatus,
    InstanceTransition,
    NewInstance,
    PlacementRule,
    PlacementWish,
)
from iaas.resources.jobs import Job
from iaas.resources.networks import NewNIC

blp = Blueprint("instances", __name__, description="VMs and container machines, one and the same to their tenant.")

KINDS = ("vm", "container")
MAX_BATCH = 1000
MAX_NICS = 64  # of any flavor
_VCPUS = validate.Range(1, 512)
_MEMORY_MIB = validate.Range(64, 4_194_304)
_ROOT_DISK_GIB = validate.Range(1, 65_536)
_STOP_TIMEOUT_S = validate.Range(0, 3600)


class InstanceNICSchema(Schema):
    id = fields.String()
    subnet_id = fields.String()
    vpc_id = fields.String(allow_none=True)
    mac = fields.String()
    address = fields.String(allow_none=True)
    secondary_addresses = fields.List(fields.String())
    device_index = fields.Integer()


class InstanceNICWishSchema(NewNICSchema):
    """A new NIC on ``subnet`` (the zone's basic one when absent), or ``nic``: one that there is."""

    subnet = reference_field()
    nic = reference_field()


class InstanceSchema(ValueSchema):
    id = fields.String()
    name = fields.String()
    labels = LabelsField()
    project_id = fields.String()
    zone = fields.String()
    kind = fields.String(validate=validate.OneOf(KINDS))
    status = fields.String(validate=validate.OneOf([status.value for status in InstanceStatus]))
    transition = fields.String(
        allow_none=True, validate=validate.OneOf([transition.value for transition in InstanceTransition])
    )
    failure = fields.Nested(FailureSchema, allow_none=True)
    generation = fields.Integer()
    hostname = fields.String()
    flavor = fields.String(allow_none=True)
    vcpus = fields.Integer()
    memory_mib = fields.Integer()
    root_disk_gib = fields.Integer()
    image_id = fields.String()
    image = fields.String()
    key_pairs = fields.List(fields.String())
    nesting = fields.Boolean()
    privileged = fields.Boolean()
    metadata_labels = fields.Boolean(metadata={"description": "its guest may read its labels"})
    nics = fields.List(fields.Nested(InstanceNICSchema))
    address = fields.String(allow_none=True)
    host_id = fields.String(allow_none=True)
    placement = fields.Dict(allow_none=True, metadata={"description": "the rules it was placed by"})
    guest_ready_at = Time(allow_none=True)
    created_at = Time()
    updated_at = Time()
    deleted_at = Time(allow_none=True)
    purge_at = Time(allow_none=True, metadata={"description": "until then a deleted instance can be recovered"})
    purged_at = Time(allow_none=True)


class PlacementRuleSchema(Schema):
    """Either ``instances`` or ``label_selector``."""

    instances = fields.List(fields.String(validate=validate.Length(1, 128)), validate=validate.Length(1, 64))
    label_selector = fields.String(validate=validate.Length(1, 4096))
    strict = StrictBoolean(load_default=True, metadata={"description": "false: a wish, not a condition"})


class PlacementSchema(Schema):
    affinity = fields.Nested(PlacementRuleSchema, metadata={"description": "on a host with one of these"})
    anti_affinity = fields.Nested(PlacementRuleSchema, metadata={"description": "on a host with none of these"})
    host = fields.String(validate=validate.Length(1, 128), metadata={"description": "name or id (admins)"})


class OneInstanceQuery(Schema):
    deleted = fields.Boolean(load_default=False, metadata={"description": "also (by id) one that is deleted"})


class RemovalQuery(Schema):
    purge = fields.Boolean(load_default=False, metadata={"description": "for good, without a time to recover it"})


class RecoverSchema(Schema):
    name = fields.String(validate=NAME, metadata={"description": "when its old name is taken"})


class NewInstanceSchema(PlainSchema):
    kind = fields.String(required=True, validate=validate.OneOf(KINDS))
    image = fields.String(required=True, validate=validate.Length(1, 128), metadata={"description": "name or id"})
    flavor = fields.String(validate=validate.Length(1, 128), metadata={"description": "name or id"})
    vcpus = StrictInteger(validate=_VCPUS)
    memory_mib = StrictInteger(validate=_MEMORY_MIB)
    root_disk_gib = StrictInteger(validate=_ROOT_DISK_GIB)
    name = fields.String(validate=NAME)
    hostname = fields.String(validate=validate.Length(1, 63))
    zone = fields.String(validate=validate.Length(1, 128))
    key_pairs = fields.List(fields.String(validate=validate.Length(1, 128)), validate=validate.Length(max=32))
    user_data = fields.String(validate=validate.Length(max=131_072))
    user_data_encoding = fields.String(load_default="plain", validate=validate.OneOf(["plain", "base64"]))
    labels = LabelsField()
    nesting = StrictBoolean()
    privileged = StrictBoolean()
    metadata_labels = StrictBoolean(metadata={"description": "let its guest read its labels"})
    nics = fields.List(
        fields.Nested(InstanceNICWishSchema),
        validate=validate.Length(max=MAX_NICS),
        metadata={"description": "in their order; one on the zone's basic subnet when absent, none when empty"},
    )
    placement = fields.Nested(PlacementSchema)


class BatchSchema(Schema):
    instances = fields.List(
        fields.Nested(NewInstanceSchema), required=True, validate=validate.Length(min=1, max=MAX_BATCH)
    )


class AcceptedSchema(Schema):
    instance = fields.Nested(InstanceSchema)
    job = fields.Nested(JobSchema)


class BatchAcceptedSchema(Schema):
    instances = fields.List(fields.Nested(InstanceSchema))
    jobs = fields.List(fields.Nested(JobSchema))


class InstancePatchSchema(Schema):
    name = fields.String(validate=NAME)
    labels = LabelsPatchField()


class InstanceQuery(LabelledPageQuery):
    status = fields.String(validate=validate.OneOf([status.value for status in InstanceStatus]))
    kind = fields.String(validate=validate.OneOf(KINDS))
    zone = fields.String(validate=validate.Length(1, 128))
    deleted = fields.Boolean(load_default=False)


class StopSchema(Schema):
    force = StrictBoolean(load_default=False)
    timeout_s = StrictInteger(load_default=60, validate=_STOP_TIMEOUT_S)


class ResizeSchema(Schema):
    flavor = fields.String(validate=validate.Length(1, 128))
    vcpus = StrictInteger(validate=_VCPUS)
    memory_mib = StrictInteger(validate=_MEMORY_MIB)


class RebuildSchema(Schema):
    image = fields.String(validate=validate.Length(1, 128))


class ExecSchema(Schema):
    command = fields.List(
        fields.String(validate=validate.Length(max=65_536)), required=True, validate=validate.Length(1, 1024)
    )
    timeout_s = StrictInteger(load_default=30, validate=validate.Range(1, 300))
    stdin = fields.String(load_default="", validate=validate.Length(max=1_048_576))


class ExecOutcomeSchema(Schema):
    exit_code = fields.Integer()
    stdout = fields.String()
    stderr = fields.String()
    truncated = fields.Boolean()


class ConsoleQuery(Schema):
    tail_bytes = fields.Integer(load_default=65_536, validate=validate.Range(1, 1_048_576))


class ConsoleSchema(Schema):
    output = fields.String()


_INSTANCE = InstanceSchema()
_INSTANCE_JSON = prepared_json(InstanceSchema)
_JOB = JobSchema()
_EXEC_OUTCOME = ExecOutcomeSchema()


@blp.route("/instances")
class Instances(MethodView):
    @blp.query(InstanceQuery)
    @blp.response(200, listing_schema(InstanceSchema))
    def get(self, query: dict[str, Any]) -> Response:
        """List instances."""
        return page_response(
            InstanceSchema, *cloud().instances.list_page(principal(), query["listing"], deleted=query["deleted"])
        )

    @blp.arguments(NewInstanceSchema)
    @blp.response(202, AcceptedSchema)
    def post(self, body: dict[str, Any]) -> Response:
        """Create an instance."""
        wish = _wish(body)
        return respond(lambda: cloud().instances.create(principal(), [wish]), _created)


@blp.route("/instances:batch")
class InstanceBatch(MethodView):
    @blp.arguments(BatchSchema)
    @blp.response(202, BatchAcceptedSchema)
    def post(self, body: dict[str, Any]) -> Response:
        """Create many instances, all or none."""
        wishes = [_wish(part, f"instances.{index}.") for index, part in enumerate(body["instances"])]
        return respond(lambda: cloud().instances.create(principal(), wishes, is_batch=True), _created_all)


@blp.route("/instances/<instance>")
class OneInstance(MethodView):
    @blp.query(OneInstanceQuery)
    @blp.doc(**TAGGED)
    @blp.response(200, InstanceSchema)
    def get(self, query: dict[str, Any], instance: str) -> Response:
        """Show an instance."""
        return _tagged(cloud().instances.get(principal(), instance, deleted=query["deleted"]))

    @blp.arguments(InstancePatchSchema)
    @blp.doc(**GUARDED, **TAGGED)
    @blp.response(200, InstanceSchema)
    def patch(self, body: dict[str, Any], instance: str) -> Response:
        """Change name and labels (merge patch)."""
        return _tagged(cloud().instances.update(principal(), instance, **body, if_generation=if_generation()))

    @blp.query(RemovalQuery)
    @blp.doc(**GUARDED)
    @blp.response(202, AcceptedSchema)
    def delete(self, query: dict[str, Any], instance: str) -> Response:
        """Delete an instance; it can be recovered for as long as the server retains it."""
        return respond(
            lambda: cloud().instances.delete(
                principal(), instance, purge=query["purge"], if_generation=if_generation()
            ),
            _accepted,
        )


@blp.route("/instances/<instance>/actions/start")
class Start(MethodView):
    @blp.arguments(NoBodySchema)
    @blp.doc(**GUARDED)
    @blp.response(202, AcceptedSchema)
    def post(self, body: dict[str, Any], instance: str) -> Response:
        """Start a stopped instance."""
        return respond(lambda: cloud().instances.start(principal(), instance, if_generation=if_generation()), _accepted)


@blp.route("/instances/<instance>/actions/stop")
class Stop(MethodView):
    @blp.arguments(StopSchema)
    @blp.doc(**GUARDED)
    @blp.response(202, AcceptedSchema)
    def post(self, body: dict[str, Any], instance: str) -> Response:
        """Ask the guest to stop; cut its power after timeout_s, or at once with force."""
        return respond(
            lambda: cloud().instances.stop(principal(), instance, **body, if_generation=if_generation()), _accepted
        )


@blp.route("/instances/<instance>/actions/restart")
class Restart(MethodView):
    @blp.arguments(StopSchema)
    @blp.doc(**GUARDED)
    @blp.response(202, AcceptedSchema)
    def post(self, body: dict[str, Any], instance: str) -> Response:
        """Stop as above, then start."""
        return respond(
            lambda: cloud().instances.restart(principal(), instance, **body, if_generation=if_generation()), _accepted
        )


@blp.route("/instances/<instance>/actions/resize")
class Resize(MethodView):
    @blp.arguments(ResizeSchema)
    @blp.doc(**GUARDED)
    @blp.response(202, AcceptedSchema)
    def post(self, body: dict[str, Any], instance: str) -> Response:
        """Give a stopped instance another shape."""
        return respond(
            lambda: cloud().instances.resize(principal(), instance, **body, if_generation=if_generation()), _accepted
        )


@blp.route("/instances/<instance>/actions/rebuild")
class Rebuild(MethodView):
    @blp.arguments(RebuildSchema)
    @blp.doc(**GUARDED)
    @blp.response(202, AcceptedSchema)
    def post(self, body: dict[str, Any], instance: str) -> Response:
        """Give the instance a fresh root disk from an image and start it."""
        return respond(
            lambda: cloud().instances.rebuild(principal(), instance, **body, if_generation=if_generation()), _accepted
        )


@blp.route("/instances/<instance>/actions/recover")
class Recover(MethodView):
    @blp.arguments(RecoverSchema)
    @blp.doc(**GUARDED)
    @blp.response(202, AcceptedSchema)
    def post(self, body: dict[str, Any], instance: str) -> Response:
        """Bring a deleted instance (by id) back, stopped, while it is retained."""
        return respond(
            lambda: cloud().instances.recover(principal(), instance, **body, if_generation=if_generation()), _accepted
        )


@blp.route("/instances/<instance>/actions/exec")
class Exec(MethodView):
    @blp.arguments(ExecSchema)
    @blp.response(200, ExecOutcomeSchema)
    def post(self, body: dict[str, Any], instance: str) -> Response:
        """Run a command in the guest as root and wait for its end."""
        command, rest = body.pop("command"), body
        return respond_after(
            lambda: cloud().instances.execute(principal(), instance, command, **rest), _executed, is_secret=True
        )


@blp.route("/instances/<instance>/console")
class Console(MethodView):
    @blp.query(ConsoleQuery)
    @blp.response(200, ConsoleSchema)
    def get(self, query: dict[str, Any], instance: str) -> dict[str, str]:
        """Show the end of the console log."""
        return {"output": cloud().instances.console(principal(), instance, tail_bytes=query["tail_bytes"])}


def _wish(body: dict[str, Any], prefix: str = "") -> NewInstance:
    encoding = body.pop("user_data_encoding")
    user_data = body.pop("user_data", None)
    raw: bytes | None = None
    if user_data is not None:
        try:
            raw = base64.b64decode(user_data, validate=True) if encoding == "base64" else user_data.encode()
        except (binascii.Error, ValueError) as error:
            field = prefix + "user_data"
            raise InvalidInput(
                f"{field}: is not base64", errors=[FieldError(field, "invalid", "is not base64")]
            ) from error
    placement = _placement(body.pop("placement", None))
    wish = {**body, "key_pairs": tuple(body.get("key_pairs", ()))}
    if "nics" in body:
        wish["nics"] = tuple(NewNIC(**nic_values(one)) for one in body["nics"])
    return NewInstance(**wish, user_data=raw, placement=placement)


def _placement(body: dict[str, Any] | None) -> PlacementWish | None:
    if body is None:
        return None
    rules = {
        name: PlacementRule(**{**body[name], "instances": tuple(body[name].get("instances", ()))})
        for name in ("affinity", "anti_affinity")
        if name in body
    }
    return PlacementWish(host=body.get("host"), **rules)


def _accepted(result: tuple[Instance, Job]) -> Reply:
    instance, job = result
    document = {"instance": _INSTANCE.dump(instance), "job": _JOB.dump(job)}
    return Reply(202, document, f"/v1/instances/{instance.id}")


def _created(results: list[tuple[Instance, Job]]) -> Reply:
    return _accepted(results[0])


def _created_all(results: list[tuple[Instance, Job]]) -> Reply:
    instances = ",".join([_INSTANCE_JSON(instance) for instance, _ in results])
    jobs = json.dumps([_JOB.dump(job) for _, job in results])
    return Reply(202, f'{{"instances":[{instances}],"jobs":{jobs}}}')


def _executed(outcome: ExecOutcome) -> Reply:
    return Reply(200, _EXEC_OUTCOME.dump(outcome))


def _tagged(instance: Instance) -> Response:
    response = jsonify(_INSTANCE.dump(instance))
    response.headers["ETag"] = f'"{instance.generation}"'
    return response
