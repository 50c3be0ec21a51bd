"""Accepting new instances: every wish is checked, then all are written in one transaction or none is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from iaas.config import Policy
from iaas.db.repositories import events, instances, shared
from iaas.db.store import Store, Tx
from iaas.drivers.interface import MachineKind
from iaas.kernel import ids as id_prefixes
from iaas.kernel.errors import AlreadyExists, FieldError, ResourceRef
from iaas.kernel.ids import IdSource
from iaas.resources.common import Principal
from iaas.resources.instances import Instance, InstanceStatus, NewInstance
from iaas.resources.jobs import Job
from iaas.resources.networks import NIC
from iaas.services.health import BackendHealth
from iaas.services.instance_planning import Plan, Planner
from iaas.services.naming import hostname_from
from iaas.services.nic_creation import NICCreation
from iaas.services.placement import Amounts, place
from iaas.services.quotas import Quotas
from iaas.services.spreading import spread
from iaas.transitions import INSTANCE_MOVES

AddJobs = Callable[..., list[Job]]


class InstanceCreation:
    def __init__(
        self,
        store: Store,
        ids: IdSource,
        health: BackendHealth,
        policy: Policy,
        add_jobs: AddJobs,
        *,
        quotas: Quotas,
    ) -> None:
        self._store = store
        self._ids = ids
        self._health = health
        self._policy = policy
        self._add_jobs = add_jobs
        self._quotas = quotas
        self._nic_creation = NICCreation(ids)

    def create(
        self, principal: Principal, wishes: Sequence[NewInstance], *, is_batch: bool
    ) -> list[tuple[Instance, Job]]:
        """Accept all wishes, or none; in a batch the fields in errors begin with ``instances.<index>.``.

        Raises:
            InvalidInput, AlreadyExists, OutOfCapacity, QuotaExceeded, PermissionDenied: nothing was written.
            Unavailable: the backend for one of the kinds is down.
        """
        with self._store.read() as connection:
            planner = Planner(connection, principal, self._policy)
            plans = [planner.plan(wish, f"instances.{index}." if is_batch else "") for index, wish in enumerate(wishes)]
        _refuse_twins(plans)
        for kind in sorted({MachineKind(plan.wish.kind) for plan in plans}):
            self._health.check(kind)
        if plans:
            self._health.check_networks()
        shapes = [plan.shape for plan in plans]
        amounts = {
            "instances": len(plans),
            "vcpus": sum(shape.vcpus for shape in shapes),
            "memory_mib": sum(shape.memory_mib for shape in shapes),
            "root_disk_gib": sum(shape.root_disk_gib for shape in shapes),
            "nics": sum(nic.existing is None for plan in plans for nic in plan.nics),
        }
        # A rule may be about an earlier one of the same batch, which must then be there already.
        has_rules = any(plan.placement is not None for plan in plans)
        groups = [[plan] for plan in plans] if has_rules else [plans]

        def work(tx: Tx) -> list[tuple[Instance, Job]]:
            self._quotas.take(tx, principal.project_id, amounts)
            return [accepted for group in groups if group for accepted in self._accept(tx, principal, group)]

        return self._store.write(work)

    def _accept(self, tx: Tx, principal: Principal, plans: Sequence[Plan]) -> list[tuple[Instance, Job]]:
        ids = [self._ids.new(id_prefixes.INSTANCE) for _ in plans]
        self._claim_names(tx, principal, plans, ids)
        hosts = _hosts_for(tx, principal, plans)
        rows = [
            self._row(principal, plan, instance_id, host_id)
            for plan, instance_id, host_id in zip(plans, ids, hosts, strict=True)
        ]
        created = instances.add_all(tx, rows, self._nics(tx, principal, plans, ids))
        for instance in created:
            shared.add_labels(tx, instance.id, instance.labels)
        jobs = self._add_jobs(tx, action="instance.create", resources=created, request_id=principal.request_id)
        told = [
            events.NewEvent(
                type="instance.creating",
                project_id=principal.project_id,
                resource=ResourceRef("instance", instance.id),
                generation=1,
                job_id=job.id,
                request_id=principal.request_id,
            )
            for instance, job in zip(created, jobs, strict=True)
        ]
        events.add_all(tx, told)
        return list(zip(created, jobs, strict=True))

    def _row(self, principal: Principal, plan: Plan, instance_id: str, host_id: str) -> dict[str, Any]:
        wish, shape = plan.wish, plan.shape
        return {
            "id": instance_id,
            "project_id": principal.project_id,
            "name": wish.name or instance_id,
            "labels": wish.labels or {},
            "zone": plan.zone,
            "kind": wish.kind,
            "status": InstanceStatus.PENDING,
            "transition": INSTANCE_MOVES["create"].transition,
            "failure_code": None,
            "failure_message": None,
            "generation": 1,
            "hostname": wish.hostname or hostname_from(wish.name or instance_id, instance_id),
            "flavor": shape.flavor,
            "vcpus": shape.vcpus,
            "memory_mib": shape.memory_mib,
            "root_disk_gib": shape.root_disk_gib,
            "image_id": plan.image.id,
            "image": plan.image.name,
            "key_pairs": plan.key_pairs,
            "authorized_keys": plan.authorized_keys,
            "user_data": wish.user_data,
            "nesting": wish.nesting,
            "privileged": wish.privileged,
            "host_id": host_id,
            "disk_generation": 0,
            "guest_ready_at": None,
            "deleted_at": None,
            "placement": plan.placement.shown if plan.placement is not None else None,
            "retained": None,
            "purge_at": None,
            "purged_at": None,
            "metadata_labels": wish.metadata_labels,
        }

    def _claim_names(self, tx: Tx, principal: Principal, plans: Sequence[Plan], ids: Sequence[str]) -> None:
        scope = f"name:instance:{principal.project_id}"
        names = [plan.wish.name or instance_id for plan, instance_id in zip(plans, ids, strict=True)]
        if shared.claim_all(tx, scope=scope, wanted=list(zip(names, ids, strict=True))):
            return
        for plan, name, instance_id in zip(plans, names, ids, strict=True):
            if shared.holder_of(tx.connection, scope=scope, value=name) != instance_id:
                raise AlreadyExists(
                    f"there is an instance named {name} in this project already",
                    errors=[FieldError(plan.field_prefix + "name", "taken", "is taken in this project")],
                )

    def _nics(self, tx: Tx, principal: Principal, plans: Sequence[Plan], ids: Sequence[str]) -> dict[str, list[NIC]]:
        places = [
            (instance_id, index)
            for plan, instance_id in zip(plans, ids, strict=True)
            for index in range(len(plan.nics))
        ]
        wanted = [nic for plan in plans for nic in plan.nics]
        found: dict[str, list[NIC]] = {instance_id: [] for instance_id in ids}
        made = self._nic_creation.make(tx, principal.project_id, wanted, places=places)
        for (instance_id, _), nic in zip(places, made, strict=True):
            found[instance_id].append(nic)
        return found


def _refuse_twins(plans: Sequence[Plan]) -> None:
    """Return when no name is given twice.

    Raises:
        AlreadyExists: names the first two that are alike; the database could only say that the second is taken.
    """
    first: dict[str, Plan] = {}
    for plan in plans:
        name = plan.wish.name
        if name is None:
            continue
        twin = first.setdefault(name, plan)
        if twin is not plan:
            one, other = twin.field_prefix.rstrip("."), plan.field_prefix.rstrip(".")
            message = f"is given twice in this request: {one} and {other} are both named {name}"
            field = plan.field_prefix + "name"
            raise AlreadyExists(f"{field}: {message}", errors=[FieldError(field, "duplicate", message)])


def _hosts_for(tx: Tx, principal: Principal, plans: Sequence[Plan]) -> list[str]:
    """Reserve room for all and return their hosts.

    Raises:
        OutOfCapacity: names the first that nobody takes.
    """
    wanted = [
        Amounts(vcpus=plan.shape.vcpus, memory_mib=plan.shape.memory_mib, disk_gib=plan.shape.root_disk_gib)
        for plan in plans
    ]
    if len(plans) > 1 and len({plan.zone for plan in plans}) == 1:
        found = spread(tx, plans[0].zone, wanted)
        if found is not None:
            return found
    return [
        place(
            tx,
            project_id=principal.project_id,
            zone=plan.zone,
            amounts=amounts,
            placement=plan.placement,
            labels=plan.wish.labels or {},
            prefix=plan.field_prefix,
        )
        for plan, amounts in zip(plans, wanted, strict=True)
    ]
