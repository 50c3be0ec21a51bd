"""NICs: network interfaces that are made, given to instances, and taken away again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from iaas.client.actions import Action, Change, action_from_answer, change_from_answer
from iaas.client.collection import Collection
from iaas.client.resource import STRINGS, UNSET, Resource, Unset, decode, reads_all

if TYPE_CHECKING:
    from iaas.client.client import Client

NO_ADDRESS = "none"
"""As the address of a new NIC: it shall have none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedPair:
    """Further sources that a NIC may use: addresses in ``cidr``, with ``mac`` or (None) the NIC's own."""

    cidr: str
    mac: str | None = None

    def to_body(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {"cidr": self.cidr} if self.mac is None else {"cidr": self.cidr, "mac": self.mac}


@dataclass(frozen=True, slots=True, kw_only=True)
class NICSpec:
    """A NIC of an instance to create: a new one on ``subnet``, or the ``nic`` (id, name) that there is already.

    Without ``subnet`` it is on the zone's basic one. ``address``: one of the pool when None, a given one, or
    ``NO_ADDRESS``.
    """

    subnet: str | None = None
    nic: str | None = None
    address: str | None = None
    mac: str | None = None
    name: str | None = None
    secondary_addresses: Sequence[str] = ()
    allowed_pairs: Sequence[AllowedPair] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    def to_body(self) -> dict[str, Any]:
        """Return the JSON object of a create call."""
        body = {
            "subnet": self.subnet,
            "nic": self.nic,
            "address": self.address,
            "mac": self.mac,
            "name": self.name,
            "secondary_addresses": list(self.secondary_addresses) or None,
            "allowed_pairs": [pair.to_body() for pair in self.allowed_pairs] or None,
            "labels": dict(self.labels) or None,
        }
        return {name: value for name, value in body.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class NICStatistics:
    """Counted since the NIC was last plugged, as its machine sees it: received is what came in to it."""

    received_bytes: int = 0
    received_packets: int = 0
    received_dropped: int = 0
    sent_bytes: int = 0
    sent_packets: int = 0
    sent_dropped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NIC(Resource):
    """A network interface. ``status`` is ``available`` or ``in_use``; attached or not it keeps addresses and MAC.

    One that was made with its instance (``delete_with_instance``) goes with it, too.
    """

    path: ClassVar[str] = "/v1/nics"
    key: ClassVar[str] = "nic"

    project_id: str | None = None
    zone: str | None = None
    status: str = ""
    transition: str | None = None
    generation: int = 0
    subnet_id: str = ""
    vpc_id: str | None = None
    mac: str = ""
    address: str | None = None
    secondary_addresses: tuple[str, ...] = field(default=(), metadata=STRINGS)
    allowed_pairs: tuple[AllowedPair, ...] = field(
        default=(), metadata=reads_all(lambda data: decode(AllowedPair, data))
    )
    instance_id: str | None = None
    device_index: int | None = None
    delete_with_instance: bool = False

    def attach(self, instance: Resource | str) -> Action[NIC]:
        """Give it to an instance (a value, id or name), running or stopped.

        Raises:
            InUse: an instance has it.
            InvalidInput: the instance has as many as its flavor allows, or is in another zone.
        """
        body = {"instance": instance if isinstance(instance, str) else instance.id}
        answer = self.client.request("POST", self._own_path("/actions/attach"), body=body)
        return action_from_answer(NIC, self.client, answer)

    def detach(self) -> Action[NIC]:
        """Take it from its instance."""
        return action_from_answer(NIC, self.client, self.client.request("POST", self._own_path("/actions/detach")))

    def update(
        self,
        *,
        name: str | Unset = UNSET,
        labels: Mapping[str, str | None] | Unset = UNSET,
        address: str | Unset = UNSET,
        secondary_addresses: Sequence[str] | Unset = UNSET,
        allowed_pairs: Sequence[AllowedPair] | Unset = UNSET,
        only_if_unchanged: bool = False,
    ) -> Change[NIC]:
        """Change it; lists replace what is there, ``labels`` are merged in (a None value removes that label).

        Raises:
            PreconditionFailed: ``only_if_unchanged``, and it was changed since this value was read.
        """
        changes: dict[str, Any] = {"name": name, "labels": labels, "address": address}
        if not isinstance(secondary_addresses, Unset):
            changes["secondary_addresses"] = list(secondary_addresses)
        if not isinstance(allowed_pairs, Unset):
            changes["allowed_pairs"] = [pair.to_body() for pair in allowed_pairs]
        headers = {"If-Match": f'"{self.generation}"'} if only_if_unchanged else None
        return change_from_answer(self, self._patched(changes, headers=headers))

    def statistics(self) -> NICStatistics:
        """Return what went through it.

        Raises:
            InvalidState: it is in no running machine.
        """
        return decode(NICStatistics, self.client.request("GET", self._own_path("/statistics")))

    def delete(self) -> None:
        """Remove it.

        Raises:
            InUse: an instance has it, or a route leads to it: ``blockers``.
        """
        self._remove()


class NICs(Collection[NIC]):
    """``client.nics``. Lists take ``instance``, ``subnet``, ``vpc`` (ids), ``mac`` and ``address`` as filters."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, NIC)

    def create(
        self,
        *,
        subnet: str,
        name: str | None = None,
        address: str | None = None,
        mac: str | None = None,
        secondary_addresses: Sequence[str] = (),
        allowed_pairs: Sequence[AllowedPair] = (),
        labels: Mapping[str, str] | None = None,
    ) -> NIC:
        """Return a new NIC on ``subnet`` (id or name); arguments as in ``NICSpec``.

        Raises:
            InvalidInput: a field is wrong: ``errors`` names it.
            Conflict: the address or MAC is taken.
            OutOfCapacity: the subnet's pool is empty.
        """
        spec = NICSpec(
            subnet=subnet,
            name=name,
            address=address,
            mac=mac,
            secondary_addresses=secondary_addresses,
            allowed_pairs=allowed_pairs,
            labels=labels or {},
        )
        return self._create(**spec.to_body())
