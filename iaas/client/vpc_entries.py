"""Routes and DNS records: what lives in a VPC only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from iaas.client.actions import Action, action_from_answer, removal_from_answer
from iaas.client.collection import Collection
from iaas.client.jobs import DEFAULT_WAIT_S, Job
from iaas.client.resource import STRINGS, Resource, decode, item_path, mapping_of, reads

if TYPE_CHECKING:
    from iaas.client.client import Client


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRoute:
    """Packets for ``destination`` go to an ``instance``, a ``nic`` (ids or names) or an ``address``: one of them."""

    destination: str
    instance: str | None = None
    nic: str | None = None
    address: str | None = None

    def to_body(self) -> dict[str, Any]:
        """Return the JSON object of a create call."""
        body = {
            "destination": self.destination,
            "instance": self.instance,
            "nic": self.nic,
            "address": self.address,
        }
        return {name: value for name, value in body.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteTarget:
    """Where a route leads: ``id`` of an instance or NIC, or ``address``."""

    type: str = ""
    id: str | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(Resource):
    """Packets of the VPC for ``destination`` go to ``next_hop``: the address that ``target`` has now, or None."""

    path: ClassVar[str] = "routes"
    key: ClassVar[str] = "route"

    vpc_id: str = ""
    destination: str = ""
    target: RouteTarget = field(default_factory=RouteTarget, metadata=reads(lambda data: decode(RouteTarget, data)))
    next_hop: str | None = None

    def delete(self) -> Action[Route]:
        """Remove it."""
        return removal_from_answer(self, self.client.request("DELETE", self._own_path()))

    def _own_path(self, rest: str = "") -> str:
        return item_path(Route, self.id, within=_path_within(self.vpc_id, "routes")) + rest


@dataclass(frozen=True, slots=True, kw_only=True)
class DNSRecord(Resource):
    """``name`` is relative to the VPC's domain unless it ends with a dot. ``type`` is A, CNAME or TXT."""

    path: ClassVar[str] = "dns_records"
    key: ClassVar[str] = "dns_record"

    vpc_id: str = ""
    type: str = ""
    values: tuple[str, ...] = field(default=(), metadata=STRINGS)
    ttl_s: int = 60

    def delete(self) -> Action[DNSRecord]:
        """Remove it."""
        return removal_from_answer(self, self.client.request("DELETE", self._own_path()))

    def _own_path(self, rest: str = "") -> str:
        return item_path(DNSRecord, self.id, within=_path_within(self.vpc_id, "dns_records")) + rest


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutesAction:
    """What the server answered to a change of many routes: they, and the ``job`` that brings them to the router."""

    routes: tuple[Route, ...]
    job: Job

    def wait(
        self, *, timeout_s: float | None = DEFAULT_WAIT_S, on_progress: Callable[[Job], None] | None = None
    ) -> tuple[Route, ...]:
        """Return the routes when they are in force; as ``Action.wait``."""
        self.job.wait(timeout_s=timeout_s, on_progress=on_progress)
        return self.routes


class Routes(Collection[Route]):
    """``vpc.routes``; ``client.vpcs.get("backend").routes``."""

    def __init__(self, client: Client, vpc: str) -> None:
        super().__init__(client, Route, path=_path_within(vpc, "routes"))

    def add(
        self, destination: str, *, instance: str | None = None, nic: str | None = None, address: str | None = None
    ) -> Action[Route]:
        """Add a route to one target.

        Raises:
            InvalidInput: a field is wrong: ``errors`` names it.
            Conflict: there is a route to that destination.
        """
        body = NewRoute(destination=destination, instance=instance, nic=nic, address=address).to_body()
        return action_from_answer(Route, self._client, self._post(body))

    def add_many(self, routes: Iterable[NewRoute]) -> RoutesAction:
        """Add all of ``routes`` (1 to 1000) or none, in one call."""
        return self._send("POST", f"{self._path}:batch", routes)

    def replace(self, routes: Iterable[NewRoute]) -> RoutesAction:
        """Make ``routes`` (up to 1000) all that there are, at once."""
        return self._send("PUT", self._path, routes)

    def _send(self, method: str, path: str, routes: Iterable[NewRoute]) -> RoutesAction:
        answer: Mapping[str, Any] = mapping_of(
            self._client.request(method, path, body={"routes": [each.to_body() for each in routes]}), "routes"
        )
        return RoutesAction(
            routes=tuple(Route.from_answer(self._client, each) for each in answer.get("routes") or ()),
            job=Job.from_answer(self._client, answer.get("job")),
        )


class DNSRecords(Collection[DNSRecord]):
    """``vpc.dns_records``."""

    def __init__(self, client: Client, vpc: str) -> None:
        super().__init__(client, DNSRecord, path=_path_within(vpc, "dns_records"))

    def add(self, name: str, values: Sequence[str], *, type: str = "A", ttl_s: int | None = None) -> Action[DNSRecord]:
        """Add a record of ``type`` A (addresses), CNAME (one name) or TXT (texts).

        Raises:
            InvalidInput: a field is wrong: ``errors`` names it.
            Conflict: there is such a record.
        """
        fields = {"name": name, "type": type, "values": list(values), "ttl_s": ttl_s}
        return action_from_answer(DNSRecord, self._client, self._post(fields))


def _path_within(vpc: str, collection: str) -> str:
    from iaas.client.vpcs import VPC  # it has the collections of this module, so it imports them first

    return f"{item_path(VPC, vpc)}/{collection}"
