"""VPCs: isolated address spaces, each with its router, routes, DHCP and DNS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from iaas.client.actions import Action, Change, action_from_answer, change_from_answer
from iaas.client.collection import Collection
from iaas.client.resource import STRINGS, UNSET, Resource, Unset, decode, read_failure, reads, reads_all
from iaas.client.vpc_entries import DNSRecords, Routes
from iaas.kernel.errors import Failure

if TYPE_CHECKING:
    from iaas.client.client import Client


@dataclass(frozen=True, slots=True, kw_only=True)
class DHCPOptions:
    """What DHCP gives beside the address. Without ``dns_servers`` guests ask their gateway."""

    dns_servers: tuple[str, ...] = field(default=(), metadata=STRINGS)
    ntp_servers: tuple[str, ...] = field(default=(), metadata=STRINGS)
    lease_s: int = 3600

    def to_body(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "dns_servers": list(self.dns_servers),
            "ntp_servers": list(self.ntp_servers),
            "lease_s": self.lease_s,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DNSForwarder:
    """Questions about ``domain`` and below go to these DNS servers, addresses inside the VPC."""

    domain: str
    servers: tuple[str, ...] = field(default=(), metadata=STRINGS)

    def to_body(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {"domain": self.domain, "servers": list(self.servers)}


@dataclass(frozen=True, slots=True, kw_only=True)
class VPC(Resource):
    """An address space of its own; another VPC may have the same ``cidr``."""

    path: ClassVar[str] = "/v1/vpcs"
    key: ClassVar[str] = "vpc"

    project_id: str | None = None
    status: str = ""
    transition: str | None = None
    failure: Failure | None = field(default=None, metadata=reads(read_failure))
    generation: int = 0
    revision: int = 0
    applied_revision: int = 0
    cidr: str = ""
    dns_domain: str = ""
    dhcp_options: DHCPOptions = field(
        default_factory=DHCPOptions, metadata=reads(lambda data: decode(DHCPOptions, data))
    )
    forwarders: tuple[DNSForwarder, ...] = field(
        default=(), metadata=reads_all(lambda data: decode(DNSForwarder, data))
    )

    @property
    def routes(self) -> Routes:
        """Its routes, beside those to its own subnets."""
        return Routes(self.client, self.id)

    @property
    def dns_records(self) -> DNSRecords:
        """Its DNS records, beside the names of instances."""
        return DNSRecords(self.client, self.id)

    def update(
        self,
        *,
        name: str | Unset = UNSET,
        labels: Mapping[str, str | None] | Unset = UNSET,
        dns_domain: str | Unset = UNSET,
        dhcp_options: DHCPOptions | Unset = UNSET,
        forwarders: Sequence[DNSForwarder] | Unset = UNSET,
        only_if_unchanged: bool = False,
    ) -> Change[VPC]:
        """Change it; options and forwarders replace those there are, ``labels`` are merged in.

        Raises:
            PreconditionFailed: ``only_if_unchanged``, and it was changed since this value was read.
        """
        changes: dict[str, Any] = {"name": name, "labels": labels, "dns_domain": dns_domain}
        if not isinstance(dhcp_options, Unset):
            changes["dhcp_options"] = dhcp_options.to_body()
        if not isinstance(forwarders, Unset):
            changes["forwarders"] = [each.to_body() for each in forwarders]
        headers = {"If-Match": f'"{self.generation}"'} if only_if_unchanged else None
        return change_from_answer(self, self._patched(changes, headers=headers))

    def delete(self) -> Action[VPC]:
        """Remove it with its routes and records.

        Raises:
            InUse: subnets are in it: ``blockers``.
        """
        answer = self.client.request("DELETE", self._own_path())
        return action_from_answer(VPC, self.client, answer, is_removal=True)


class VPCs(Collection[VPC]):
    """``client.vpcs``."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, VPC)

    def create(
        self,
        *,
        cidr: str,
        name: str | None = None,
        dns_domain: str | None = None,
        dhcp_options: DHCPOptions | None = None,
        forwarders: Sequence[DNSForwarder] = (),
        labels: Mapping[str, str] | None = None,
    ) -> Action[VPC]:
        """Create a VPC; ``.wait()`` returns it active.

        Raises:
            InvalidInput: a field is wrong: ``errors`` names it.
            NameTaken: the project has a VPC of that name.
        """
        fields = {
            "cidr": cidr,
            "name": name,
            "dns_domain": dns_domain,
            "dhcp_options": dhcp_options.to_body() if dhcp_options is not None else None,
            "forwarders": [each.to_body() for each in forwarders] or None,
            "labels": labels,
        }
        return action_from_answer(VPC, self._client, self._post(fields))

    def routes_of(self, vpc: str) -> Routes:
        """Return the routes of a VPC (id or name) that need not be read before."""
        return Routes(self._client, vpc)

    def dns_records_of(self, vpc: str) -> DNSRecords:
        """Return the DNS records of a VPC (id or name) that need not be read before."""
        return DNSRecords(self._client, vpc)
