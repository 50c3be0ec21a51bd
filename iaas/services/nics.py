"""NICs: made, changed, moved from instance to instance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from iaas.db.models import NICRow
from iaas.db.repositories import catalog, events, instances, nics, quotas, shared, subnets, vpc_entries
from iaas.db.repositories.query import Listing
from iaas.db.store import Store, Tx
from iaas.drivers.interface import Backend, ComputeCapability, MachineKind, NetworkCapability, PortStatistics
from iaas.kernel.errors import (
    InTransition,
    InUse,
    InvalidState,
    NotFound,
    NotSupported,
    PreconditionFailed,
    ResourceRef,
)
from iaas.kernel.ids import ID_PATTERN, IdSource
from iaas.kernel.labels import check_labels
from iaas.resources.catalog import DEFAULT_MAX_NICS
from iaas.resources.common import Principal, Role
from iaas.resources.instances import Instance, InstanceStatus
from iaas.resources.jobs import Job
from iaas.resources.networks import NIC, NewNIC, NICStatus, NICTransition, Pair, Subnet
from iaas.services.access import require
from iaas.services.driver_errors import translated
from iaas.services.filters import by_id
from iaas.services.health import BackendHealth
from iaas.services.labelling import patched_labels
from iaas.services.nic_creation import NICCreation, claim_address, claim_name
from iaas.services.nic_wishes import check_address, check_pairs, check_secondary, find_nic, in_use, invalid, plan_nic
from iaas.services.placement import refuse_when_down
from iaas.services.quotas import Quotas


class NICService:
    def __init__(
        self,
        store: Store,
        ids: IdSource,
        backend: Backend,
        health: BackendHealth,
        add_job: Callable[..., Job],
        quotas: Quotas,
    ) -> None:
        self._store = store
        self._backend = backend
        self._health = health
        self._add_job = add_job
        self._quotas = quotas
        self._creation = NICCreation(ids)

    # -- reading ------------------------------------------------------------------------------------------

    def get(self, principal: Principal, wanted: str) -> NIC:
        """Return a NIC of the project by id, name or MAC."""
        with self._store.read() as connection:
            found = find_nic(connection, principal.project_id, wanted)
        if found is None:
            raise _not_found(wanted)
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
            raise NotSupported("this backend counts no packets", resource=_ref(nic))
        self._health.check_networks()
        with translated():
            found = self._backend.networks.statistics(nic.subnet_id, nic.id)
        if found is None:
            raise InvalidState(f"NIC {nic.id} is in no running instance: it counts nothing", resource=_ref(nic))
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
            self._tell(tx, principal, nic, "nic.created")
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
                raise _not_found(wanted)
            _check_generation(current, if_generation)
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
            changed = _now(tx, current)
            job = None
            if network and current.instance_id is not None and current.transition is None:
                job = self._job(tx, principal, "nic.apply", changed, {})
            elif network and current.transition is not None:
                raise _in_transition(current)
            self._tell(tx, principal, changed, "nic.updated", job_id=job.id if job else None)
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
                    resource=_ref(nic),
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
                raise _not_found(wanted)
            _check_generation(current, if_generation)
            if current.instance_id is not None or current.transition is not None:
                raise in_use(current)
            if routing := vpc_entries.vpcs_routing_to(tx.connection, current.id):
                raise InUse(
                    f"routes lead to NIC {current.id}",
                    resource=_ref(current),
                    blockers=[ResourceRef("vpc", vpc_id) for vpc_id in routing],
                )
            shared.release_all(tx, current.id)
            shared.set_labels(tx, current.id, {})
            nics.delete(tx, current.id)
            quotas.give(tx, current.project_id, {"nics": 1})
            self._tell(tx, principal, current, "nic.deleted")

        self._store.write(work)

    # -- moving -------------------------------------------------------------------------------------------

    def attach(
        self, principal: Principal, wanted: str, *, instance: str, if_generation: int | None = None
    ) -> tuple[NIC, Job]:
        """Put a NIC into an instance, running or stopped.

        Raises:
            InUse: it is in one already.
            InvalidState: the instance neither runs nor is stopped.
            InvalidInput: the instance is in another zone, or has as many NICs as its flavor allows.
            NotSupported: this backend cannot do it while the instance runs.
        """
        require(principal, Role.MEMBER)
        nic = self.get(principal, wanted)
        found = self._instance(principal, instance)
        self._health.check(found.kind)
        self._health.check_networks()

        def work(tx: Tx) -> tuple[NIC, Job]:
            target, current, subnet = self._both(tx, nic, found.id, wanted, if_generation)
            if current.status != NICStatus.AVAILABLE or current.transition is not None:
                raise in_use(current)
            if subnet.zone != target.zone:
                raise invalid("instance", "other_zone", f"is in {target.zone}, the NIC in {subnet.zone}")
            _check_at_rest(target)
            self._check_hotplug(target)
            limit = _limit_of(tx, target)
            if len(target.nics) >= limit:
                raise invalid("instance", "too_many", f"{target.id} has {len(target.nics)} NICs of {limit}")
            taken = {each.device_index for each in target.nics}
            device_index = next(index for index in range(limit + 1) if index not in taken)
            changes = {"instance_id": target.id, "device_index": device_index}
            return self._move(tx, principal, current, target, subnet, NICTransition.ATTACHING, changes)

        return self._store.write(work)

    def detach(self, principal: Principal, wanted: str, *, if_generation: int | None = None) -> tuple[NIC, Job]:
        """Take a NIC out of its instance, running or stopped; it keeps its address and MAC.

        Raises:
            InvalidState: it is in none.
        """
        require(principal, Role.MEMBER)
        nic = self.get(principal, wanted)
        if nic.instance_id is None:
            raise InvalidState(f"NIC {nic.id} is in no instance", resource=_ref(nic))
        instance_id = nic.instance_id
        self._health.check(self._instance(principal, instance_id).kind)

        def work(tx: Tx) -> tuple[NIC, Job]:
            target, current, subnet = self._both(tx, nic, instance_id, wanted, if_generation)
            if current.transition is not None:
                raise _in_transition(current)
            if current.instance_id != target.id:
                raise InvalidState(f"NIC {current.id} is not in instance {target.id} any more", resource=_ref(current))
            _check_at_rest(target)
            self._check_hotplug(target)
            return self._move(tx, principal, current, target, subnet, NICTransition.DETACHING, {})

        return self._store.write(work)

    def note_link_lost(self, nic_id: str) -> None:
        """A NIC's link is gone though nobody took it: have it plugged again, if its instance is to have it."""

        def work(tx: Tx) -> None:
            nic = nics.get(tx.connection, nic_id)
            if nic is None or nic.instance_id is None or nic.transition is not None:
                return
            instance = instances.get(tx.connection, nic.instance_id)
            if instance is None or instance.transition is not None or instance.status != InstanceStatus.RUNNING:
                return
            job_input = {"instance_id": instance.id, "lane": _lane(instance)}
            self._add_job(
                tx,
                action="nic.replug",
                resource=ResourceRef("nic", nic.id),
                project_id=nic.project_id,
                input=job_input,
            )

        self._store.write(work)

    def _both(
        self, tx: Tx, nic: NIC, instance_id: str, wanted: str, if_generation: int | None
    ) -> tuple[Instance, NIC, Subnet]:
        """Return instance and NIC as they are now, held until the commit (the instance first: order of locks)."""
        instances.lock(tx, instance_id)
        nics.lock(tx, nic.id)
        target = instances.get(tx.connection, instance_id)
        current = nics.get(tx.connection, nic.id)
        if target is None:
            raise NotFound(f"there is no instance {instance_id}", resource=ResourceRef("instance", instance_id))
        if current is None:
            raise _not_found(wanted)
        _check_generation(current, if_generation)
        subnet = subnets.get(tx.connection, current.subnet_id)
        assert subnet is not None  # noqa: S101 - a subnet with NICs is not deleted
        refuse_when_down(tx.connection, target)
        return target, current, subnet

    def _move(
        self,
        tx: Tx,
        principal: Principal,
        nic: NIC,
        instance: Instance,
        subnet: Subnet,
        transition: NICTransition,
        changes: dict[str, Any],
    ) -> tuple[NIC, Job]:
        nics.change(tx, nic.id, transition=transition, **changes)
        # A new generation of the instance too: what it consists of changes, and others who act on it must see that.
        if not instances.change(tx, instance.id, expect={"transition": None, "deleted_at": None}):
            raise _instance_in_transition(instance)
        changed = _now(tx, nic)
        action = "attach" if transition is NICTransition.ATTACHING else "detach"
        job_input = {"instance_id": instance.id, "lane": _lane(instance), "mtu": subnet.mtu}
        job = self._job(tx, principal, f"nic.{action}", changed, job_input)
        self._tell(tx, principal, changed, f"nic.{transition}", job_id=job.id, data={"instance": instance.id})
        return changed, job

    def _check_hotplug(self, instance: Instance) -> None:
        capabilities = self._backend.compute[MachineKind(instance.kind)].capabilities
        if instance.status == InstanceStatus.RUNNING and ComputeCapability.NIC_HOTPLUG not in capabilities:
            raise NotSupported(
                f"this backend cannot change the NICs of a running {instance.kind}", resource=_instance_ref(instance)
            )

    def _instance(self, principal: Principal, wanted: str) -> Instance:
        with self._store.read() as connection:
            found = None
            if ID_PATTERN.match(wanted):
                found = instances.get(connection, wanted, project_id=principal.project_id)
            if found is None:
                found = instances.find_by_name(connection, wanted, project_id=principal.project_id)
        if found is None:
            raise invalid("instance", "not_found", f"there is no instance {wanted}")
        return found

    def _job(self, tx: Tx, principal: Principal, action: str, nic: NIC, job_input: dict[str, Any]) -> Job:
        return self._add_job(
            tx,
            action=action,
            resource=_ref(nic),
            project_id=principal.project_id,
            request_id=principal.request_id,
            input=job_input,
        )

    def _tell(
        self,
        tx: Tx,
        principal: Principal,
        nic: NIC,
        event: str,
        *,
        job_id: str | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        events.add(
            tx,
            type=event,
            project_id=principal.project_id,
            resource=_ref(nic),
            generation=nic.generation,
            job_id=job_id,
            request_id=principal.request_id,
            data=data or {},
        )


def _limit_of(tx: Tx, instance: Instance) -> int:
    flavor = catalog.get_flavor(tx.connection, instance.flavor) if instance.flavor is not None else None
    return flavor.max_nics if flavor is not None else DEFAULT_MAX_NICS


def _lane(instance: Instance) -> str:
    return f"{instance.host_id or ''}/{instance.kind}"


def _check_at_rest(instance: Instance) -> None:
    if instance.transition is not None:
        raise _instance_in_transition(instance)
    if instance.status not in (InstanceStatus.RUNNING, InstanceStatus.STOPPED):
        raise InvalidState(
            f"instance {instance.id} is {instance.status}; it must run or be stopped", resource=_instance_ref(instance)
        )


def _check_generation(nic: NIC, wanted: int | None) -> None:
    if wanted is not None and wanted != nic.generation:
        raise PreconditionFailed(
            f"NIC {nic.id} is at generation {nic.generation}, If-Match names {wanted}", resource=_ref(nic)
        )


def _now(tx: Tx, nic: NIC) -> NIC:
    changed = nics.get(tx.connection, nic.id)
    assert changed is not None  # noqa: S101 - changed before, in this transaction
    return changed


def _in_transition(nic: NIC) -> InTransition:
    return InTransition(
        f"NIC {nic.id} is {nic.transition}: wait for that job before another action", resource=_ref(nic)
    )


def _instance_in_transition(instance: Instance) -> InTransition:
    return InTransition(
        f"instance {instance.id} is {instance.transition or 'changing'}: wait for that job before another action",
        resource=_instance_ref(instance),
    )


def _ref(nic: NIC) -> ResourceRef:
    return ResourceRef("nic", nic.id)


def _instance_ref(instance: Instance) -> ResourceRef:
    return ResourceRef("instance", instance.id)


def _not_found(wanted: str) -> NotFound:
    return NotFound(f"there is no NIC {wanted}", resource=ResourceRef("nic", wanted))
