"""Address reservations: addresses out of the pool, for virtual IPs and pods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from iaas.client.actions import Action, action_from_answer, removal_from_answer
from iaas.client.collection import Collection
from iaas.client.resource import UNSET, Resource, Unset

if TYPE_CHECKING:
    from iaas.client.client import Client


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressReservation(Resource):
    """Addresses ``first`` to ``last`` of a subnet. Any NIC of the project there may answer for them."""

    path: ClassVar[str] = "/v1/address_reservations"
    key: ClassVar[str] = "address_reservation"

    project_id: str | None = None
    subnet_id: str = ""
    first: str = ""
    last: str = ""

    def update(
        self, *, name: str | Unset = UNSET, labels: Mapping[str, str | None] | Unset = UNSET
    ) -> AddressReservation:
        """Return it with another name, or with ``labels`` merged in (a None value removes that label)."""
        return self._patch({"name": name, "labels": labels})

    def delete(self) -> Action[AddressReservation]:
        """Give the addresses back."""
        return removal_from_answer(self, self.client.request("DELETE", self._own_path()))


class AddressReservations(Collection[AddressReservation]):
    """``client.address_reservations``."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, AddressReservation)

    def create(
        self,
        *,
        subnet: str,
        name: str | None = None,
        address: str | None = None,
        first: str | None = None,
        last: str | None = None,
        count: int | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Action[AddressReservation]:
        """Reserve one ``address``, those from ``first`` to ``last``, or ``count`` free ones in a row (one if absent).

        Raises:
            InvalidInput: a field is wrong: ``errors`` names it.
            Conflict: one of the addresses is taken.
            OutOfCapacity: there are not as many in a row.
        """
        fields = {
            "subnet": subnet,
            "name": name,
            "address": address,
            "first": first,
            "last": last,
            "count": count,
            "labels": labels,
        }
        return action_from_answer(AddressReservation, self._client, self._post(fields))
