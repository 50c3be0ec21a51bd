"""Does a packet arrive, and if not, what stops it?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from iaas.client.nics import NIC
from iaas.client.resource import decode, reads, reads_all

if TYPE_CHECKING:
    from iaas.client.client import Client


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressIn:
    """An ``address``, and the ``vpc`` (id or name) in which it is meant."""

    vpc: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One decision on the way. Where ``passed`` is false the packet was lost; ``rule`` says why.

    ``direction`` is ``forward``, or ``back`` for the answer.
    """

    direction: str = ""
    element: str = ""
    id: str = ""
    passed: bool = False
    rule: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A packet was seen where ``place`` (a NIC's id, or a subnet's for its router's leg) meets the subnet.

    ``leaves``: it went to the machine or router there; else it came from it.
    """

    direction: str = ""
    place: str = ""
    leaves: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What became of a packet that was really sent."""

    answered: bool = False
    next_hop: str = ""
    next_hop_found: bool = False
    refused_by: str | None = None
    sightings: tuple[Sighting, ...] = field(default=(), metadata=reads_all(lambda data: decode(Sighting, data)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a packet and its answer arrive; ``reason`` and ``message`` say what decided.

    ``path`` is what the rules say. ``observed`` is None where no packet was sent; else packets decide.
    """

    reachable: bool = False
    reason: str = ""
    message: str = ""
    path: tuple[Hop, ...] = field(default=(), metadata=reads_all(lambda data: decode(Hop, data)))
    observed: Observed | None = field(default=None, metadata=reads(lambda data: decode(Observed, data)))
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


End = NIC | AddressIn | str
"""Of a way: a NIC (a value, id or name), or an address in a VPC."""


class Reachability:
    """``client.reachability``."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def check(
        self,
        source: End,
        target: End,
        *,
        protocol: str | None = None,
        port: int | None = None,
        source_address: str | None = None,
        target_address: str | None = None,
    ) -> Verdict:
        """Return whether a packet of ``source`` reaches ``target``, and its answer ``source``.

        The real backend sends one, as the source's machine would, if that runs.

        Args:
            source_address: that the source speaks with: its first one when absent; may be a reserved or foreign one.
            target_address: of a target NIC that has several; its first one when absent.
            protocol: ``icmp``, ``tcp`` or ``udp``; tcp when only a ``port`` is given, else icmp.

        Raises:
            InvalidInput: a field is wrong, or there is no such NIC or VPC: ``errors`` names it.
        """
        body: dict[str, Any] = {"source": _end(source), "target": _end(target)}
        if port is not None:
            body |= {"protocol": protocol or "tcp", "port": port}
        elif protocol is not None:
            body["protocol"] = protocol
        addresses = {"source_address": source_address, "target_address": target_address}
        body |= {name: value for name, value in addresses.items() if value is not None}
        answer = self._client.request("POST", "/v1/reachability", body=body)
        return decode(Verdict, answer, raw=answer)


def _end(end: End) -> dict[str, str]:
    if isinstance(end, AddressIn):
        return {"vpc": end.vpc, "address": end.address}
    return {"nic": end if isinstance(end, str) else end.id}
