"""/v1/zones, hosts, flavors, images."""

from __future__ import annotations

from typing import Any

from flask import Response
from flask.views import MethodView
from marshmallow import Schema, fields, validate

from iaas.api.idempotency import Reply, respond
from iaas.api.requests import Blueprint, principal
from iaas.api.v1.schemas import (
    NAME,
    LabelledPageQuery,
    LabelsField,
    LabelsPatchField,
    StrictInteger,
    Time,
    listing_schema,
    page,
)
from iaas.api.wiring import cloud
from iaas.resources.catalog import Flavor, Host, HostStatus, Image, Zone

blp = Blueprint("catalog", __name__, description="What instances are made of, and where.")


class LabelsPatchSchema(Schema):
    labels = LabelsPatchField()


class ZoneSchema(Schema):
    id = fields.String()
    name = fields.String()
    labels = LabelsField()
    status = fields.String()
    created_at = Time()


class HostPatchSchema(LabelsPatchSchema):
    status = fields.String(validate=validate.OneOf([status.value for status in HostStatus]))


class HostSchema(Schema):
    id = fields.String()
    name = fields.String()
    labels = LabelsField()
    zone = fields.String()
    status = fields.String()
    vcpus = fields.Integer()
    vcpus_used = fields.Integer()
    memory_mib = fields.Integer()
    memory_mib_used = fields.Integer()
    disk_gib = fields.Integer()
    disk_gib_used = fields.Integer()
    vcpu_overcommit = fields.Float(metadata={"description": "vcpus are what the host has, times this"})
    memory_overcommit = fields.Float()
    disk_overcommit = fields.Float()
    created_at = Time()
    updated_at = Time()


class FlavorSchema(Schema):
    id = fields.String()
    name = fields.String()
    labels = LabelsField()
    vcpus = fields.Integer()
    memory_mib = fields.Integer()
    root_disk_gib = fields.Integer()
    max_nics = fields.Integer()
    created_at = Time()
    updated_at = Time()


class NewFlavorSchema(Schema):
    name = fields.String(required=True, validate=NAME)
    labels = LabelsField()
    vcpus = StrictInteger(required=True, validate=validate.Range(1, 512))
    memory_mib = StrictInteger(required=True, validate=validate.Range(64, 4_194_304))
    root_disk_gib = StrictInteger(required=True, validate=validate.Range(1, 65_536))
    max_nics = StrictInteger(validate=validate.Range(1, 24))


class ImageSchema(Schema):
    id = fields.String()
    name = fields.String()
    labels = LabelsField()
    status = fields.String()
    source = fields.String()
    kinds = fields.List(fields.String())
    os = fields.String()
    created_at = Time()
    updated_at = Time()


class ImageQuery(LabelledPageQuery):
    status = fields.String(validate=validate.Length(1, 16))


class HostQuery(LabelledPageQuery):
    status = fields.String(validate=validate.OneOf([status.value for status in HostStatus]))
    zone = fields.String(validate=validate.Length(1, 128))


@blp.route("/zones")
class Zones(MethodView):
    @blp.query(LabelledPageQuery)
    @blp.response(200, listing_schema(ZoneSchema))
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """List zones."""
        return page(*cloud().catalog.list_zones(query["listing"]))


@blp.route("/zones/<zone>")
class OneZone(MethodView):
    @blp.response(200, ZoneSchema)
    def get(self, zone: str) -> Zone:
        """Show a zone."""
        return cloud().catalog.get_zone(zone)

    @blp.arguments(LabelsPatchSchema)
    @blp.response(200, ZoneSchema)
    def patch(self, body: dict[str, Any], zone: str) -> Zone:
        """Change labels (admins, merge patch)."""
        return cloud().catalog.label_zone(principal(), zone, body.get("labels", {}))


@blp.route("/hosts")
class Hosts(MethodView):
    @blp.query(HostQuery)
    @blp.response(200, listing_schema(HostSchema))
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """List hosts (admins)."""
        return page(*cloud().catalog.list_hosts(principal(), query["listing"]))


@blp.route("/hosts/<host>")
class OneHost(MethodView):
    @blp.response(200, HostSchema)
    def get(self, host: str) -> Host:
        """Show a host (admins)."""
        return cloud().catalog.get_host(principal(), host)

    @blp.arguments(HostPatchSchema)
    @blp.response(200, HostSchema)
    def patch(self, body: dict[str, Any], host: str) -> Host:
        """Change status and labels (admins, merge patch)."""
        return cloud().catalog.update_host(principal(), host, labels=body.get("labels"), status=body.get("status"))


@blp.route("/flavors")
class Flavors(MethodView):
    @blp.query(LabelledPageQuery)
    @blp.response(200, listing_schema(FlavorSchema))
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """List flavors."""
        return page(*cloud().catalog.list_flavors(query["listing"]))

    @blp.arguments(NewFlavorSchema)
    @blp.response(201, FlavorSchema)
    def post(self, body: dict[str, Any]) -> Response:
        """Create a flavor (admins)."""
        who, service = principal(), cloud().catalog
        return respond(lambda: service.create_flavor(who, **body), _new_flavor)


@blp.route("/flavors/<flavor>")
class OneFlavor(MethodView):
    @blp.response(200, FlavorSchema)
    def get(self, flavor: str) -> Flavor:
        """Show a flavor."""
        return cloud().catalog.get_flavor(flavor)

    @blp.arguments(LabelsPatchSchema)
    @blp.response(200, FlavorSchema)
    def patch(self, body: dict[str, Any], flavor: str) -> Flavor:
        """Change labels (admins, merge patch)."""
        return cloud().catalog.label_flavor(principal(), flavor, body.get("labels", {}))

    @blp.response(204)
    def delete(self, flavor: str) -> None:
        """Delete a flavor (admins)."""
        cloud().catalog.delete_flavor(principal(), flavor)


@blp.route("/images")
class Images(MethodView):
    @blp.query(ImageQuery)
    @blp.response(200, listing_schema(ImageSchema))
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """List images."""
        return page(*cloud().catalog.list_images(query["listing"]))


@blp.route("/images/<image>")
class OneImage(MethodView):
    @blp.response(200, ImageSchema)
    def get(self, image: str) -> Image:
        """Show an image."""
        return cloud().catalog.get_image(image)

    @blp.arguments(LabelsPatchSchema)
    @blp.response(200, ImageSchema)
    def patch(self, body: dict[str, Any], image: str) -> Image:
        """Change labels (admins, merge patch)."""
        return cloud().catalog.label_image(principal(), image, body.get("labels", {}))


_FLAVOR = FlavorSchema()


def _new_flavor(flavor: Flavor) -> Reply:
    return Reply(201, _FLAVOR.dump(flavor), f"/v1/flavors/{flavor.id}")
