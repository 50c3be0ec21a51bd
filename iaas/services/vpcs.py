"""VPCs: may this happen now?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from iaas.db.models import VPCRow
from iaas.db.repositories import shared, subnets, vpc_entries, vpcs
from iaas.db.repositories.query import Listing
from iaas.db.store import Store, Tx
from iaas.kernel import ids as id_prefixes
from iaas.kernel.errors import InUse, ResourceRef
from iaas.kernel.ids import IdSource
from iaas.kernel.labels import check_labels
from iaas.resources.common import Principal, Role
from iaas.resources.jobs import Job
from iaas.resources.networks import VPC, DHCPOptions, Forwarder, NetworkStatus
from iaas.services.access import require
from iaas.services.cidrs import check_vpc_block, invalid
from iaas.services.dns_names import MAX_FORWARDERS, check_domain, check_servers
from iaas.services.health import BackendHealth
from iaas.services.labelling import patched_labels
from iaas.services.network_changes import (
    VPC_REVISIONS,
    again_vpc,
    check_generation,
    claim_name,
    emit,
    find_vpc,
    ref,
    refusal,
    rename,
)
from iaas.services.quotas import Quotas
from iaas.services.record_rules import check_no_clash
from iaas.transitions import VPC_MOVES

DEFAULT_DOMAIN = "internal"
LEASE_LEAST_S, LEASE_MOST_S = 120, 31_536_000  # what dnsmasq gives at least; a year


class VPCService:
    def __init__(
        self, store: Store, ids: IdSource, health: BackendHealth, add_job: Callable[..., Job], quotas: Quotas
    ) -> None:
        self._store = store
        self._ids = ids
        self._health = health
        self._add_job = add_job
        self._quotas = quotas

    # -- reading ------------------------------------------------------------------------------------------

    def get(self, principal: Principal, id_or_name: str) -> VPC:
        with self._store.read() as connection:
            return find_vpc(connection, principal, id_or_name)

    def list_page(self, principal: Principal, listing: Listing) -> tuple[list[VPC], str | None]:
        with self._store.read() as connection:
            return vpcs.list_page(connection, listing, project_id=principal.project_id)

    # -- changing -----------------------------------------------------------------------------------------

    def create(
        self,
        principal: Principal,
        *,
        cidr: str,
        name: str | None = None,
        dns_domain: str | None = None,
        dhcp_options: DHCPOptions | None = None,
        forwarders: Sequence[Forwarder] = (),
        labels: dict[str, str] | None = None,
    ) -> tuple[VPC, Job]:
        """Accept a new VPC. Another one with the same CIDR does not matter to it.

        Raises:
            InvalidInput: names each wrong field.
            AlreadyExists: the name is taken.
            QuotaExceeded: the project may have no more.
            Unavailable: no networks can be made now.
        """
        require(principal, Role.MEMBER)
        check_labels(labels or {})
        block = check_vpc_block(cidr)
        domain = DEFAULT_DOMAIN if dns_domain is None else check_domain(dns_domain, "dns_domain")
        configured = {
            "dns_domain": domain,
            "dhcp_options": _stored_options(dhcp_options or DHCPOptions()),
            "forwarders": _stored_forwarders(forwarders, domain),
        }
        self._health.check_networks()

        def work(tx: Tx) -> tuple[VPC, Job]:
            vpc_id = self._ids.new(id_prefixes.VPC)
            self._quotas.take(tx, principal.project_id, {"vpcs": 1})
            claim_name(tx, "vpc", principal.project_id, vpc_id, name or vpc_id)
            vpcs.add(
                tx,
                id=vpc_id,
                project_id=principal.project_id,
                name=name or vpc_id,
                labels=labels or {},
                status=NetworkStatus.PENDING,
                transition=VPC_MOVES["create"].transition,
                cidr=str(block),
                **configured,
            )
            shared.add_labels(tx, vpc_id, labels or {})
            with VPC_REVISIONS.change(tx, vpc_id):
                pass  # the row above is the first revision
            return self._accepted(tx, principal, vpc_id, "create", "creating")

        return self._store.write(work)

    def update(
        self,
        principal: Principal,
        id_or_name: str,
        *,
        name: str | None = None,
        labels: dict[str, str | None] | None = None,
        dns_domain: str | None = None,
        dhcp_options: DHCPOptions | None = None,
        forwarders: Sequence[Forwarder] | None = None,
        if_generation: int | None = None,
    ) -> tuple[VPC, Job | None]:
        """Change what is given; the job is there when guests are to notice something.

        Args:
            labels: a merge patch: null removes one.
            dhcp_options, forwarders: take the place of all that there were.

        Raises:
            InTransition, InvalidState: what guests notice can be changed of an active VPC only.
            PreconditionFailed: it is at another generation.
        """
        require(principal, Role.MEMBER)
        vpc = self.get(principal, id_or_name)
        check_labels({key: value for key, value in (labels or {}).items() if value is not None})
        domain = None if dns_domain is None else check_domain(dns_domain, "dns_domain")

        def work(tx: Tx) -> tuple[VPC, Job | None]:
            vpcs.lock(tx, vpc.id)
            current = again_vpc(tx, vpc.id)
            check_generation(current, if_generation)
            changes: dict[str, Any] = {}
            if name is not None and name != current.name:
                if current.status != NetworkStatus.FAILED:  # one that has failed holds nothing, a name neither
                    rename(tx, "vpc", principal.project_id, vpc.id, name)
                changes["name"] = name
            changes |= patched_labels(tx, VPCRow.__table__, vpc.id, labels)
            configured = _configured(tx, current, domain, dhcp_options, forwarders)
            if configured and (current.status != NetworkStatus.ACTIVE or current.transition is not None):
                raise refusal(current, "update")
            if not changes and not configured:
                return current, None
            vpcs.change(tx, vpc.id, **changes, **configured)
            if not configured:
                changed = again_vpc(tx, vpc.id)
                emit(tx, principal, changed, "updated")
                return changed, None
            with VPC_REVISIONS.change(tx, vpc.id):
                pass  # the row above has changed
            return self._accepted(tx, principal, vpc.id, "apply", "updated")

        return self._store.write(work)

    def delete(self, principal: Principal, id_or_name: str, *, if_generation: int | None = None) -> tuple[VPC, Job]:
        """Delete a VPC with its routes and records.

        Raises:
            InUse: subnets are in it: ``blockers`` names them.
            InTransition, InvalidState: not now.
        """
        require(principal, Role.MEMBER)
        vpc = self.get(principal, id_or_name)
        self._health.check_networks()
        move = VPC_MOVES["delete"]

        def work(tx: Tx) -> tuple[VPC, Job]:
            vpcs.lock(tx, vpc.id)
            current = again_vpc(tx, vpc.id)
            check_generation(current, if_generation)
            expect = {"status": move.sources, "transition": None}
            if not vpcs.change(tx, vpc.id, expect=expect, transition=move.transition):
                raise refusal(current, "delete")
            inside = subnets.of_vpc(tx.connection, vpc.id)
            if inside:
                raise InUse(
                    f"VPC {vpc.id} has {len(inside)} subnets: delete them or let them leave first",
                    resource=ref(current),
                    blockers=[ResourceRef("subnet", subnet.id) for subnet in inside],
                )
            return self._accepted(tx, principal, vpc.id, "delete", "deleting")

        return self._store.write(work)

    def _accepted(self, tx: Tx, principal: Principal, vpc_id: str, action: str, event: str) -> tuple[VPC, Job]:
        job = self._add_job(
            tx,
            action=f"vpc.{action}",
            resource=ResourceRef("vpc", vpc_id),
            project_id=principal.project_id,
            request_id=principal.request_id,
        )
        changed = again_vpc(tx, vpc_id)
        emit(tx, principal, changed, event, job_id=job.id)
        return changed, job


def _configured(
    tx: Tx,
    current: VPC,
    domain: str | None,
    options: DHCPOptions | None,
    forwarders: Sequence[Forwarder] | None,
) -> dict[str, Any]:
    """Return those columns of the data plane that change, with their new values."""
    changes: dict[str, Any] = {}
    new_domain = domain or current.dns_domain
    if new_domain != current.dns_domain:
        check_no_clash(vpc_entries.records_of(tx.connection, current.id), new_domain)
        changes["dns_domain"] = new_domain
    if options is not None and (stored := _stored_options(options)) != _as_stored(current.dhcp_options):
        changes["dhcp_options"] = stored
    # Without new ones the old are looked at all the same: the new domain may be one of theirs.
    wanted = current.forwarders if forwarders is None else forwarders
    if wanted is not current.forwarders or "dns_domain" in changes:
        stored_forwarders = _stored_forwarders(wanted, new_domain)
        if stored_forwarders != _stored_forwarders(current.forwarders, None):
            changes["forwarders"] = stored_forwarders
    return changes


def _stored_options(options: DHCPOptions) -> dict[str, Any]:
    if not LEASE_LEAST_S <= options.lease_s <= LEASE_MOST_S:
        message = f"must be from {LEASE_LEAST_S} to {LEASE_MOST_S} seconds"
        raise invalid("dhcp_options.lease_s", "out_of_range", message)
    return {
        "dns_servers": list(check_servers(options.dns_servers, "dhcp_options.dns_servers")),
        "ntp_servers": list(check_servers(options.ntp_servers, "dhcp_options.ntp_servers")),
        "lease_s": options.lease_s,
    }


def _as_stored(options: DHCPOptions) -> dict[str, Any]:
    return {
        "dns_servers": list(options.dns_servers),
        "ntp_servers": list(options.ntp_servers),
        "lease_s": options.lease_s,
    }


def _stored_forwarders(forwarders: Sequence[Forwarder], own_domain: str | None) -> list[dict[str, Any]]:
    """Return forwarders as the row has them; raises InvalidInput. ``own_domain`` is answered here, never forwarded."""
    if len(forwarders) > MAX_FORWARDERS:
        raise invalid("forwarders", "too_many", f"at most {MAX_FORWARDERS}")
    stored: list[dict[str, Any]] = []
    for index, forwarder in enumerate(forwarders):
        field = f"forwarders.{index}"
        domain = check_domain(forwarder.domain, f"{field}.domain")
        if domain == own_domain:
            raise invalid(f"{field}.domain", "reserved", f"{domain} is the VPC's own domain")
        if any(domain == other["domain"] for other in stored):
            raise invalid(f"{field}.domain", "twice", f"{domain} is given twice")
        if not forwarder.servers:
            raise invalid(f"{field}.servers", "required", "at least one server is needed")
        stored.append({"domain": domain, "servers": list(check_servers(forwarder.servers, f"{field}.servers"))})
    return stored
