"""Who may call what: the least role of every route, as data. The application enforces it, and does not start with a
route that is missing here.

Roles act in one project, the credential's own. ``reader`` looks, ``member`` also changes the project's resources and
makes credentials up to its own role, ``admin`` is the operator of the cloud. What a table cannot say stays with the
services: which projects one sees, and that nobody hands on more than he has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from flask import Flask, Request
from werkzeug.routing import Rule

from iaas.resources.common import Role

Least = Role | None
"""None: everybody, without a credential."""

_ANYBODY: Least = None
_READER, _MEMBER, _ADMIN = Role.READER, Role.MEMBER, Role.ADMIN

ROUTES: Mapping[str, Mapping[str, Least]] = {
    "/": {"GET": _ANYBODY},
    "/v1": {"GET": _ANYBODY},
    "/v1/openapi.json": {"GET": _ANYBODY},
    "/v1/docs/": {"GET": _ANYBODY},
    "/v1/docs/<path:path>": {"GET": _ANYBODY},
    "/v1/capabilities": {"GET": _ANYBODY},
    "/v1/health": {"GET": _ANYBODY},
    "/metrics": {"GET": _ADMIN},
    "/v1/doctor": {"GET": _ADMIN},
    "/v1/doctor/actions/check": {"POST": _ADMIN},
    "/v1/doctor/actions/repair": {"POST": _ADMIN},
    "/v1/instances": {"GET": _READER, "POST": _MEMBER},
    "/v1/instances:batch": {"POST": _MEMBER},
    "/v1/instances/<instance>": {"GET": _READER, "PATCH": _MEMBER, "DELETE": _MEMBER},
    "/v1/instances/<instance>/actions/start": {"POST": _MEMBER},
    "/v1/instances/<instance>/actions/stop": {"POST": _MEMBER},
    "/v1/instances/<instance>/actions/restart": {"POST": _MEMBER},
    "/v1/instances/<instance>/actions/resize": {"POST": _MEMBER},
    "/v1/instances/<instance>/actions/rebuild": {"POST": _MEMBER},
    "/v1/instances/<instance>/actions/recover": {"POST": _MEMBER},
    "/v1/instances/<instance>/actions/exec": {"POST": _MEMBER},
    "/v1/instances/<instance>/console": {"GET": _READER},
    "/v1/vpcs": {"GET": _READER, "POST": _MEMBER},
    "/v1/vpcs/<vpc>": {"GET": _READER, "PATCH": _MEMBER, "DELETE": _MEMBER},
    "/v1/vpcs/<vpc>/routes": {"GET": _READER, "POST": _MEMBER, "PUT": _MEMBER},
    "/v1/vpcs/<vpc>/routes:batch": {"POST": _MEMBER},
    "/v1/vpcs/<vpc>/routes/<route>": {"GET": _READER, "DELETE": _MEMBER},
    "/v1/vpcs/<vpc>/dns_records": {"GET": _READER, "POST": _MEMBER},
    "/v1/vpcs/<vpc>/dns_records/<record>": {"GET": _READER, "DELETE": _MEMBER},
    "/v1/subnets": {"GET": _READER, "POST": _MEMBER},
    "/v1/subnets/<subnet>": {"GET": _READER, "PATCH": _MEMBER, "DELETE": _MEMBER},
    "/v1/subnets/<subnet>/actions/join": {"POST": _MEMBER},
    "/v1/subnets/<subnet>/actions/leave": {"POST": _MEMBER},
    "/v1/nics": {"GET": _READER, "POST": _MEMBER},
    "/v1/nics/<nic>": {"GET": _READER, "PATCH": _MEMBER, "DELETE": _MEMBER},
    "/v1/nics/<nic>/actions/attach": {"POST": _MEMBER},
    "/v1/nics/<nic>/actions/detach": {"POST": _MEMBER},
    "/v1/nics/<nic>/statistics": {"GET": _READER},
    "/v1/address_reservations": {"GET": _READER, "POST": _MEMBER},
    "/v1/address_reservations/<reservation>": {"GET": _READER, "PATCH": _MEMBER, "DELETE": _MEMBER},
    "/v1/reachability": {"POST": _READER},
    "/v1/jobs": {"GET": _READER},
    "/v1/jobs/<job_id>": {"GET": _READER},
    "/v1/jobs/<job_id>/actions/cancel": {"POST": _MEMBER},
    "/v1/events": {"GET": _READER},
    "/v1/key_pairs": {"GET": _READER, "POST": _MEMBER},
    "/v1/key_pairs/<key_pair>": {"GET": _READER, "PATCH": _MEMBER, "DELETE": _MEMBER},
    "/v1/zones": {"GET": _READER},
    "/v1/zones/<zone>": {"GET": _READER, "PATCH": _ADMIN},
    "/v1/hosts": {"GET": _ADMIN},
    "/v1/hosts/<host>": {"GET": _ADMIN, "PATCH": _ADMIN},
    "/v1/flavors": {"GET": _READER, "POST": _ADMIN},
    "/v1/flavors/<flavor>": {"GET": _READER, "PATCH": _ADMIN, "DELETE": _ADMIN},
    "/v1/images": {"GET": _READER},
    "/v1/images/<image>": {"GET": _READER, "PATCH": _ADMIN},
    "/v1/projects": {"GET": _ADMIN, "POST": _ADMIN},
    "/v1/projects/<project>": {"GET": _READER, "PATCH": _ADMIN, "DELETE": _ADMIN},
    "/v1/projects/<project>/quotas": {"GET": _READER, "PATCH": _ADMIN},
    "/v1/quotas": {"GET": _READER},
    "/v1/api_tokens": {"GET": _READER, "POST": _MEMBER},
    "/v1/api_tokens/<api_token>": {"GET": _READER, "PATCH": _MEMBER, "DELETE": _MEMBER},
    "/v1/access_keys": {"GET": _READER, "POST": _MEMBER},
    "/v1/access_keys/<access_key>": {"GET": _READER, "PATCH": _MEMBER, "DELETE": _MEMBER},
}


class RouteNotDeclaredError(Exception):
    """A route of the application is not in the table above."""


def declared(method: str, rule: str) -> Least:
    """Return the least role of a route. HEAD counts as GET; OPTIONS is for whoever may call any method of it.

    Raises:
        KeyError: the table does not have it.
    """
    methods = ROUTES[rule]
    if method == "OPTIONS":
        order: list[Least] = [_ANYBODY, _READER, _MEMBER, _ADMIN]
        return min(methods.values(), key=order.index)
    return methods["GET" if method == "HEAD" else method]


def least_role(request: Request) -> Least:
    """Return the least role for the request. A path that is no route is for holders of any credential."""
    rule = request.url_rule
    if rule is None:
        return _READER if request.path.startswith("/v1") else _ANYBODY
    return declared(request.method, rule.rule)


def routes(app: Flask) -> Iterator[tuple[str, str]]:
    """Yield (method, rule) for every route of the application; HEAD and OPTIONS go with the others."""
    for rule in app.url_map.iter_rules():
        for method in sorted(_methods(rule)):
            yield method, rule.rule


def check_declared(app: Flask) -> None:
    """Return when the table holds all routes of the application (it may hold more: some are registered on demand).

    Raises:
        RouteNotDeclaredError: names those that are missing.
    """
    missing = [f"{method} {rule}" for method, rule in routes(app) if method not in ROUTES.get(rule, {})]
    if missing:
        raise RouteNotDeclaredError(f"give these routes a least role in api/access.py: {', '.join(missing)}")


def _methods(rule: Rule) -> set[str]:
    return set(rule.methods or ()) - {"HEAD", "OPTIONS"}
