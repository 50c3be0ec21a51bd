"""NICs: made, changed, moved from instance to instance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from iaas.db.models import NICRow
from iaas.db.repositories import nics, quotas, shared, subnets, vpc_entries
from iaas.db.repositories.query import Listing
from iaas.db.store import Store, Tx
from iaas.drivers.interface import Backend, NetworkCapability, PortStatistics
from iaas.kernel.errors import InUse, InvalidState, NotSupported, ResourceRef
from iaas.kernel.ids import IdSource
from iaas.kernel.labels import check_labels
from iaas.resources.common import Principal, Role
from iaas.resources.jobs import Job
from iaas.resources.networks import NIC, NewNIC, Pair
from iaas.services.access import require
from iaas.services.driver_errors import translated
from iaas.services.filters import by_id
from iaas.services.health import BackendHealth
from iaas.services.labelling import patched_labels
from iaas.services.nic_creation import NICCreation, claim_address, claim_name
from iaas.services.nic_moves import NICMoves
from iaas.services.nic_rows import (
    AddJob,
    add_nic_job,
    check_generation,
    in_transition,
    not_found,
    now,
    ref,
    tell_of_nic,
)
from iaas.services.nic_wishes import check_address, check_pairs, check_secondary, find_nic, in_use, plan_nic
from iaas.services.quotas import Quotas


class NICService:
    def __init__(
        self,
        store: Store,
        ids: IdSource,
        backend: Backend,
        health: BackendHealth,
        add_job: AddJob,
        quotas: Quotas,
    ) -> None:
        self._store = store
        self._backend = backend
        self._health = health
        self._add_job = add_job
        self._quotas = quotas
        self._creation = NICCreation(ids)
        self._moves = NICMoves(store, backend, health, add_job)

    # -- reading ------------------------------------------------------------------------------------------

    def get(self, principal: Principal, wanted: str) -> NIC:
        """Return a NIC of the project by id, name or MAC."""
        with self._store.read() as connection:
            found = find_nic(connection, principal.project_id, wanted)
        if found is None:
            raise not_found(wanted)
        return found

    def list_page(self, principal: Principal, listing: Listing) -> tuple[list[NIC], str | None]:
        with self._store.read() as connection:
            return nics.list_page(connection, by_id(connection, principal, listing), project_id=principal.project_id)

    def statistics(self, principal: Principal, wanted: str) -> PortStatistics:
        """Return what the NIC has counted since it was plugged.

        Raises:
            InvalidState: it is in no running instance.
            NotSupported: this backend counts nothing.
        """
        nic = self.get(principal, wanted)
        if NetworkCapability.STATISTICS not in self._backend.networks.capabilities:
            raise NotSupported("this backend counts no packets", resource=ref(nic))
        self._health.check_networks()
        with translated():
            found = self._backend.networks.statistics(nic.subnet_id, nic.id)
        if found is None:
            raise InvalidState(f"NIC {nic.id} is in no running instance: it counts nothing", resource=ref(nic))
        return found

    # -- changing -----------------------------------------------------------------------------------------

    def create(self, principal: Principal, wish: NewNIC) -> NIC:
        """Make a NIC that is in no instance.

        Raises:
            InvalidInput, AlreadyExists, OutOfCapacity, QuotaExceeded: nothing was written.
        """
        require(principal, Role.MEMBER)
        check_labels(wish.labels)
        with self._store.read() as connection:
            plan = plan_nic(connection, principal.project_id, wish, zone=None, prefix="")

        def work(tx: Tx) -> NIC:
            self._quotas.take(tx, principal.project_id, {"nics": 1})
            nic = self._creation.make(tx, principal.project_id, [plan])[0]
            tell_of_nic(tx, principal, nic, "nic.created")
            return nic

        return self._store.write(work)

    def update(
        self,
        principal: Principal,
        wanted: str,
        *,
        name: str | None = None,
        labels: dict[str, str | None] | None = None,
        address: str | None = None,
        secondary_addresses: Sequence[str] | None = None,
        allowed_pairs: Sequence[Pair] | None = None,
        if_generation: int | None = None,
    ) -> tuple[NIC, Job | None]:
        """Change a NIC; the job (None when nothing in the network changes) brings it to a NIC that is in use.

        Args:
            address: its first address; only while it is in no instance.

        Raises:
            InvalidState: ``address`` of a NIC that is in an instance.
        """
        require(principal, Role.MEMBER)
        nic = self.get(principal, wanted)
        check_labels({key: value for key, value in (labels or {}).items() if value is not None})

        def work(tx: Tx) -> tuple[NIC, Job | None]:
            nics.lock(tx, nic.id)
            current = nics.get(tx.connection, nic.id, project_id=principal.project_id)
            if current is None:
                raise not_found(wanted)
            check_generation(current, if_generation)
            changes: dict[str, Any] = {}
            if name is not None and name != current.name:
                shared.release(tx, scope=f"name:nic:{current.project_id}", resource_id=current.id)
                claim_name(tx, current.project_id, current.id, name)
                changes["name"] = name
            changes |= patched_labels(tx, NICRow.__table__, current.id, labels)
            network = self._address_changes(tx, current, address, secondary_addresses)
            pairs = current.allowed_pairs if allowed_pairs is None else self._pairs(tx, current, allowed_pairs)
            if pairs != current.allowed_pairs:
                network["allowed_pairs"] = [{"cidr": pair.cidr, "mac": pair.mac} for pair in pairs]
            nics.change(tx, current.id, **changes, **network)
            changed = now(tx, current)
            job = None
            if network and current.instance_id is not None and current.transition is None:
                job = add_nic_job(self._add_job, tx, principal, "nic.apply", changed, {})
            elif network and current.transition is not None:
                raise in_transition(current)
            tell_of_nic(tx, principal, changed, "nic.updated", job_id=job.id if job else None)
            return changed, job

        return self._store.write(work)

    def _pairs(self, tx: Tx, nic: NIC, wanted: Sequence[Pair]) -> tuple[Pair, ...]:
        subnet = subnets.get(tx.connection, nic.subnet_id)
        assert subnet is not None  # noqa: S101 - a subnet with NICs is not deleted
        return check_pairs(subnet, wanted, "allowed_pairs")

    def _address_changes(
        self, tx: Tx, nic: NIC, address: str | None, secondary: Sequence[str] | None
    ) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        subnet = subnets.get(tx.connection, nic.subnet_id)
        assert subnet is not None  # noqa: S101 - a subnet with NICs is not deleted
        scope = subnets.address_scope(subnet.id)
        first = nic.address
        if address is not None and (wanted := check_address(subnet, address, "address")) != nic.address:
            if nic.instance_id is not None:
                raise InvalidState(
                    f"NIC {nic.id} is in instance {nic.instance_id}: detach it to change its first address",
                    resource=ref(nic),
                )
            if nic.address is not None:
                shared.unclaim(tx, scope=scope, wanted=[(nic.address, nic.id)])
            if wanted not in nic.secondary_addresses:
                claim_address(tx, subnet.id, nic.id, wanted, "address")
            changes["address"] = first = wanted
        if secondary is not None or first in nic.secondary_addresses:
            kept = [one for one in nic.secondary_addresses if one != first]
            listed = check_secondary(subnet, first, kept if secondary is None else secondary, "secondary_addresses")
            gone = [one for one in nic.secondary_addresses if one not in listed and one != first]
            shared.unclaim(tx, scope=scope, wanted=[(one, nic.id) for one in gone])
            for index, one in enumerate(listed):
                if one not in nic.secondary_addresses:
                    claim_address(tx, subnet.id, nic.id, one, f"secondary_addresses.{index}")
            if listed != nic.secondary_addresses:
                changes["secondary_addresses"] = list(listed)
        return changes

    def delete(self, principal: Principal, wanted: str, *, if_generation: int | None = None) -> None:
        """Delete a NIC that is in no instance; its address and MAC are free at once.

        Raises:
            InUse: an instance has it, or routes lead to it; ``blockers`` names them.
        """
        require(principal, Role.MEMBER)
        nic = self.get(principal, wanted)

        def work(tx: Tx) -> None:
            nics.lock(tx, nic.id)
            current = nics.get(tx.connection, nic.id)
            if current is None:
                raise not_found(wanted)
            check_generation(current, if_generation)
            if current.instance_id is not None or current.transition is not None:
                raise in_use(current)
            if routing := vpc_entries.vpcs_routing_to(tx.connection, current.id):
                raise InUse(
                    f"routes lead to NIC {current.id}",
                    resource=ref(current),
                    blockers=[ResourceRef("vpc", vpc_id) for vpc_id in routing],
                )
            shared.release_all(tx, current.id)
            shared.set_labels(tx, current.id, {})
            nics.delete(tx, current.id)
            quotas.give(tx, current.project_id, {"nics": 1})
            tell_of_nic(tx, principal, current, "nic.deleted")

        self._store.write(work)

    # -- moving -------------------------------------------------------------------------------------------

    def attach(
        self, principal: Principal, wanted: str, *, instance: str, if_generation: int | None = None
    ) -> tuple[NIC, Job]:
        """Put a NIC into an instance, running or stopped; see :meth:`NICMoves.attach`."""
        require(principal, Role.MEMBER)
        nic = self.get(principal, wanted)
        return self._moves.attach(principal, nic, instance=instance, if_generation=if_generation)

    def detach(self, principal: Principal, wanted: str, *, if_generation: int | None = None) -> tuple[NIC, Job]:
        """Take a NIC out of its instance, running or stopped; it keeps its address and MAC."""
        require(principal, Role.MEMBER)
        return self._moves.detach(principal, self.get(principal, wanted), if_generation=if_generation)

    def note_link_lost(self, nic_id: str) -> None:
        """A NIC's link is gone though nobody took it: have it plugged again, if its instance is to have it."""
        self._moves.note_link_lost(nic_id)
