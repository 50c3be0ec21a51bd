"""What wishes for routes mean: targets looked up, fields checked against the VPC; nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TypeVar

from sqlalchemy import Connection

from iaas.db.repositories import instances, subnets
from iaas.kernel.ids import ID_PATTERN
from iaas.resources.instances import Instance
from iaas.resources.networks import NIC, VPC, NewRoute, RouteTarget, Subnet
from iaas.services.cidrs import check_destination, check_host, invalid, parse_address
from iaas.services.nic_wishes import find_nic

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutePlan:
    """A wish with its target looked up: an instance's or NIC's id, or an address."""

    destination: str
    target_type: RouteTarget
    target: str


class RoutePlanner:
    """Plans the routes of one request; what several of them lead to is looked up once.

    It reads inside the transaction that writes the routes, when the VPC's row is held: subnets stay as they are.
    """

    def __init__(self, connection: Connection, project_id: str, vpc: VPC) -> None:
        self._connection = connection
        self._project_id = project_id
        self._vpc = vpc
        self._subnets = [
            (IPv4Network(subnet.cidr), subnet)
            for subnet in subnets.of_vpc(connection, vpc.id)
            if subnet.cidr is not None
        ]
        self._instances: dict[str, Instance | None] = {}
        self._nics: dict[str, NIC | None] = {}

    def plan(self, wish: NewRoute, prefix: str) -> RoutePlan:
        """Return the plan of one wish.

        Args:
            prefix: stands before the fields of errors.

        Raises:
            InvalidInput: what is wrong with it.
        """
        destination = check_destination(wish.destination, prefix + "destination")
        if any(destination == block for block, _ in self._subnets):
            message = f"{destination} is a subnet of the VPC: packets for it need no route"
            raise invalid(prefix + "destination", "conflict", message)
        given = [name for name in ("instance", "nic", "address") if getattr(wish, name) is not None]
        if not given:
            raise invalid(prefix + "instance", "required", "a route needs a target: an instance, a NIC or an address")
        if len(given) > 1:
            raise invalid(prefix + given[1], "excluded", f"{given[0]} is given; a route has one target")
        if wish.instance is not None:
            return self._to_instance(destination, wish.instance, prefix + "instance")
        if wish.nic is not None:
            return self._to_nic(destination, wish.nic, prefix + "nic")
        return self._to_address(destination, wish.address or "", prefix + "address")

    def _to_instance(self, destination: IPv4Network, wanted: str, field: str) -> RoutePlan:
        instance = _once(self._instances, wanted, self._find_instance)
        if instance is None:
            raise invalid(field, "not_found", f"there is no instance {wanted}")
        nic = next((nic for nic in instance.nics if nic.vpc_id == self._vpc.id), None)
        if nic is None:
            raise invalid(field, "outside", f"instance {instance.id} has no NIC in VPC {self._vpc.id}")
        self._refuse_loop(destination, nic.address, field)
        return RoutePlan(destination=str(destination), target_type=RouteTarget.INSTANCE, target=instance.id)

    def _to_nic(self, destination: IPv4Network, wanted: str, field: str) -> RoutePlan:
        nic = _once(self._nics, wanted, lambda name: find_nic(self._connection, self._project_id, name))
        if nic is None:
            raise invalid(field, "not_found", f"there is no NIC {wanted}")
        if nic.vpc_id != self._vpc.id:
            raise invalid(field, "outside", f"NIC {nic.id} is not in VPC {self._vpc.id}")
        self._refuse_loop(destination, nic.address, field)
        return RoutePlan(destination=str(destination), target_type=RouteTarget.NIC, target=nic.id)

    def _to_address(self, destination: IPv4Network, wanted: str, field: str) -> RoutePlan:
        address = parse_address(wanted, field)
        found = self._subnet_at(address)
        if found is None:
            raise invalid(field, "outside", f"{address} is in no subnet of VPC {self._vpc.id}")
        block, subnet = found
        check_host(wanted, block, field)
        if str(address) == subnet.gateway:
            raise invalid(field, "loop", f"{address} is the gateway of {subnet.id}: packets would come back to it")
        self._refuse_loop(destination, str(address), field)
        return RoutePlan(destination=str(destination), target_type=RouteTarget.ADDRESS, target=str(address))

    def _refuse_loop(self, destination: IPv4Network, next_hop: str | None, field: str) -> None:
        """A part of a subnet cannot be reached by way of an address in that part: its route would lead to itself."""
        if next_hop is None:
            return
        address = IPv4Address(next_hop)
        found = self._subnet_at(address)
        if address in destination and found is not None and destination.subnet_of(found[0]):
            raise invalid(field, "loop", f"{next_hop} is inside {destination} itself")

    def _subnet_at(self, address: IPv4Address) -> tuple[IPv4Network, Subnet] | None:
        return next((each for each in self._subnets if address in each[0]), None)

    def _find_instance(self, wanted: str) -> Instance | None:
        found = None
        if ID_PATTERN.match(wanted):
            found = instances.get(self._connection, wanted, project_id=self._project_id)
        return found or instances.find_by_name(self._connection, wanted, project_id=self._project_id)


def _once(known: dict[str, T | None], name: str, look_up: Callable[[str], T | None]) -> T | None:
    if name not in known:
        known[name] = look_up(name)
    return known[name]
