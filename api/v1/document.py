"""The OpenAPI document, completed: what holds for every operation is said here once, from the tables that enforce it.

The views say what only they know (paths, schemas, their answers of success); here come the roles' refusals, the
headers, the errors as problem documents, the links from an answer to the calls that take its ids, and operation ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from iaas.api import access
from iaas.api.v1.schemas import NAME
from iaas.resources.common import Role

METHODS = ("get", "post", "put", "patch", "delete")
GUARDED: Mapping[str, Any] = {"x-if-match": True}
"""For ``blp.doc`` of a view that honours If-Match."""
TAGGED: Mapping[str, Any] = {"x-etag": True}
"""For ``blp.doc`` of a view that answers with an ETag."""

_PROBLEM = "application/problem+json"
_MERGE_PATCH = "application/merge-patch+json"

_ERRORS: Mapping[int, tuple[str, str]] = {
    400: ("Malformed", "The body is not one JSON object in UTF-8 (`malformed`)."),
    401: ("Unauthenticated", "No valid API token (`unauthenticated`)."),
    403: ("Forbidden", "The role may not (`permission_denied`), or a quota is used up (`quota_exceeded`)."),
    404: ("NotFound", "It does not exist in the credential's project (`not_found`)."),
    409: (
        "Conflict",
        "The state of something forbids it; `code` says why, `retryable` whether to come again.",
    ),
    410: ("Gone", "Events after that id were purged, or no event has had it yet (`events_expired`)."),
    412: ("PreconditionFailed", "If-Match names another generation (`precondition_failed`)."),
    413: ("TooLarge", "The body is too long (`payload_too_large`)."),
    415: ("UnsupportedMediaType", "The body is not said to be JSON (`unsupported_media_type`)."),
    422: ("Invalid", "Fields, parameters or headers that are wrong or unknown; `errors` names each (`invalid_input`)."),
    429: ("TooMany", "As many do this as the server lets (`rate_limited`)."),
    503: ("Unavailable", "A backend or the database does not answer now; the same request may pass later."),
}

_PARAMETERS: Mapping[str, dict[str, Any]] = {
    "RequestId": {
        "name": "X-Request-Id",
        "in": "header",
        "description": "Comes back and goes into the logs, if it is 1 to 64 of `A-Za-z0-9_.:-`; else one is made.",
        "schema": {"type": "string"},
    },
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": (
            "The same request with the same key is done once, within 24 hours, and answered the same. Another"
            " request with it: 422 `idempotency_key_reused`; while the first still runs: 409 `idempotency_in_progress`."
        ),
        "schema": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[ -~]+$"},
    },
    "IfMatch": {
        "name": "If-Match",
        "in": "header",
        "description": "An ETag that this server gave; the call is refused (412) when the generation is another now.",
        "schema": {"type": "string"},
    },
    "LastEventId": {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "The event after which a stream goes on, in place of `after`; of no meaning for a page.",
        "schema": {"type": "string"},
    },
}

_HEADERS: Mapping[str, dict[str, Any]] = {
    "RequestId": {"description": "the id of this request", "required": True, "schema": {"type": "string"}},
    "Location": {"description": "the path of what was made or is changing", "schema": {"type": "string"}},
    "ETag": {"description": "the generation in quotes", "required": True, "schema": {"type": "string"}},
    "RetryAfter": {
        "description": "seconds after which to come again",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "Challenge": {"description": "how to authenticate", "required": True, "schema": {"type": "string"}},
    "Replayed": {
        "description": "`true` when this answer is that of an earlier request with the same key",
        "schema": {"type": "string", "enum": ["true"]},
    },
}


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document of the views with all that they have in common."""
    paths: dict[str, dict[str, Any]] = document["paths"]
    components: dict[str, Any] = document["components"]
    for path, method, operation in _operations(paths):
        _complete_operation(path, method, operation, components["schemas"])
    for path, method, operation in _operations(paths):
        _add_links(path, method, operation, paths)
    _complete_schemas(paths, components["schemas"])
    components["parameters"] = dict(_PARAMETERS)
    components["headers"] = dict(_HEADERS)
    components["responses"] = {name: _error(status, text) for status, (name, text) in _ERRORS.items()}
    return document


