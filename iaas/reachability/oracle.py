"""Questions answered: who speaks, the way there, the way back."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import AddressValueError, IPv4Address

from iaas.kernel.errors import InvalidInput, NotFound
from iaas.reachability.elements import Elements, Plug, Port, Router, Stack
from iaas.reachability.questions import AddressIn, Direction, Element, Hop, Question, Reason, Verdict
from iaas.reachability.topology import Topology
from iaas.reachability.walk import Arrived, AtGuest, AtRouter, Lost, Packet, Walk

LIMITED_BROADCAST = IPv4Address("255.255.255.255")

# Where a packet for another VPC's address ends is chance; that it is another VPC's is what counts.
_ENDS_OF_STRAYS = frozenset(
    {
        Reason.BLACKHOLE,
        Reason.BROADCAST,
        Reason.NO_ROUTE,
        Reason.NOBODY_HAS_IT,
        Reason.NOT_ATTACHED,
        Reason.NOT_FORWARDING,
        Reason.NOT_RUNNING,
        Reason.ROUTE_LOOP,
    }
)


def answer(topology: Topology, question: Question) -> Verdict:
    """Return the verdict on one question; for many about one topology make an ``Oracle``. Raises as that does."""
    return Oracle(topology).answer(question)


class Oracle:
    """Answers any number of questions about one topology.

    Raises:
        NotFound: something in the topology names what is not in it.
    """

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._elements = Elements(topology)

    def answer(self, question: Question) -> Verdict:
        """Return whether the question's packet arrives and its answer too, with all decisions on both ways.

        Raises:
            NotFound: the topology has no such NIC or VPC.
            InvalidInput: something is no IPv4 address.
        """
        source = self._source(question)
        if isinstance(source, Verdict):
            return source
        plug, address = source
        if address not in plug.stack.local:
            return Oracle(self._with_address(plug, address)).answer(question)
        target = self._target_address(question)
        if target is None:
            return _refused(Element.NIC, str(question.target), Reason.NO_ADDRESS, f"{question.target} has no address")
        if not _is_unicast(target):
            return _refused(Element.INSTANCE, str(target), Reason.NOT_UNICAST, f"{target} is no address of a machine")
        there = Packet(address, target, question.protocol, question.port, Direction.FORWARD)
        walk = Walk(self._elements, there)
        end = walk.run(AtGuest(plug.stack, None))
        if isinstance(end, Lost):
            return self._lost(question, end, walk)
        if wrong := self._delivered_wrongly(question, end, target, walk):
            return wrong
        return self._answered(there, plug.stack, end, walk)

    def _lost(self, question: Question, end: Lost, walk: Walk) -> Verdict:
        vpc_id = self._target_vpc(question)
        reason, message = end.reason, end.message
        if reason in _ENDS_OF_STRAYS and vpc_id not in walk.vpc_ids and walk.vpc_ids:
            reason, message = Reason.OTHER_VPC, f"the target is in another VPC than the source, and {message}"
        return Verdict(reachable=False, reason=reason, message=message, path=tuple(walk.hops))

    def _delivered_wrongly(self, question: Question, end: Arrived, target: IPv4Address, walk: Walk) -> Verdict | None:
        vpc_id, path = self._target_vpc(question), tuple(walk.hops)
        name = end.at.spec.vpc_id if isinstance(end.at, Router) else end.at.facts.guest_id
        if isinstance(question.target, str):
            if end.at in [plug.stack for plug in self._port(question.target).plugs]:
                return None
        elif self._is_in_vpc(end, vpc_id, target):
            return None
        if vpc_id not in walk.vpc_ids and walk.vpc_ids:
            message = f"it reaches {name}, which has {target} too; the target is in another VPC"
            return Verdict(reachable=False, reason=Reason.OTHER_VPC, message=message, path=path)
        message = f"it reaches {name}, which has {target} too, and not the target"
        return Verdict(reachable=False, reason=Reason.OTHER_GUEST, message=message, path=path)

    def _is_in_vpc(self, end: Arrived, vpc_id: str | None, target: IPv4Address) -> bool:
        if isinstance(end.at, Router):
            return end.at.spec.vpc_id == vpc_id
        if end.by is not None:
            return end.by.spec.vpc_id == vpc_id
        is_behind = target not in end.at.local
        return any(
            plug.port.segment.spec.vpc_id == vpc_id and (is_behind or any(each.ip == target for each in plug.addresses))
            for plug in end.at.plugs
        )

    def _answered(self, there: Packet, source: Stack, end: Arrived, walk: Walk) -> Verdict:
        answer = replace(there, source=there.target, target=there.source, direction=Direction.BACK)
        back = Walk(self._elements, answer, walk.heard)
        if end.at is source:
            message = f"{source.facts.guest_id} has {there.target} itself"
            return Verdict(reachable=True, reason=Reason.DELIVERED, message=message, path=tuple(walk.hops))
        begin = AtRouter(end.at, None) if isinstance(end.at, Router) else AtGuest(end.at, None)
        returned = back.run(begin)
        path = (*walk.hops, *back.hops)
        if isinstance(returned, Lost):
            message = f"it arrives, and its answer is lost ({returned.reason}): {returned.message}"
            return Verdict(reachable=False, reason=Reason.NO_RETURN_PATH, message=message, path=path)
        if returned.at is not source:
            message = f"it arrives, and its answer goes to somebody else who has {there.source} too"
            return Verdict(reachable=False, reason=Reason.NO_RETURN_PATH, message=message, path=path)
        name = end.at.spec.vpc_id if isinstance(end.at, Router) else end.at.facts.guest_id
        message = f"{there.source} reaches {there.target} at {name}, and the answer comes back"
        return Verdict(reachable=True, reason=Reason.DELIVERED, message=message, path=path)

    def _source(self, question: Question) -> tuple[Plug, IPv4Address] | Verdict:
        """Return who speaks and with which address; a verdict where nobody can."""
        given = None if question.source_address is None else _address(question.source_address)
        if isinstance(question.source, AddressIn):
            address = given or _address(question.source.address)
            plugs = self._plugs_with(question.source.vpc_id, _address(question.source.address))
            if not plugs:
                text = f"nobody in {question.source.vpc_id} has {question.source.address}"
                return _refused(Element.INSTANCE, question.source.address, Reason.NOBODY_HAS_IT, text)
            return plugs[0], address
        port = self._port(question.source)
        if not port.plugs:
            text = f"{question.source} is attached to nothing"
            return _refused(Element.NIC, question.source, Reason.NOT_ATTACHED, text)
        if given is not None:
            having = [plug for plug in port.plugs if given in plug.stack.local]
            return (having or port.plugs)[0], given
        speaking = [plug for plug in port.plugs if plug.addresses]
        if not speaking:
            text = f"{question.source} has no address to speak with"
            return _refused(Element.NIC, question.source, Reason.NO_ADDRESS, text)
        return speaking[0], speaking[0].addresses[0].ip

    def _target_address(self, question: Question) -> IPv4Address | None:
        if isinstance(question.target, AddressIn):
            return _address(question.target.address)
        port = self._port(question.target)
        if question.target_address is not None:
            return _address(question.target_address)
        configured = [each.ip for plug in port.plugs for each in plug.addresses]
        usual = [each for each in port.addresses if each in configured or not port.plugs]
        return next(iter([*usual, *configured]), None)

    def _target_vpc(self, question: Question) -> str | None:
        if isinstance(question.target, AddressIn):
            return question.target.vpc_id
        return self._port(question.target).segment.spec.vpc_id

    def _plugs_with(self, vpc_id: str, address: IPv4Address) -> list[Plug]:
        if vpc_id not in self._elements.routers:
            raise NotFound(f"the topology has no VPC {vpc_id}")
        segments = self._elements.routers[vpc_id].segments
        plugs = [plug for segment in segments for plug in segment.holders.get(address, ())]
        # The one that has it on that very interface goes before those whose guest has it on another.
        return sorted(plugs, key=lambda plug: all(each.ip != address for each in plug.addresses))

    def _port(self, nic_id: str) -> Port:
        if nic_id not in self._elements.ports:
            raise NotFound(f"the topology has no NIC {nic_id}")
        return self._elements.ports[nic_id]

    def _with_address(self, plug: Plug, address: IPv4Address) -> Topology:
        """Return the topology in which the source has taken the address that it is to speak with."""
        before = plug.stack.facts
        texts = (*(str(each) for each in plug.addresses), str(address))
        at = plug.stack.plugs.index(plug)
        interfaces = (
            *before.interfaces[:at],
            replace(before.interfaces[at], addresses=texts),
            *before.interfaces[at + 1 :],
        )
        after = replace(before, interfaces=interfaces)
        guests = tuple(after if each is before else each for each in self._topology.guests)
        return replace(self._topology, guests=guests)


def _address(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except AddressValueError as exc:
        raise InvalidInput(f"{text!r} is no IPv4 address") from exc


def _is_unicast(address: IPv4Address) -> bool:
    return not (address.is_loopback or address.is_multicast or address.is_unspecified or address == LIMITED_BROADCAST)


def _refused(element: Element, name: str, reason: Reason, message: str) -> Verdict:
    """Return the verdict on a packet that is never sent."""
    hop = Hop(direction=Direction.FORWARD, element=element, id=name, passed=False, rule=reason, detail=message)
    return Verdict(reachable=False, reason=reason, message=message, path=(hop,))
