"""Does a packet arrive? The oracle's answer, from what the database says of the networks concerned; and where real
packets can be sent, what became of one.

What guests do inside is not known here: each is taken to have the addresses of its NICs, what DHCP tells it, and to
forward what it is sent (it is only sent anything if a route of the VPC leads to it). What its NICs may speak for
beyond its VPC, by allowed pairs, is taken to be a network inside it, as of pods.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection

from iaas.db.repositories import instances, nics, subnets
from iaas.db.store import Store
from iaas.drivers.interface import Backend, NetworkCapability, ProbeReport, ProbeSpec, VPCSpec
from iaas.kernel.errors import NotFound
from iaas.reachability import AddressIn, Guest, Interface, Oracle, Protocol, Question, Topology, Verdict
from iaas.resources.common import Principal
from iaas.resources.instances import Instance, InstanceStatus
from iaas.resources.networks import NIC, Subnet
from iaas.services.cidrs import invalid
from iaas.services.driver_errors import translated
from iaas.services.network_changes import find_vpc
from iaas.services.nic_wishes import find_nic
from iaas.workflows.network_specs import port_spec, subnet_spec, vpc_spec

End = str | tuple[str, str]
"""A NIC (id, name or MAC), or a VPC (id or name) and an address in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the rules say, and (``observed``, None where nothing was sent) what a packet showed.

    Where the two differ packets are right: about guests the rules know little.
    """

    verdict: Verdict
    observed: ProbeReport | None = None
    arrived: bool = False

    @property
    def reachable(self) -> bool:
        return self.verdict.reachable if self.observed is None else self.arrived

    @property
    def reason(self) -> str:
        """The rule that decided; ``observed`` where packets show something else than the rules say."""
        return self.verdict.reason.value if self.reachable == self.verdict.reachable else "observed"

    @property
    def message(self) -> str:
        if self.reachable == self.verdict.reachable or self.observed is None:
            return self.verdict.message
        if self.reachable:
            return f"an answer came, though by the rules it should not: {self.verdict.message}"
        return f"by the rules it should arrive, but {_last_seen(self.observed)}"


class ReachabilityService:
    def __init__(self, store: Store, backend: Backend) -> None:
        self._store = store
        self._backend = backend

    def ask(
        self,
        principal: Principal,
        *,
        source: End,
        target: End,
        source_address: str | None = None,
        target_address: str | None = None,
        protocol: Protocol = Protocol.ICMP,
        port: int | None = None,
    ) -> Answer:
        """Return whether a packet of ``source`` reaches ``target``, and its answer ``source``, with both ways.

        Where the backend can, one packet is sent as the source's machine would send it, if that runs.

        Args:
            source_address: that the source speaks with, its first one when None. Another one than its own asks what
                would happen if it did.
            target_address: of a target NIC with several; its first one when None.
            port: of the target; needed for tcp and udp, and for them only.

        Raises:
            InvalidInput: names the field that is wrong, or names what the project does not have.
        """
        _check_port(protocol, port)
        for field, address in (("source_address", source_address), ("target_address", target_address)):
            if address is not None:
                _check_address(field, address)
        with self._store.read() as connection:
            near = _Surroundings(connection, principal)
            question = Question(
                source=near.end("source", source),
                target=near.end("target", target),
                source_address=source_address,
                target_address=target_address,
                protocol=protocol,
                port=port,
            )
            topology = near.topology()
            sender = near.running_nic(question.source)
            wanted = near.address_of(question.target, target_address)
        verdict = Oracle(topology).answer(question)
        observed = self._probe(sender, source_address, wanted, protocol, port)
        if observed is None:
            return Answer(verdict=verdict)
        return Answer(verdict=verdict, observed=observed, arrived=_has_arrived(observed, protocol, wanted, near))

    def _probe(
        self, sender: NIC | None, source_address: str | None, target: str | None, protocol: Protocol, port: int | None
    ) -> ProbeReport | None:
        """Send a packet; None where none can be sent, or nobody can say from where to where."""
        if NetworkCapability.PROBE not in self._backend.networks.capabilities or sender is None or target is None:
            return None
        speaker = source_address or sender.address
        if speaker is None:
            return None
        spec = ProbeSpec(
            subnet_id=sender.subnet_id,
            nic_id=sender.id,
            source_address=speaker,
            target=target,
            protocol=protocol.value,
            port=port,
        )
        with translated():
            return self._backend.networks.probe(spec)


class _Surroundings:
    """All that a packet between the ends may meet: their VPCs as a whole, and those of every guest found there.

    Of what all projects share (a zone's basic subnet and its VPC) only the project's own guests that are in it for
    another reason: routes do not lead anywhere there, and others' guests are not to be told of.
    """

    def __init__(self, connection: Connection, principal: Principal) -> None:
        self._connection = connection
        self._principal = principal
        self._vpc_ids: dict[str, None] = {}  # in the order in which they are found, each once
        self._subnets: dict[str, Subnet] = {}
        self._ports: dict[str, NIC] = {}
        self._guests: dict[str, Instance] = {}

    def end(self, field: str, end: End) -> str | AddressIn:
        """Return an end with its ids, having found what is around it."""
        if isinstance(end, str):
            nic = find_nic(self._connection, self._principal.project_id, end)
            if nic is None:
                raise invalid(f"{field}.nic", "not_found", f"there is no NIC {end}")
            self._ports[nic.id] = nic
            self._reach([nic])
            return nic.id
        _check_address(f"{field}.address", end[1])
        try:
            vpc = find_vpc(self._connection, self._principal, end[0])
        except NotFound as error:
            raise invalid(f"{field}.vpc", "not_found", error.message) from error
        self._reach_vpc(vpc.id)
        return AddressIn(vpc.id, end[1])

    def running_nic(self, source: str | AddressIn) -> NIC | None:
        """Return the NIC at the source if its instance runs; None when there is no such NIC or it does not."""
        nic: NIC | None
        if isinstance(source, AddressIn):
            nic = next(
                (one for one in self._ports.values() if one.vpc_id == source.vpc_id and one.address == source.address),
                None,
            )
        else:
            nic = self._ports.get(source)
        guest = self._guests.get(nic.instance_id or "") if nic is not None else None
        return nic if guest is not None and guest.status == InstanceStatus.RUNNING else None

    def address_of(self, target: str | AddressIn, wanted: str | None) -> str | None:
        """Return the address that is asked for; None when the target has none."""
        if isinstance(target, AddressIn):
            return target.address
        return wanted or self._ports[target].address

    def holders_of(self, address: str) -> frozenset[str]:
        """Return the ids of the NICs that have an address."""
        return frozenset(nic.id for nic in self._ports.values() if address in nic.addresses)

    def topology(self) -> Topology:
        hostnames = {guest.id: guest.hostname for guest in self._guests.values()}
        vpcs = tuple(filter(None, (vpc_spec(self._connection, vpc_id) for vpc_id in self._vpc_ids)))
        return Topology(
            vpcs=vpcs,
            subnets=tuple(filter(None, (subnet_spec(self._connection, subnet_id) for subnet_id in self._subnets))),
            ports=tuple(
                port_spec(nic, hostname=hostnames.get(nic.instance_id or "", "")) for nic in self._ports.values()
            ),
            guests=tuple(
                Guest(
                    guest_id=guest.id,
                    interfaces=tuple(Interface(nic_id=nic.id) for nic in guest.nics),
                    is_running=guest.status == InstanceStatus.RUNNING,
                    forwards=True,
                    behind=_behind(guest, vpcs),
                )
                for guest in self._guests.values()
            ),
        )

    def _reach(self, found: Iterable[NIC]) -> None:
        """Go on from NICs to their subnets, and to the instances that they are in."""
        waiting = list(found)
        while waiting:
            ids = {nic.instance_id for nic in waiting if nic.instance_id is not None} - self._guests.keys()
            guests = instances.many(self._connection, sorted(ids))
            self._guests |= {guest.id: guest for guest in guests}
            own = [nic for guest in guests for nic in guest.nics]
            self._ports |= {nic.id: nic for nic in own}
            waiting = [other for nic in [*waiting, *own] for other in self._beside(nic.subnet_id)]

    def _beside(self, subnet_id: str) -> list[NIC]:
        """Return the NICs of a subnet that is met for the first time, and of the others of its VPC."""
        if subnet_id in self._subnets:
            return []
        subnet = subnets.get(self._connection, subnet_id)
        if subnet is None:
            return []
        if subnet.is_shared:
            self._subnets[subnet.id] = subnet
            if subnet.vpc_id is not None:
                self._vpc_ids[subnet.vpc_id] = None
            return []
        if subnet.vpc_id is not None:
            return self._of_vpc(subnet.vpc_id)
        self._subnets[subnet.id] = subnet
        return nics.on_subnet(self._connection, subnet.id)

    def _reach_vpc(self, vpc_id: str) -> None:
        self._reach(self._of_vpc(vpc_id))

    def _of_vpc(self, vpc_id: str) -> list[NIC]:
        if vpc_id in self._vpc_ids:
            return []
        self._vpc_ids[vpc_id] = None
        inside = subnets.of_vpc(self._connection, vpc_id)
        self._subnets |= {subnet.id: subnet for subnet in inside}
        return [nic for subnet in inside for nic in nics.on_subnet(self._connection, subnet.id)]


def _behind(guest: Instance, vpcs: Iterable[VPCSpec]) -> tuple[str, ...]:
    """Return the blocks that are taken to be inside the guest. One that VPCs have is spoken for, not had."""
    blocks = [ipaddress.IPv4Network(vpc.cidr) for vpc in vpcs]
    pairs = [pair.cidr for nic in guest.nics for pair in nic.allowed_pairs]
    return tuple(cidr for cidr in pairs if not any(ipaddress.IPv4Network(cidr).overlaps(block) for block in blocks))


def _has_arrived(report: ProbeReport, protocol: Protocol, target: str | None, near: _Surroundings) -> bool:
    if report.answered:
        return True
    if protocol != Protocol.UDP or target is None:
        return False
    # A datagram need not be answered: it has arrived when it went in at its target, or that says nobody listens.
    holders = near.holders_of(target)
    went_in = any(seen.leaves and not seen.is_back and seen.place in holders for seen in report.sightings)
    return went_in or report.refused_by == target


def _last_seen(report: ProbeReport) -> str:
    if not report.next_hop_found:
        return f"nobody answers for {report.next_hop}, the first step of its way"
    if report.refused_by is not None:
        return f"{report.refused_by} refused it"
    if not report.sightings:
        return "it was seen nowhere"
    last = report.sightings[-1]
    what = "its answer" if last.is_back else "it"
    return f"{what} was seen last {'going to' if last.leaves else 'coming from'} {last.place}"


def _check_port(protocol: Protocol, port: int | None) -> None:
    if protocol == Protocol.ICMP and port is not None:
        raise invalid("port", "excluded", "icmp has no ports")
    if protocol != Protocol.ICMP and port is None:
        raise invalid("port", "missing", f"{protocol.value} needs one")


def _check_address(field: str, address: str) -> None:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError as error:
        raise invalid(field, "invalid", "is not an IP address") from error
    if parsed.version != 4:
        raise invalid(field, "not_supported", "IPv6 is not supported")
