"""Deleted instances: recoverable for a while, then purged; their rows stay a little longer as ghosts.

While an instance is retained its machine rests on its host, stopped, and holds its disk there. vCPUs, memory,
name, addresses and MACs are everybody's again, so a recovery has to get them anew.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from iaas.config import Ghosts
from iaas.db.repositories import events, instances, nics, retention, shared, subnets
from iaas.db.store import Store, Tx
from iaas.kernel.errors import (
    AlreadyExists,
    FieldError,
    InTransition,
    InvalidState,
    NotFound,
    OutOfCapacity,
    PreconditionFailed,
    ResourceRef,
)
from iaas.kernel.ids import IdSource
from iaas.resources.common import Principal, Role
from iaas.resources.instances import Instance, InstanceStatus
from iaas.resources.jobs import Job
from iaas.resources.networks import NetworkStatus, NetworkTransition, NICStatus, Subnet
from iaas.services.access import require
from iaas.services.health import BackendHealth
from iaas.services.nic_creation import mac_scope
from iaas.services.placement import grow, refuse_when_down
from iaas.services.quotas import Quotas
from iaas.transitions import INSTANCE_MOVES

CHUNK = 200
MAC_TRIES = 8  # one of four billion is taken rarely, eight in a row never
MAX_CHUNKS = 100  # in one turn of the periodic task; the rest waits for the next


class InstanceRetention:
    """Recovers and purges deleted instances of one cloud."""

    def __init__(
        self,
        store: Store,
        ids: IdSource,
        health: BackendHealth,
        quotas: Quotas,
        ghosts: Ghosts,
        add_job: Callable[..., Job],
    ) -> None:
        self._store = store
        self._ids = ids
        self._health = health
        self._quotas = quotas
        self._ghosts = ghosts
        self._add_job = add_job

    # -- for tenants --------------------------------------------------------------------------------------

    def find(self, principal: Principal, instance_id: str) -> Instance | None:
        """Return the project's deleted instance with that id, retained or a ghost; None when there is none."""
        with self._store.read() as connection:
            found = instances.get(connection, instance_id, project_id=principal.project_id, with_deleted=True)
        return found if found is not None and found.deleted_at is not None else None

    def recover(
        self, principal: Principal, instance_id: str, *, name: str | None = None, if_generation: int | None = None
    ) -> tuple[Instance, Job]:
        """Bring a retained instance back, stopped; it has its old addresses and MACs unless others have them.

        Args:
            name: its new name, for when the old one is taken.

        Raises:
            NotFound: there is no such deleted instance.
            InvalidState: it was purged, or its time is over.
            AlreadyExists: its name is taken.
            OutOfCapacity: its host has no room for it now.
            QuotaExceeded: the project may not have it again.
        """
        require(principal, Role.MEMBER)
        found = self._need(principal, instance_id)
        self._health.check(found.kind)
        self._health.check_networks()

        def work(tx: Tx) -> tuple[Instance, Job]:
            current = instances.get(tx.connection, found.id, with_deleted=True)
            if current is None:
                raise _not_found(instance_id)
            check_generation(current, if_generation)
            new_name = name or current.name
            # First of all, and only once: two that recover at the same time cannot both have seen it deleted.
            expect = {"status": InstanceStatus.DELETED, "transition": None, "deleted_at": current.deleted_at}
            if current.deleted_at is None or not instances.change(
                tx,
                current.id,
                expect=expect,
                name=new_name,
                transition=INSTANCE_MOVES["recover"].transition,
                deleted_at=None,
            ):
                raise _in_transition(current)
            if current.retained is None or current.purge_at is None or current.purge_at <= tx.now:
                raise InvalidState(f"instance {current.id} cannot be recovered any more", resource=_ref(current))
            refuse_when_down(tx.connection, current)
            kept = _kept_nics(tx, current)
            amounts = {
                "instances": 1,
                "vcpus": current.vcpus,
                "memory_mib": current.memory_mib,
                "nics": len(kept),
            }
            self._quotas.take(tx, current.project_id, amounts)
            scope = f"name:instance:{principal.project_id}"
            if not shared.claim(tx, scope=scope, value=new_name, resource_id=current.id):
                raise AlreadyExists(
                    f"there is an instance named {new_name} in this project now: recover it under another name",
                    errors=[FieldError("name", "taken", "is taken in this project")],
                )
            grow(tx, current, vcpus=current.vcpus, memory_mib=current.memory_mib, message="has no room for it any more")
            self._claim_nics(tx, current, kept)
            shared.add_labels(tx, current.id, current.labels)
            recovering = _now(tx, current)
            job = self._add_job(
                tx,
                action="instance.recover",
                instance=recovering,
                request_id=principal.request_id,
                input={"deleted_at": current.deleted_at.isoformat(), "old_name": current.name},
            )
            _emit(tx, recovering, job, principal.request_id)
            return recovering, job

        return self._store.write(work)

    def purge(
        self, principal: Principal, instance_id: str, *, if_generation: int | None = None
    ) -> tuple[Instance, Job]:
        """Purge a retained instance now; there is no way back.

        Raises:
            NotFound: there is no such deleted instance, or it was purged already.
        """
        require(principal, Role.MEMBER)
        found = self._need(principal, instance_id)
        self._health.check(found.kind)

        def work(tx: Tx) -> tuple[Instance, Job]:
            current = instances.get(tx.connection, found.id, with_deleted=True)
            if current is None or current.purge_at is None:
                raise _not_found(instance_id)
            check_generation(current, if_generation)
            refuse_when_down(tx.connection, current)
            accepted = self._accept_purge(tx, current, principal.request_id)
            if accepted is None:
                raise _in_transition(current)
            return accepted

        return self._store.write(work)

    # -- for the periodic task ----------------------------------------------------------------------------

    def tidy(self) -> None:
        """Begin to purge what is over its time, and forget ghosts that are too old or too many."""
        self._purge_overdue()
        self._drop_ghosts()

    def _purge_overdue(self) -> None:
        def work(tx: Tx) -> int:
            ids = retention.overdue(tx.connection, tx.now, CHUNK)
            for instance_id in ids:
                current = instances.get(tx.connection, instance_id, with_deleted=True)
                if current is not None:
                    self._accept_purge(tx, current, None)
            return len(ids)

        for _ in range(MAX_CHUNKS):
            if self._store.write(work) < CHUNK:
                return

    def _drop_ghosts(self) -> None:
        def drop_old(tx: Tx) -> int:
            return retention.drop_ghosts(tx, before=tx.now - timedelta(seconds=self._ghosts.age_s), most=CHUNK)

        for _ in range(MAX_CHUNKS):
            if self._store.write(drop_old) < CHUNK:
                break
        with self._store.read() as connection:
            too_many = retention.count_ghosts(connection) - self._ghosts.count

        def drop_oldest(tx: Tx) -> int:
            return retention.drop_ghosts(tx, before=None, most=min(CHUNK, too_many))

        while too_many > 0:
            dropped = self._store.write(drop_oldest)
            if dropped == 0:  # those left have jobs that are not finished
                return
            too_many -= dropped

    # -- rows ---------------------------------------------------------------------------------------------

    def _need(self, principal: Principal, instance_id: str) -> Instance:
        found = self.find(principal, instance_id)
        if found is None:
            with self._store.read() as connection:
                alive = instances.get(connection, instance_id, project_id=principal.project_id)
            if alive is not None and alive.transition is not None:
                raise _in_transition(alive)
            if alive is not None:
                raise InvalidState(f"instance {alive.id} is {alive.status}, not deleted", resource=_ref(alive))
            raise _not_found(instance_id)
        return found

    def _accept_purge(self, tx: Tx, current: Instance, request_id: str | None) -> tuple[Instance, Job] | None:
        expect = {"status": InstanceStatus.DELETED, "transition": None, "purged_at": None}
        if current.deleted_at is None or not instances.change(
            tx, current.id, expect=expect, transition=INSTANCE_MOVES["purge"].transition
        ):
            return None
        changed = _now(tx, current)
        job = self._add_job(tx, action="instance.purge", instance=changed, request_id=request_id)
        _emit(tx, changed, job, request_id)
        return changed, job

    def _claim_nics(self, tx: Tx, instance: Instance, kept: Sequence[tuple[dict[str, Any], Subnet]]) -> None:
        rows = [
            {
                "id": nic["id"],
                "project_id": instance.project_id,
                "name": nic["id"],
                "zone": subnet.zone,
                "status": NICStatus.IN_USE,
                "subnet_id": subnet.id,
                "vpc_id": subnet.vpc_id,
                "mac": self._claim_mac(tx, subnet.zone, nic),
                "address": _claim_address(tx, subnet, nic),
                "instance_id": instance.id,
                "device_index": nic["device_index"],
                "delete_with_instance": True,
            }
            for nic, subnet in kept
        ]
        if rows:
            nics.add_all(tx, rows)

    def _claim_mac(self, tx: Tx, zone: str, nic: dict[str, str]) -> str:
        """Return the NIC's old MAC, or a new one when somebody else has that; the job gives it to the machine."""
        for mac in (nic["mac"], *(self._ids.mac() for _ in range(MAC_TRIES))):
            if shared.claim(tx, scope=mac_scope(zone), value=mac, resource_id=nic["id"]):
                return mac
        raise OutOfCapacity("no free MAC address was found for it; try again")


