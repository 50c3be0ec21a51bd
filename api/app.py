"""Builds the WSGI application around one cloud."""

from __future__ import annotations

import json
import re
import time
from copy import deepcopy
from functools import cache

import structlog
from flask import Flask, Response, g, redirect, request
from flask_smorest import Api

from iaas import __version__
from iaas.api import access, idempotency, metrics_page, wiring
from iaas.api.inside import tenant_api
from iaas.api.requests import MAX_BODY_BYTES, refuse_unknown_query
from iaas.api.turns import InTurns
from iaas.api.v1 import (
    address_reservations,
    catalog,
    doctor,
    errors,
    events,
    identity,
    instances,
    jobs,
    key_pairs,
    meta,
    nics,
    quotas,
    reachability,
    subnets,
    vpc_entries,
    vpcs,
)
from iaas.api.v1.document import complete
from iaas.api.v1.schemas import ProblemSchema, Time
from iaas.cloud import Cloud
from iaas.kernel.errors import Unauthenticated
from iaas.kernel.log_scope import enter_scope
from iaas.services.access import require

DOCS = "/v1/docs"
NO_ROUTE = "(none)"  # the label of requests that no route answers
_NETWORKS = (vpcs, vpc_entries, subnets, nics, address_reservations, reachability)
_REQUEST_ID = re.compile(r"^[A-Za-z0-9_.:-]{1,64}$")

log = structlog.get_logger(__name__)


class _Api(Api):  # type: ignore[misc]  # flask-smorest publishes no types
    DEFAULT_ERROR_RESPONSE_NAME = None  # the document names every error by its status


def create_app(cloud: Cloud, *, proxy_url: str | None = None, metrics_open: bool = False) -> Flask:
    """Return the application.

    Args:
        proxy_url: told to clients as the way to guests.
        metrics_open: /metrics needs no credential.
    """
    app = Flask("iaas", static_folder=None)
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # a redirect would break signed dialects
    app.json.sort_keys = False  # type: ignore[attr-defined]  # the default provider has it, the base class does not say so
    app.config.update(
        API_TITLE="iaas",
        API_VERSION="v1",
        OPENAPI_VERSION="3.1.0",
        MAX_CONTENT_LENGTH=MAX_BODY_BYTES,
    )
    app.config[meta.PROXY_URL] = proxy_url
    app.extensions[wiring.KEY] = cloud

    app.before_request(_begin)
    tenant_api.register(app)
    app.before_request(_authenticate)
    app.before_request(refuse_unknown_query)
    idempotency.register(app)
    app.after_request(_end)

    api = _Api(
        app,
        spec_kwargs={
            "info": {"description": "A cloud on one machine: VMs and container machines behind one API."},
            "security": [{"token": []}],
        },
    )
    api.register_field(Time, "string", "date-time")
    api.spec.components.security_scheme("token", {"type": "http", "scheme": "bearer"})
    api.spec.components.schema("Problem", schema=ProblemSchema)
    for module in (instances, jobs, events, doctor, key_pairs, catalog, identity, quotas, meta, *_NETWORKS):
        api.register_blueprint(module.blp, url_prefix="/v1")
    errors.register(app)
    _add_pages(app, api)
    metrics_page.register(app, is_open=metrics_open)
    access.check_declared(app)
    if cloud.turns is not None:
        app.wsgi_app = InTurns(app.wsgi_app, cloud.turns)  # type: ignore[method-assign]  # Flask's own way to wrap it
    return app


def _add_pages(app: Flask, api: Api) -> None:
    from flask_swagger_ui import get_swaggerui_blueprint

    @cache  # for whoever asks first, since most servers are never asked
    def document() -> str:
        return json.dumps(complete(deepcopy(api.spec.to_dict())), indent=2)

    app.add_url_rule(
        "/v1/openapi.json", "openapi_json", lambda: Response(document(), mimetype="application/json"), methods=["GET"]
    )

    app.register_blueprint(
        get_swaggerui_blueprint(
            DOCS, "/v1/openapi.json", config={"app_name": "iaas API", "validatorUrl": None, "docExpansion": "list"}
        )
    )

    def root() -> Response:
        return redirect(f"{DOCS}/")  # type: ignore[return-value]  # werkzeug's response is what Flask takes

    app.add_url_rule("/", "root", root)
    app.add_url_rule("/v1", "v1_root", root)


def _begin() -> None:
    g.began_at_s = time.perf_counter()
    wanted = request.headers.get("X-Request-Id", "")
    cloud = wiring.cloud()
    g.request_id = wanted if _REQUEST_ID.match(wanted) else cloud.ids.new("req")
    enter_scope({"request_id": g.request_id, **tenant_api.log_fields()})


def _authenticate() -> None:
    least = access.least_role(request)
    if least is None or metrics_page.is_open():
        return
    header = request.headers.get("Authorization", "")
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("send the API token as 'Authorization: Bearer <token>'")
    principal = wiring.cloud().identity.authenticate(token.strip(), request_id=g.request_id)
    g.principal = tenant_api.as_seen_from(tenant_api.origin(), principal)
    require(g.principal, least)


def _end(response: Response) -> Response:
    response.headers["X-Request-Id"] = g.get("request_id", "")
    response.headers["Server"] = f"iaas/{__version__}"
    began_at_s = g.get("began_at_s")
    if began_at_s is not None:
        seconds = time.perf_counter() - began_at_s
        route = request.url_rule.rule if request.url_rule is not None else NO_ROUTE
        wiring.cloud().metrics.request_answered(route, request.method, response.status_code, seconds)
        log.info(
            "request", method=request.method, route=route, status=response.status_code, ms=round(seconds * 1000, 2)
        )
    return response
