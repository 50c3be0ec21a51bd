"""/v1/projects, api_tokens, access_keys."""

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
    Time,
    listing_schema,
    page,
)
from iaas.api.wiring import cloud
from iaas.resources.common import Role
from iaas.resources.identity import AccessKey, APIToken, Project

blp = Blueprint("identity", __name__, description="Projects and their credentials.")

_ROLES = validate.OneOf([role.value for role in Role])


class ProjectSchema(Schema):
    id = fields.String()
    name = fields.String()
    labels = LabelsField()
    description = fields.String()
    created_at = Time()
    updated_at = Time()


class NewProjectSchema(Schema):
    name = fields.String(required=True, validate=NAME)
    description = fields.String(validate=validate.Length(max=1024))
    labels = LabelsField()


class ProjectPatchSchema(Schema):
    name = fields.String(validate=NAME)
    description = fields.String(validate=validate.Length(max=1024))
    labels = LabelsPatchField()


class APITokenSchema(Schema):
    id = fields.String()
    name = fields.String()
    labels = LabelsField()
    project_id = fields.String()
    role = fields.String(validate=_ROLES)
    expires_at = Time(allow_none=True)
    created_at = Time()


class NewAPITokenResultSchema(APITokenSchema):
    token = fields.String(metadata={"description": "only this once"})


class NewAPITokenSchema(Schema):
    name = fields.String(required=True, validate=NAME)
    role = fields.String(validate=_ROLES)
    project = fields.String(
        validate=validate.Length(1, 128), metadata={"description": "name or id; your own if absent"}
    )
    expires_at = fields.AwareDateTime(format="iso")
    labels = LabelsField()


class CredentialPatchSchema(Schema):
    name = fields.String(validate=NAME)
    labels = LabelsPatchField()


class AccessKeySchema(Schema):
    id = fields.String()
    name = fields.String()
    labels = LabelsField()
    project_id = fields.String()
    role = fields.String(validate=_ROLES)
    created_at = Time()


class NewAccessKeyResultSchema(AccessKeySchema):
    secret_access_key = fields.String(metadata={"description": "only this once"})


class NewAccessKeySchema(Schema):
    name = fields.String(required=True, validate=NAME)
    role = fields.String(validate=_ROLES)
    project = fields.String(
        validate=validate.Length(1, 128), metadata={"description": "name or id; your own if absent"}
    )
    labels = LabelsField()


_PROJECT = ProjectSchema()
_API_TOKEN = APITokenSchema()
_ACCESS_KEY = AccessKeySchema()


@blp.route("/projects")
class Projects(MethodView):
    @blp.query(LabelledPageQuery)
    @blp.response(200, listing_schema(ProjectSchema))
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """List projects (admins)."""
        return page(*cloud().identity.list_projects(principal(), query["listing"]))

    @blp.arguments(NewProjectSchema)
    @blp.response(201, ProjectSchema)
    def post(self, body: dict[str, Any]) -> Response:
        """Create a project (admins)."""
        who, service = principal(), cloud().identity
        return respond(lambda: service.create_project(who, **body), _new_project)


@blp.route("/projects/<project>")
class OneProject(MethodView):
    @blp.response(200, ProjectSchema)
    def get(self, project: str) -> Project:
        """Show a project: any to admins, one's own to others."""
        return cloud().identity.get_project(principal(), project)

    @blp.arguments(ProjectPatchSchema)
    @blp.response(200, ProjectSchema)
    def patch(self, body: dict[str, Any], project: str) -> Project:
        """Change a project (admins, merge patch)."""
        return cloud().identity.update_project(principal(), project, **body)

    @blp.response(204)
    def delete(self, project: str) -> None:
        """Delete an empty project with its credentials (admins)."""
        cloud().identity.delete_project(principal(), project)


@blp.route("/api_tokens")
class APITokens(MethodView):
    @blp.query(LabelledPageQuery)
    @blp.response(200, listing_schema(APITokenSchema))
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """List the project's API tokens."""
        return page(*cloud().identity.list_tokens(principal(), query["listing"]))

    @blp.arguments(NewAPITokenSchema)
    @blp.alt_response(404)  # a project that is not one's own
    @blp.response(201, NewAPITokenResultSchema)
    def post(self, body: dict[str, Any]) -> Response:
        """Make an API token; nobody hands on more than he has."""
        role = Role(body.pop("role")) if "role" in body else None
        who, service = principal(), cloud().identity
        return respond(lambda: service.create_token(who, role=role, **body), _new_token, is_secret=True)


@blp.route("/api_tokens/<api_token>")
class OneAPIToken(MethodView):
    @blp.response(200, APITokenSchema)
    def get(self, api_token: str) -> APIToken:
        """Show an API token (never its secret)."""
        return cloud().identity.get_token(principal(), api_token)

    @blp.arguments(CredentialPatchSchema)
    @blp.response(200, APITokenSchema)
    def patch(self, body: dict[str, Any], api_token: str) -> APIToken:
        """Change name and labels (merge patch)."""
        return cloud().identity.update_token(principal(), api_token, **body)

    @blp.response(204)
    def delete(self, api_token: str) -> None:
        """Revoke an API token."""
        cloud().identity.delete_token(principal(), api_token)


@blp.route("/access_keys")
class AccessKeys(MethodView):
    @blp.query(LabelledPageQuery)
    @blp.response(200, listing_schema(AccessKeySchema))
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """List the project's access keys."""
        return page(*cloud().identity.list_access_keys(principal(), query["listing"]))

    @blp.arguments(NewAccessKeySchema)
    @blp.alt_response(404)  # a project that is not one's own
    @blp.response(201, NewAccessKeyResultSchema)
    def post(self, body: dict[str, Any]) -> Response:
        """Make an access key for signed dialects."""
        role = Role(body.pop("role")) if "role" in body else None
        who, service = principal(), cloud().identity
        return respond(lambda: service.create_access_key(who, role=role, **body), _new_access_key, is_secret=True)


@blp.route("/access_keys/<access_key>")
class OneAccessKey(MethodView):
    @blp.response(200, AccessKeySchema)
    def get(self, access_key: str) -> AccessKey:
        """Show an access key (never its secret)."""
        return cloud().identity.get_access_key(principal(), access_key)

    @blp.arguments(CredentialPatchSchema)
    @blp.response(200, AccessKeySchema)
    def patch(self, body: dict[str, Any], access_key: str) -> AccessKey:
        """Change name and labels (merge patch)."""
        return cloud().identity.update_access_key(principal(), access_key, **body)

    @blp.response(204)
    def delete(self, access_key: str) -> None:
        """Revoke an access key."""
        cloud().identity.delete_access_key(principal(), access_key)


def _new_project(project: Project) -> Reply:
    return Reply(201, _PROJECT.dump(project), f"/v1/projects/{project.id}")


def _new_token(result: tuple[APIToken, str]) -> Reply:
    token, secret = result
    return Reply(201, {**_API_TOKEN.dump(token), "token": secret}, f"/v1/api_tokens/{token.id}")


def _new_access_key(result: tuple[AccessKey, str]) -> Reply:
    key, secret = result
    return Reply(201, {**_ACCESS_KEY.dump(key), "secret_access_key": secret}, f"/v1/access_keys/{key.id}")