def _kept_nics(tx: Tx, instance: Instance) -> list[tuple[dict[str, Any], Subnet]]:
    """Return the NICs that went with the instance, but for those whose subnets are gone or going."""
    found = [(nic, _usable_subnet(tx, nic["subnet_id"])) for nic in (instance.retained or {})["nics"]]
    return [(nic, subnet) for nic, subnet in found if subnet is not None]


def _usable_subnet(tx: Tx, subnet_id: str) -> Subnet | None:
    """Return a subnet that stays as it is until the commit (those that all projects share always do)."""
    subnet = subnets.get(tx.connection, subnet_id)
    if subnet is None or subnet.is_shared:
        return subnet
    subnets.lock(tx, subnet_id)
    subnet = subnets.get(tx.connection, subnet_id)
    if subnet is None or subnet.status != NetworkStatus.ACTIVE or subnet.transition == NetworkTransition.DELETING:
        return None
    return subnet


def _claim_address(tx: Tx, subnet: Subnet, nic: dict[str, str]) -> str | None:
    if nic["address"] is None or subnet.cidr is None:
        return None
    block, old = ipaddress.IPv4Network(subnet.cidr), ipaddress.IPv4Address(nic["address"])
    is_hosts = block.network_address < old < block.broadcast_address  # it may have joined with another block
    if is_hosts and shared.claim(
        tx, scope=subnets.address_scope(subnet.id), value=nic["address"], resource_id=nic["id"]
    ):
        return nic["address"]
    claimed = subnets.claim_addresses(tx, subnet, [nic["id"]])
    if claimed is None:
        raise OutOfCapacity("the subnet has no free address for it any more")
    return claimed[0]


