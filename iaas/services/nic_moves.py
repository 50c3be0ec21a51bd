"""NICs on their way: into an instance, out of it, and back after their link has died."""

from __future__ import annotations

from typing import Any

from iaas.db.repositories import catalog, instances, nics, subnets
from iaas.db.store import Store, Tx
from iaas.drivers.interface import Backend, ComputeCapability, MachineKind
from iaas.kernel.errors import InTransition, InvalidState, NotFound, NotSupported, ResourceRef
from iaas.kernel.ids import ID_PATTERN
from iaas.resources.catalog import DEFAULT_MAX_NICS
from iaas.resources.common import Principal
from iaas.resources.instances import Instance, InstanceStatus
from iaas.resources.jobs import Job
from iaas.resources.networks import NIC, NICStatus, NICTransition, Subnet
from iaas.services.health import BackendHealth
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
from iaas.services.nic_wishes import in_use, invalid
from iaas.services.placement import refuse_when_down


class NICMoves:
    """Attaches and detaches NICs of one cloud."""

    def __init__(self, store: Store, backend: Backend, health: BackendHealth, add_job: AddJob) -> None:
        self._store = store
        self._backend = backend
        self._health = health
        self._add_job = add_job

    def attach(
        self, principal: Principal, nic: NIC, *, instance: str, if_generation: int | None = None
    ) -> tuple[NIC, Job]:
        """Put a NIC into an instance, running or stopped.

        Raises:
            InUse: it is in one already.
            InvalidState: the instance neither runs nor is stopped.
            InvalidInput: the instance is in another zone, or has as many NICs as its flavor allows.
            NotSupported: this backend cannot do it while the instance runs.
        """
        found = self._instance(principal, instance)
        self._health.check(found.kind)
        self._health.check_networks()

        def work(tx: Tx) -> tuple[NIC, Job]:
            target, current, subnet = self._both(tx, nic, found.id, if_generation)
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

    def detach(self, principal: Principal, nic: NIC, *, if_generation: int | None = None) -> tuple[NIC, Job]:
        """Take a NIC out of its instance, running or stopped; it keeps its address and MAC.

        Raises:
            InvalidState: it is in none.
        """
        if nic.instance_id is None:
            raise InvalidState(f"NIC {nic.id} is in no instance", resource=ref(nic))
        instance_id = nic.instance_id
        self._health.check(self._instance(principal, instance_id).kind)

        def work(tx: Tx) -> tuple[NIC, Job]:
            target, current, subnet = self._both(tx, nic, instance_id, if_generation)
            if current.transition is not None:
                raise in_transition(current)
            if current.instance_id != target.id:
                raise InvalidState(f"NIC {current.id} is not in instance {target.id} any more", resource=ref(current))
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

    def _both(self, tx: Tx, nic: NIC, instance_id: str, if_generation: int | None) -> tuple[Instance, NIC, Subnet]:
        """Return instance and NIC as they are now, held until the commit (the instance first: order of locks)."""
        instances.lock(tx, instance_id)
        nics.lock(tx, nic.id)
        target = instances.get(tx.connection, instance_id)
        current = nics.get(tx.connection, nic.id)
        if target is None:
            raise NotFound(f"there is no instance {instance_id}", resource=ResourceRef("instance", instance_id))
        if current is None:
            raise not_found(nic.id)
        check_generation(current, if_generation)
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
        changed = now(tx, nic)
        action = "attach" if transition is NICTransition.ATTACHING else "detach"
        job_input = {"instance_id": instance.id, "lane": _lane(instance), "mtu": subnet.mtu}
        job = add_nic_job(self._add_job, tx, principal, f"nic.{action}", changed, job_input)
        tell_of_nic(tx, principal, changed, f"nic.{transition}", job_id=job.id, data={"instance": instance.id})
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


def _instance_in_transition(instance: Instance) -> InTransition:
    return InTransition(
        f"instance {instance.id} is {instance.transition or 'changing'}: wait for that job before another action",
        resource=_instance_ref(instance),
    )


def _instance_ref(instance: Instance) -> ResourceRef:
    return ResourceRef("instance", instance.id)