def _operations(paths: Mapping[str, dict[str, Any]]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in paths.items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


# -- operations -------------------------------------------------------------------------------------------------


def _complete_operation(path: str, method: str, operation: dict[str, Any], schemas: Mapping[str, Any]) -> None:
    is_guarded = operation.pop("x-if-match", False)
    is_tagged = operation.pop("x-etag", False)
    is_stream = path == "/v1/events"
    operation["operationId"] = operation_id(path, method)
    least = access.ROUTES[path.replace("{", "<").replace("}", ">")][method.upper()]
    body = operation.get("requestBody")

    headers = ["RequestId"]
    statuses = {422, 503}
    if least is not None:
        statuses.add(401)
    if least in (Role.MEMBER, Role.ADMIN):
        statuses.add(403)
    if "{" in path:
        statuses.add(404)
    if method != "get":
        statuses.add(409)
    if method == "post":
        headers.append("IdempotencyKey")
    if is_guarded:
        headers.append("IfMatch")
        statuses.add(412)
    if is_stream:
        headers.append("LastEventId")
        statuses.add(429)
    if body is not None:
        statuses |= {400, 413, 415}
        _complete_body(method, body, schemas)

    operation.setdefault("parameters", []).extend({"$ref": f"#/components/parameters/{name}"} for name in headers)
    responses: dict[str, Any] = operation["responses"]
    declared = {status for status in responses if status.startswith("2")}
    statuses |= {int(status) for status in responses if status not in declared}
    for status in declared:
        found: dict[str, Any] = responses[status].setdefault("headers", {})
        found["X-Request-Id"] = {"$ref": "#/components/headers/RequestId"}
        if status in ("201", "202"):
            found["Location"] = {"$ref": "#/components/headers/Location"}
        if method == "post":
            found["Idempotency-Replayed"] = {"$ref": "#/components/headers/Replayed"}
        if is_tagged:
            found["ETag"] = {"$ref": "#/components/headers/ETag"}
        if is_stream:
            responses[status]["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    operation["responses"] = {status: responses[status] for status in sorted(declared)} | {
        str(status): {"$ref": f"#/components/responses/{_ERRORS[status][0]}"} for status in sorted(statuses)
    }


def _complete_body(method: str, body: dict[str, Any], schemas: Mapping[str, Any]) -> None:
    content = body["content"]
    schema = content["application/json"]["schema"]
    body["required"] = bool(schemas[_name_of(schema)].get("required"))  # an absent body counts as {}
    if method == "patch":
        content[_MERGE_PATCH] = {"schema": schema}


def _error(status: int, text: str) -> dict[str, Any]:
    headers = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
    if status in (429, 503):
        headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
    if status == 401:
        headers["WWW-Authenticate"] = {"$ref": "#/components/headers/Challenge"}
    return {
        "description": text,
        "headers": headers,
        "content": {_PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def operation_id(path: str, method: str) -> str:
    """Return the name of an operation: ``create_instance``, ``stop_instance``, ``list_project_quotas``."""
    parts = path.removeprefix("/v1/").split("/")
    words = []
    for index, part in enumerate(parts):
        if part.startswith("{"):
            continue
        is_one = method == "post" or (parts[index + 1 : index + 2] and parts[index + 1].startswith("{"))
        collection, _, suffix = part.partition(":")
        words += [collection.removesuffix("s") if is_one else collection, *filter(None, [suffix])]
    if "actions" in parts:
        return f"{parts[-1]}_{words[0]}"
    verb = {"get": "get", "post": "create", "put": "replace", "patch": "update", "delete": "delete"}[method]
    if method == "get" and parts[-1].endswith("s") and not parts[-1].startswith(("capabilit", "statistic")):
        verb = "list"
    if parts == ["reachability"]:
        verb = "check"
    return "_".join([verb, *words])


# -- links ------------------------------------------------------------------------------------------------------


def _add_links(path: str, method: str, operation: dict[str, Any], paths: Mapping[str, dict[str, Any]]) -> None:
    """From an answer of success to the calls that take an id which is in it."""
    for status, response in operation["responses"].items():
        if not status.startswith("2") or "content" not in response:
            continue
        schema = _name_of(response["content"]["application/json"]["schema"])
        links: dict[str, Any] = {}
        for collection, pointer in _ids_in(path, method, schema):
            for target, _, other in _operations(paths):
                match = re.fullmatch(re.escape(collection) + r"/\{(\w+)\}([^{]*)", target)
                if match:
                    outer = re.findall(r"\{(\w+)\}", collection)
                    links[other["operationId"]] = {
                        "operationId": other["operationId"],
                        "parameters": {
                            **{name: f"$request.path.{name}" for name in outer},
                            match[1]: f"$response.body#{pointer}",
                        },
                    }
        if links:
            response["links"] = links


def _ids_in(path: str, method: str, schema: str) -> Iterator[tuple[str, str]]:
    """Yield (collection, where its id is in the answer); a nested one is that of the same parent."""
    if schema == "Accepted":
        yield "/v1/instances", "/instance/id"
        yield "/v1/jobs", "/job/id"
    elif schema == "BatchAccepted":
        yield "/v1/instances", "/instances/0/id"
        yield "/v1/jobs", "/jobs/0/id"
    elif schema.endswith("Accepted"):
        yield "/v1/jobs", "/job/id"
        collection = re.sub(r"/\{\w+\}$", "", path.partition("/actions/")[0].partition(":")[0])
        things = collection.rpartition("/")[2]
        if schema == "RoutesAccepted":
            yield collection, "/routes/0/id"
        elif schema != "JobAccepted":
            yield collection, f"/{things.removesuffix('s')}/id"
    elif schema.endswith("List"):
        yield path, "/items/0/id"
    elif method == "post" and "{" not in path:
        yield path, "/id"


# -- schemas ----------------------------------------------------------------------------------------------------


def _complete_schemas(paths: Mapping[str, dict[str, Any]], schemas: dict[str, Any]) -> None:
    """Say of what we answer that all of its members are there, and leave room for more in later versions."""
    asked, answered = set[str](), {"Problem"}
    for _, _, operation in _operations(paths):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            _reach(content["schema"], schemas, asked)
        for response in operation["responses"].values():
            for content in response.get("content", {}).values():
                _reach(content["schema"], schemas, answered)
    _reach(schemas["Problem"], schemas, answered)
    for name in schemas.keys() - asked - answered:
        del schemas[name]  # the library's own error and pagination
    for name, schema in schemas.items():
        for member in schema["properties"].values():
            if member.get("pattern") == NAME.regex.pattern:
                member.update(minLength=1, maxLength=128, pattern=_NAME_PATTERN)
        if name in answered - asked:
            schema.pop("additionalProperties", None)
            optional = {each for each, member in schema["properties"].items() if member.pop("x-optional", False)}
            schema["required"] = sorted(schema["properties"].keys() - optional)


_NAME_PATTERN = r"^[^\s\x00-\x1f\x7f\/]([^\x00-\x1f\x7f\/]*[^\s\x00-\x1f\x7f\/])?$"  # as ECMA 262 has it


def _reach(part: Any, schemas: Mapping[str, Any], found: set[str]) -> None:
    """Add the names of all component schemas that ``part`` leads to."""
    if isinstance(part, dict):
        if "$ref" in part and (name := _name_of(part)) not in found:
            found.add(name)
            _reach(schemas[name], schemas, found)
        for member in part.values():
            _reach(member, schemas, found)
    elif isinstance(part, list):
        for member in part:
            _reach(member, schemas, found)


def _name_of(schema: Mapping[str, Any]) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]
