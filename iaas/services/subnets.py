"""Subnets: may this happen now?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from iaas.db.models import SubnetRow
from iaas.db.repositories import catalog, shared, subnets, vpcs
from iaas.db.repositories.query import Listing
from iaas.db.store import Store, Tx
from iaas.kernel import ids as id_prefixes
from iaas.kernel.errors import InTransition, InvalidState, ResourceRef
from iaas.kernel.ids import IdSource
from iaas.kernel.labels import check_labels, fits
from iaas.resources.common import Principal, Role
from iaas.resources.jobs import Job
from iaas.resources.networks import NetworkStatus, Subnet
from iaas.services.access import require
from iaas.services.cidrs import check_mtu, invalid
from iaas.services.filters import by_id
from iaas.services.health import BackendHealth
from iaas.services.labelling import patched_labels
from iaas.services.network_changes import (
    SUBNET_REVISIONS,
    again_subnet,
    changed_subnet,
    check_generation,
    claim_name,
    emit,
    not_found,
    ref,
    refusal,
    refuse_shared,
    rename,
    vpc_in_body,
)
from iaas.services.nic_wishes import find_subnet
from iaas.services.quotas import Quotas
from iaas.services.subnet_places import (
    NOWHERE,
    changed_pool,
    claim_gateway,
    follow_routes,
    give_addresses,
    hold_vpc,
    place_columns,
    planned_place,
    refuse_inhabited,
    take_addresses,
)
from iaas.transitions import SUBNET_MOVES


class SubnetService:
    def __init__(
        self, store: Store, ids: IdSource, health: BackendHealth, add_job: Callable[..., Job], quotas: Quotas
    ) -> None:
        self._store = store
        self._ids = ids
        self._health = health
        self._add_job = add_job
        self._quotas = quotas

    # -- reading ------------------------------------------------------------------------------------------

    def get(self, principal: Principal, id_or_name: str, *, zone: str | None = None) -> Subnet:
        """Return a subnet of the project, or a shared one: ``basic`` in ``zone`` (or the first), ``basic-<zone>``."""
        with self._store.read() as connection:
            return _find(connection, principal, id_or_name, zone=zone)

    def list_page(self, principal: Principal, listing: Listing) -> tuple[list[Subnet], str | None]:
        """Return a page of the project's subnets; the first one begins with those that all projects share.

        It has as many members as asked for, where those shared ones alone are not more.
        """
        with self._store.read() as connection:
            listing = by_id(connection, principal, listing)
            common: list[Subnet] = []
            if listing.page.cursor is None:
                common = [subnet for subnet in subnets.shared_ones(connection) if _is_listed(subnet, listing)]
                limit = max(1, listing.page.limit - len(common))
                listing = replace(listing, page=replace(listing.page, limit=limit))
            own, cursor = subnets.list_page(connection, listing, project_id=principal.project_id)
        return common + own, cursor

    # -- making and removing ------------------------------------------------------------------------------

    def create(
        self,
        principal: Principal,
        *,
        name: str | None = None,
        zone: str | None = None,
        vpc: str | None = None,
        cidr: str | None = None,
        gateway: str | None = None,
        dhcp_first: str | None = None,
        dhcp_last: str | None = None,
        mtu: int | None = None,
        labels: dict[str, str] | None = None,
    ) -> tuple[Subnet, Job]:
        """Accept a new subnet: in a VPC, with a block of its own there, or a bare segment.

        Args:
            zone: the first one when None.
            gateway, dhcp_first, dhcp_last: the first host, and all hosts after it, when None.

        Raises:
            InvalidInput: names each wrong field.
            AlreadyExists: the name is taken.
            QuotaExceeded: the project may have no more.
            InTransition, InvalidState: the VPC is not active.
            Unavailable: no networks can be made now.
        """
        require(principal, Role.MEMBER)
        check_labels(labels or {})
        mtu = check_mtu(mtu)
        with self._store.read() as connection:
            zone = _checked_zone(connection, zone)
            found = None if vpc is None else vpc_in_body(connection, principal, vpc)
        plan = None
        if found is not None:
            plan = planned_place(found.cidr, cidr, gateway, dhcp_first, dhcp_last)
        else:
            for field, value in (
                ("cidr", cidr),
                ("gateway", gateway),
                ("dhcp_first", dhcp_first),
                ("dhcp_last", dhcp_last),
            ):
                if value is not None:
                    raise invalid(field, "excluded", "is for a subnet in a VPC; one in no VPC has no addresses")
        self._health.check_networks()

        def work(tx: Tx) -> tuple[Subnet, Job]:
            subnet_id = self._ids.new(id_prefixes.SUBNET)
            self._quotas.take(tx, principal.project_id, {"subnets": 1})
            claim_name(tx, "subnet", principal.project_id, subnet_id, name or subnet_id)
            place = NOWHERE
            if found is not None and plan is not None:
                hold_vpc(tx, found.id, plan, "making a subnet in it")
                claim_gateway(tx, subnet_id, plan)
                place = place_columns(found.id, plan)
            subnets.add(
                tx,
                id=subnet_id,
                project_id=principal.project_id,
                name=name or subnet_id,
                labels=labels or {},
                zone=zone,
                status=NetworkStatus.PENDING,
                transition=SUBNET_MOVES["create"].transition,
                mtu=mtu,
                **place,
            )
            shared.add_labels(tx, subnet_id, labels or {})
            with SUBNET_REVISIONS.change(tx, subnet_id):
                pass  # the row above is the first revision
            return self._accepted(tx, principal, subnet_id, "create", "creating")

        return self._store.write(work)

    def delete(self, principal: Principal, id_or_name: str, *, if_generation: int | None = None) -> tuple[Subnet, Job]:
        """Delete a subnet.

        Raises:
            InUse: NICs or address reservations are on it: ``blockers`` names them.
            PermissionDenied: it is one that all projects share.
            InTransition, InvalidState: not now.
        """
        require(principal, Role.MEMBER)
        subnet = self._own(principal, id_or_name)
        self._health.check_networks()
        move = SUBNET_MOVES["delete"]

        def work(tx: Tx) -> tuple[Subnet, Job]:
            current = self._held(tx, subnet.id)
            check_generation(current, if_generation)
            expect = {"status": move.sources, "transition": None}
            if not subnets.change(tx, subnet.id, expect=expect, transition=move.transition):
                raise refusal(current, "delete")
            refuse_inhabited(tx.connection, current, "it can be deleted")
            if current.vpc_id is not None:
                follow_routes(tx, principal, current.vpc_id, self._add_job)
            return self._accepted(tx, principal, subnet.id, "delete", "deleting")

        return self._store.write(work)

    # -- changing -----------------------------------------------------------------------------------------

    def update(
        self,
        principal: Principal,
        id_or_name: str,
        *,
        name: str | None = None,
        labels: dict[str, str | None] | None = None,
        dhcp_first: str | None = None,
        dhcp_last: str | None = None,
        if_generation: int | None = None,
    ) -> tuple[Subnet, Job | None]:
        """Change what is given. No guest notices any of it, so there is no job.

        Args:
            labels: a merge patch: null removes one.
            dhcp_first, dhcp_last: addresses that NICs have already are not taken from them.

        Raises:
            PermissionDenied: it is one that all projects share.
            PreconditionFailed: it is at another generation.
        """
        require(principal, Role.MEMBER)
        subnet = self._own(principal, id_or_name)
        check_labels({key: value for key, value in (labels or {}).items() if value is not None})

        def work(tx: Tx) -> tuple[Subnet, Job | None]:
            subnets.lock(tx, subnet.id)
            current = again_subnet(tx, subnet.id)
            check_generation(current, if_generation)
            changes = changed_pool(current, dhcp_first, dhcp_last)
            if name is not None and name != current.name:
                if current.status != NetworkStatus.FAILED:  # one that has failed holds nothing, a name neither
                    rename(tx, "subnet", principal.project_id, subnet.id, name)
                changes["name"] = name
            changes |= patched_labels(tx, SubnetRow.__table__, subnet.id, labels)
            if not changes:
                return current, None
            subnets.change(tx, subnet.id, **changes)
            changed = again_subnet(tx, subnet.id)
            emit(tx, principal, changed, "updated")
            return changed, None

        return self._store.write(work)

    def join(
        self,
        principal: Principal,
        id_or_name: str,
        *,
        vpc: str,
        cidr: str,
        gateway: str | None = None,
        dhcp_first: str | None = None,
        dhcp_last: str | None = None,
    ) -> tuple[Subnet, Job]:
        """Let a bare subnet join a VPC; its NICs get addresses of the pool in the same commit.

        Raises:
            InvalidInput: names each wrong field.
            InvalidState: it is in a VPC already.
            OutOfCapacity: the pool has fewer addresses than the subnet has NICs.
            InTransition, InvalidState: the subnet or the VPC is not active.
        """
        require(principal, Role.MEMBER)
        subnet = self._own(principal, id_or_name)
        with self._store.read() as connection:
            found = vpc_in_body(connection, principal, vpc)
        plan = planned_place(found.cidr, cidr, gateway, dhcp_first, dhcp_last)
        self._health.check_networks()

        def work(tx: Tx) -> tuple[Subnet, Job]:
            hold_vpc(tx, found.id, plan, "letting a subnet join")
            place = place_columns(found.id, plan)
            transition = SUBNET_MOVES["join"].transition
            with changed_subnet(tx, subnet.id, "join", transition=transition, next_offset=0, **place) as before:
                if before.vpc_id is not None:  # an error takes everything back
                    message = f"subnet {subnet.id} is in VPC {before.vpc_id}: let it leave that first"
                    raise InvalidState(message, resource=ref(before))
                claim_gateway(tx, subnet.id, plan)
                give_addresses(tx, again_subnet(tx, subnet.id))
            return self._accepted(tx, principal, subnet.id, "join", "updating")

        return self._store.write(work)

    def leave(self, principal: Principal, id_or_name: str, *, force: bool = False) -> tuple[Subnet, Job]:
        """Let a subnet leave its VPC and be bare.

        Args:
            force: also when NICs have addresses there; they lose them.

        Raises:
            InUse: NICs with addresses (unless ``force``) or address reservations are on it: ``blockers`` names them.
            InvalidState: it is in no VPC.
            InTransition, InvalidState: it is not active.
        """
        require(principal, Role.MEMBER)
        subnet = self._own(principal, id_or_name)
        self._health.check_networks()

        def work(tx: Tx) -> tuple[Subnet, Job]:
            current = self._held(tx, subnet.id)
            if current.vpc_id is None:
                raise InvalidState(f"subnet {subnet.id} is in no VPC", resource=ref(current))
            refuse_inhabited(tx.connection, current, "it can leave", only_addressed=True, reservations_only=force)
            with changed_subnet(tx, subnet.id, "leave", transition=SUBNET_MOVES["leave"].transition, **NOWHERE):
                take_addresses(tx, current)
            follow_routes(tx, principal, current.vpc_id, self._add_job)
            return self._accepted(tx, principal, subnet.id, "leave", "updating", {"vpc_id": current.vpc_id})

        return self._store.write(work)

    # -- rows ---------------------------------------------------------------------------------------------

    def _own(self, principal: Principal, id_or_name: str) -> Subnet:
        found = self.get(principal, id_or_name)
        refuse_shared(found)
        return found

    def _held(self, tx: Tx, subnet_id: str) -> Subnet:
        """Return the subnet with its row and its VPC's held: the VPC's first, as everybody does."""
        vpc_id = again_subnet(tx, subnet_id).vpc_id
        if vpc_id is not None:
            vpcs.lock(tx, vpc_id)
        subnets.lock(tx, subnet_id)
        current = again_subnet(tx, subnet_id)
        if current.vpc_id != vpc_id:
            raise InTransition(f"subnet {subnet_id} was moved meanwhile: look at it again", resource=ref(current))
        return current

    def _accepted(
        self,
        tx: Tx,
        principal: Principal,
        subnet_id: str,
        action: str,
        event: str,
        job_input: dict[str, Any] | None = None,
    ) -> tuple[Subnet, Job]:
        job = self._add_job(
            tx,
            action=f"subnet.{action}",
            resource=ResourceRef("subnet", subnet_id),
            project_id=principal.project_id,
            request_id=principal.request_id,
            input=job_input,
        )
        changed = again_subnet(tx, subnet_id)
        emit(tx, principal, changed, event, job_id=job.id)
        return changed, job


def _find(connection: Connection, principal: Principal, id_or_name: str, *, zone: str | None) -> Subnet:
    found = find_subnet(connection, principal.project_id, id_or_name, zone=zone)
    if found is None:
        raise not_found("subnet", id_or_name)
    return found


def _checked_zone(connection: Connection, zone: str | None) -> str:
    zones = catalog.zone_names(connection)
    wanted = zone if zone is not None else next(iter(zones), "")
    if wanted not in zones:
        raise invalid("zone", "not_found", f"there is no zone {wanted}; there are {', '.join(zones)}")
    return wanted


def _is_listed(subnet: Subnet, listing: Listing) -> bool:
    """Return whether one that all share fits what was asked for."""
    filters = listing.filters or {}
    return all(getattr(subnet, name) == value for name, value in filters.items()) and fits(
        subnet.labels, listing.labels
    )
