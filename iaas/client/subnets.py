"""Subnets: layer-2 segments, in a VPC or bare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from iaas.client.actions import Action, Change, action_from_answer, change_from_answer
from iaas.client.collection import Collection
from iaas.client.resource import UNSET, Resource, Unset, read_failure, reads
from iaas.kernel.errors import Failure

if TYPE_CHECKING:
    from iaas.client.client import Client


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnet(Resource):
    """One segment in one zone. In a VPC it has ``cidr``, ``gateway`` and a pool of addresses, else none of these.

    ``is_shared``: a zone's basic subnet, where every project may have NICs.
    """

    path: ClassVar[str] = "/v1/subnets"
    key: ClassVar[str] = "subnet"

    project_id: str | None = None
    zone: str | None = None
    status: str = ""
    transition: str | None = None
    failure: Failure | None = field(default=None, metadata=reads(read_failure))
    generation: int = 0
    revision: int = 0
    applied_revision: int = 0
    vpc_id: str | None = None
    cidr: str | None = None
    gateway: str | None = None
    dhcp_first: str | None = None
    dhcp_last: str | None = None
    mtu: int = 0
    is_shared: bool = False

    def join(
        self,
        vpc: Resource | str,
        cidr: str,
        *,
        gateway: str | None = None,
        dhcp_first: str | None = None,
        dhcp_last: str | None = None,
    ) -> Action[Subnet]:
        """Bring it into a VPC (a value, id or name) with a block of it; its NICs get addresses.

        Raises:
            InvalidInput: the block is not inside the VPC's, or overlaps another subnet's.
            OutOfCapacity: it has more NICs than the pool has addresses.
        """
        return self._act(
            "join",
            vpc=vpc if isinstance(vpc, str) else vpc.id,
            cidr=cidr,
            gateway=gateway,
            dhcp_first=dhcp_first,
            dhcp_last=dhcp_last,
        )

    def leave(self, *, force: bool = False) -> Action[Subnet]:
        """Take it out of its VPC.

        Raises:
            InUse: NICs on it have addresses, and not ``force``: ``blockers``.
        """
        return self._act("leave", force=force or None)

    def update(
        self,
        *,
        name: str | Unset = UNSET,
        labels: Mapping[str, str | None] | Unset = UNSET,
        dhcp_first: str | Unset = UNSET,
        dhcp_last: str | Unset = UNSET,
        only_if_unchanged: bool = False,
    ) -> Change[Subnet]:
        """Change its name, labels (merged in) or pool; addresses that are given out already stay.

        Raises:
            PreconditionFailed: ``only_if_unchanged``, and it was changed since this value was read.
        """
        changes = {"name": name, "labels": labels, "dhcp_first": dhcp_first, "dhcp_last": dhcp_last}
        headers = {"If-Match": f'"{self.generation}"'} if only_if_unchanged else None
        return change_from_answer(self, self._patched(changes, headers=headers))

    def delete(self) -> Action[Subnet]:
        """Remove it.

        Raises:
            InUse: NICs or reservations are on it: ``blockers``.
        """
        answer = self.client.request("DELETE", self._own_path())
        return action_from_answer(Subnet, self.client, answer, is_removal=True)

    def _act(self, verb: str, **body: Any) -> Action[Subnet]:
        given = {name: value for name, value in body.items() if value is not None}
        answer = self.client.request("POST", self._own_path(f"/actions/{verb}"), body=given)
        return action_from_answer(Subnet, self.client, answer)


class Subnets(Collection[Subnet]):
    """``client.subnets``: one's own, and the zones' basic ones (``basic``, or ``basic-<zone>``)."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, Subnet)

    def create(
        self,
        *,
        name: str | None = None,
        zone: str | None = None,
        vpc: str | None = None,
        cidr: str | None = None,
        gateway: str | None = None,
        dhcp_first: str | None = None,
        dhcp_last: str | None = None,
        mtu: int | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Action[Subnet]:
        """Create a subnet in ``vpc`` with the block ``cidr``, or a bare one; ``.wait()`` returns it active.

        Raises:
            InvalidInput: a field is wrong: ``errors`` names it.
            NameTaken: the project has a subnet of that name.
        """
        fields = {
            "name": name,
            "zone": zone,
            "vpc": vpc,
            "cidr": cidr,
            "gateway": gateway,
            "dhcp_first": dhcp_first,
            "dhcp_last": dhcp_last,
            "mtu": mtu,
            "labels": labels,
        }
        return action_from_answer(Subnet, self._client, self._post(fields))