def check_generation(instance: Instance, wanted: int | None) -> None:
    """Return when the instance is at the generation that If-Match named (None: it named none).

    Raises:
        PreconditionFailed: it is at another.
    """
    if wanted is not None and wanted != instance.generation:
        raise PreconditionFailed(
            f"instance {instance.id} is at generation {instance.generation}, If-Match names {wanted}",
            resource=_ref(instance),
        )


def _now(tx: Tx, instance: Instance) -> Instance:
    changed = instances.get(tx.connection, instance.id, with_deleted=True)
    assert changed is not None  # noqa: S101 - changed before, in this transaction
    return changed


def _emit(tx: Tx, instance: Instance, job: Job, request_id: str | None) -> None:
    events.add(
        tx,
        type=f"instance.{instance.transition}",
        project_id=instance.project_id,
        resource=_ref(instance),
        generation=instance.generation,
        job_id=job.id,
        request_id=request_id,
    )


def _ref(instance: Instance) -> ResourceRef:
    return ResourceRef("instance", instance.id)


def _not_found(instance_id: str) -> NotFound:
    return NotFound(f"there is no deleted instance {instance_id}", resource=ResourceRef("instance", instance_id))


def _in_transition(instance: Instance) -> InTransition:
    return InTransition(
        f"instance {instance.id} is {instance.transition}: wait for that job before another action",
        resource=_ref(instance),
    )
