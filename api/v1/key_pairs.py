"""/v1/key_pairs."""

from __future__ import annotations

from typing import Any

from flask import Response
from flask.views import MethodView
from marshmallow import Schema, fields, validate

from iaas.api.idempotency import Reply, respond
from iaas.api.requests import Blueprint, principal
from iaas.api.v1.schemas import NAME, LabelledPageQuery, LabelsField, LabelsPatchField, Time, listing_schema, page
from iaas.api.wiring import cloud
from iaas.resources.catalog import KeyPair

blp = Blueprint("key_pairs", __name__, description="SSH keys that instances are made with.")


class KeyPairSchema(Schema):
    id = fields.String()
    name = fields.String()
    labels = LabelsField()
    project_id = fields.String()
    public_key = fields.String()
    fingerprint = fields.String()
    created_at = Time()
    updated_at = Time()


class NewKeyPairResultSchema(KeyPairSchema):
    private_key = fields.String(
        metadata={"description": "when the pair was made here, only this once", "x-optional": True}
    )


class NewKeyPairSchema(Schema):
    name = fields.String(required=True, validate=NAME)
    public_key = fields.String(validate=validate.Length(1, 16_384), metadata={"description": "made here when absent"})
    labels = LabelsField()


class KeyPairPatchSchema(Schema):
    name = fields.String(validate=NAME)
    labels = LabelsPatchField()


_KEY_PAIR = KeyPairSchema()


@blp.route("/key_pairs")
class KeyPairs(MethodView):
    @blp.query(LabelledPageQuery)
    @blp.response(200, listing_schema(KeyPairSchema))
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """List key pairs."""
        return page(*cloud().key_pairs.list_page(principal(), query["listing"]))

    @blp.arguments(NewKeyPairSchema)
    @blp.response(201, NewKeyPairResultSchema)
    def post(self, body: dict[str, Any]) -> Response:
        """Register a public key, or have a pair made."""
        who, service = principal(), cloud().key_pairs
        return respond(lambda: service.create(who, **body), _made, is_secret=True)


@blp.route("/key_pairs/<key_pair>")
class OneKeyPair(MethodView):
    @blp.response(200, KeyPairSchema)
    def get(self, key_pair: str) -> KeyPair:
        """Show a key pair."""
        return cloud().key_pairs.get(principal(), key_pair)

    @blp.arguments(KeyPairPatchSchema)
    @blp.response(200, KeyPairSchema)
    def patch(self, body: dict[str, Any], key_pair: str) -> KeyPair:
        """Change name and labels (merge patch)."""
        return cloud().key_pairs.update(principal(), key_pair, **body)

    @blp.response(204)
    def delete(self, key_pair: str) -> None:
        """Delete a key pair."""
        cloud().key_pairs.delete(principal(), key_pair)


def _made(result: tuple[KeyPair, str | None]) -> Reply:
    key_pair, private_key = result
    document: dict[str, Any] = _KEY_PAIR.dump(key_pair)
    if private_key is not None:
        document["private_key"] = private_key
    return Reply(201, document, f"/v1/key_pairs/{key_pair.id}")
