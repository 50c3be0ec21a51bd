"""A small VPC, told in a few words, for tests that change one thing at a time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Self

from iaas.drivers.interface import AllowedPair, PortSpec, ReservationSpec, RouteSpec, SubnetSpec, VPCSpec
from iaas.reachability import Guest, Interface, Question, Topology, Verdict, answer


@dataclass
class Town:
    """VPCs by number, each with subnets 10.0.1.0/24 and 10.0.2.0/24; guests by name, their NICs as ``name`` or more."""

    vpcs: dict[str, VPCSpec] = field(default_factory=dict)
    subnets: dict[str, SubnetSpec] = field(default_factory=dict)
    ports: dict[str, PortSpec] = field(default_factory=dict)
    guests: dict[str, Guest] = field(default_factory=dict)

    def vpc(self, name: str = "vpc", *, routes: dict[str, str] | None = None) -> Self:
        """Add a VPC with subnets ``<name>/1`` and ``<name>/2``."""
        specs = tuple(RouteSpec(destination=each, next_hop=via) for each, via in (routes or {}).items())
        self.vpcs[name] = VPCSpec(vpc_id=name, cidr="10.0.0.0/16", routes=specs)
        for number in (1, 2):
            self.subnets[f"{name}/{number}"] = SubnetSpec(
                subnet_id=f"{name}/{number}", vpc_id=name, cidr=f"10.0.{number}.0/24", gateway=f"10.0.{number}.1"
            )
        return self

    def bare(self, name: str = "bare") -> Self:
        self.subnets[name] = SubnetSpec(subnet_id=name)
        return self

    def reserve(self, subnet: str, first: str, last: str, *, owner: str = "us") -> Self:
        spec = self.subnets[subnet]
        reservation = ReservationSpec(owner=owner, first=first, last=last)
        self.subnets[subnet] = replace(spec, reservations=(*spec.reservations, reservation))
        return self

    def nic(self, name: str, subnet: str, *addresses: str, pairs: tuple[str, ...] = (), owner: str = "us") -> Self:
        """Add a NIC that is attached to nothing. A pair is a CIDR, or ``CIDR@MAC``."""
        split = [pair.partition("@") for pair in pairs]
        allowed = tuple(AllowedPair(cidr=cidr, mac=mac or None) for cidr, _, mac in split)
        mac = f"52:54:00:00:00:{len(self.ports):02x}"
        self.ports[name] = PortSpec(
            nic_id=name, subnet_id=subnet, mac=mac, owner=owner, addresses=addresses, allowed_pairs=allowed
        )
        return self

    def guest(self, name: str, *interfaces: Interface | str, **facts: Any) -> Self:
        """Add a guest of interfaces; a string is a NIC with its own addresses."""
        made = tuple(Interface(nic_id=each) if isinstance(each, str) else each for each in interfaces)
        routes = tuple(RouteSpec(destination=to, next_hop=via) for to, via in facts.pop("routes", {}).items())
        self.guests[name] = Guest(guest_id=name, interfaces=made, routes=routes, **facts)
        return self

    def machine(self, name: str, subnet: str, *addresses: str, pairs: tuple[str, ...] = (), **facts: Any) -> Self:
        """Add a guest of one NIC; both have the same name."""
        return self.nic(name, subnet, *addresses, pairs=pairs).guest(name, name, **facts)

    def topology(self) -> Topology:
        return Topology(
            vpcs=tuple(self.vpcs.values()),
            subnets=tuple(self.subnets.values()),
            ports=tuple(self.ports.values()),
            guests=tuple(self.guests.values()),
        )

    def ask(self, source: Any, target: Any, **more: Any) -> Verdict:
        return answer(self.topology(), Question(source=source, target=target, **more))


def pair_of_machines() -> Town:
    """Return a VPC with ``a`` at 10.0.1.10 and ``b`` at 10.0.2.10."""
    return Town().vpc().machine("a", "vpc/1", "10.0.1.10").machine("b", "vpc/2", "10.0.2.10")
