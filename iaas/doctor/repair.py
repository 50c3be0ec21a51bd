"""Mends what the doctor found, where that is safe. Each repair looks again whether it is still wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import case, delete, select, update

from iaas.db.models import AllocationRow, Base, HostRow, InstanceRow
from iaas.db.models.quotas import QuotaRow
from iaas.db.repositories import events, instances, nics, shared, subnets, vpcs
from iaas.db.store import Store, Tx
from iaas.doctor.books import LABELLED, RESOURCES, held
from iaas.doctor.findings import Drift, Finding
from iaas.doctor.stranded import end_network_transition, end_nic_transition
from iaas.drivers.interface import Backend, MachineKind, PowerState
from iaas.resources.instances import Instance, InstanceStatus
from iaas.services import quotas
from iaas.workflows.network_specs import port_spec, subnet_spec, vpc_spec

_instances = InstanceRow.__table__
_hosts = HostRow.__table__
_allocations = AllocationRow.__table__


class NoLongerTrueError(Exception):
    """What was found has changed meanwhile: nothing was done."""


class Repairs:
    """The repairs of one cloud.

    Args:
        submit_job: puts an unfinished job onto the executor's agenda.
    """

    def __init__(self, store: Store, backend: Backend, submit_job: Callable[[str], None]) -> None:
        self._store = store
        self._backend = backend
        self._submit_job = submit_job
        self._by_drift: Mapping[Drift, Callable[[Finding], None]] = {
            Drift.LOST_MACHINE: self._fail_instance,
            Drift.LOST_RETAINED: self._give_up_retained,
            Drift.RETAINED_RUNS: self._stop_retained,
            Drift.LEAKED_MACHINE: self._remove_machine,
            Drift.WRONG_STATE: self._follow_state,
            Drift.WRONG_SHAPE: self._reshape,
            Drift.WRONG_PLACEMENT: self._follow_placement,
            Drift.LOST_NETWORK: self._ensure_network,
            Drift.LEAKED_NETWORK: self._remove_network,
            Drift.LOST_PORT: self._ensure_port,
            Drift.LEAKED_PORT: self._remove_port,
            Drift.LEAKED_IMAGE: self._remove_image,
            Drift.HOST_COUNTERS: self._recount,
            Drift.QUOTA_COUNTERS: self._recount_quotas,
            Drift.LABEL_INDEX: self._index_labels,
            Drift.ORPHAN_CLAIM: self._release_claim,
            Drift.LOST_CLAIM: self._claim,
            Drift.STUCK_JOB: self._resume_job,
            Drift.STRANDED_TRANSITION: self._end_any_transition,
        }

    def mend(self, finding: Finding) -> None:
        """Repair one finding.

        Raises:
            NoLongerTrueError: it changed meanwhile.
            DriverError: the backend did not do it.
        """
        self._by_drift[finding.drift](finding)

    # -- instances ----------------------------------------------------------------------------------------

    def _fail_instance(self, finding: Finding) -> None:
        if self._instance(finding) is None:
            raise NoLongerTrueError
        self._rest(
            finding,
            InstanceStatus.FAILED,
            event="instance.lost",
            failure_code="machine_lost",
            failure_message="its machine is gone from the host, with its root disk; delete the instance",
        )

    def _give_up_retained(self, finding: Finding) -> None:
        """What is left of it, its room on the host, is given back by the purge that is due now."""
        expect = {"generation": finding.generation, "transition": None, "purged_at": None}

        def work(tx: Tx) -> None:
            if not instances.change(tx, finding.resource.id, expect=expect, retained=None, purge_at=tx.now):
                raise NoLongerTrueError
            _tell(tx, finding, "instance.lost")

        self._store.write(work)

    def _stop_retained(self, finding: Finding) -> None:
        with self._store.read() as connection:
            found = instances.get(connection, finding.resource.id, with_deleted=True)
        if found is None or found.generation != finding.generation or found.transition is not None:
            raise NoLongerTrueError
        self._backend.compute[MachineKind(found.kind)].stop_machine(found.id, force=True)

    def _follow_state(self, finding: Finding) -> None:
        if finding.found == InstanceStatus.RUNNING:
            self._rest(finding, InstanceStatus.RUNNING, event="instance.started")
        else:
            self._rest(finding, InstanceStatus.STOPPED, event="instance.stopped", guest_ready_at=None)

    def _rest(self, finding: Finding, status: InstanceStatus, *, event: str, **changes: Any) -> None:
        """Let the row follow, if it still is what was looked at, and tell so."""
        expect = {"generation": finding.generation, "deleted_at": None}
        if finding.drift is not Drift.STRANDED_TRANSITION:
            expect["transition"] = None
        if status is InstanceStatus.FAILED:
            changes["guest_ready_at"] = None

        def work(tx: Tx) -> None:
            if not instances.change(tx, finding.resource.id, expect=expect, status=status, transition=None, **changes):
                raise NoLongerTrueError
            _tell(tx, finding, event)

        self._store.write(work)

    def _follow_placement(self, finding: Finding) -> None:
        """Let the row name the host that the machine is on, and that host hold what the other held for it."""
        instance = self._instance(finding)
        if instance is None or instance.host_id is None:
            raise NoLongerTrueError
        was, now = instance.host_id, finding.found
        amounts = {
            "vcpus": instance.vcpus,
            "memory_mib": instance.memory_mib,
            "disk_gib": instance.root_disk_gib,
        }
        expect = {"generation": finding.generation, "transition": None, "deleted_at": None, "host_id": was}

        def work(tx: Tx) -> None:
            if not instances.change(tx, instance.id, expect=expect, host_id=now):
                raise NoLongerTrueError
            for host_id in sorted((was, now)):  # in one order, so that no two wait for each other
                sign = 1 if host_id == now else -1
                used = {
                    column: case((column + sign * amount < 0, 0), else_=column + sign * amount)
                    for name, amount in amounts.items()
                    for column in (_hosts.c[f"{name}_used"],)
                }
                tx.connection.execute(update(HostRow).where(_hosts.c.id == host_id).values(used))
            _tell(tx, finding, "instance.moved")

        self._store.write(work)

    def _reshape(self, finding: Finding) -> None:
        instance = self._instance(finding)
        if instance is None:
            raise NoLongerTrueError
        self._backend.compute[MachineKind(instance.kind)].resize_machine(
            instance.id, vcpus=instance.vcpus, memory_mib=instance.memory_mib
        )

    def _end_any_transition(self, finding: Finding) -> None:
        match finding.resource.type:
            case "instance":
                self._end_transition(finding)
            case "nic":
                is_ended = end_nic_transition(self._store, self._backend, finding)
                if not is_ended:
                    raise NoLongerTrueError
            case _:
                if not self._store.write(lambda tx: end_network_transition(tx, finding)):
                    raise NoLongerTrueError

    def _end_transition(self, finding: Finding) -> None:
        with self._store.read() as connection:
            instance = instances.get(connection, finding.resource.id)
        if instance is None or instance.generation != finding.generation:
            raise NoLongerTrueError
        state = self._backend.compute[MachineKind(instance.kind)].inspect_machine(instance.id)
        if state is None:
            self._rest(
                finding,
                InstanceStatus.FAILED,
                event="instance.lost",
                failure_code="machine_lost",
                failure_message=f"it was {finding.found} when its job got lost, and has no machine; delete it",
            )
        elif state.power in (PowerState.RUNNING, PowerState.STARTING):
            self._rest(finding, InstanceStatus.RUNNING, event="instance.recovered")
        else:
            self._rest(finding, InstanceStatus.STOPPED, event="instance.recovered", guest_ready_at=None)

    def _remove_machine(self, finding: Finding) -> None:
        with self._store.read() as connection:
            row = instances.get(connection, finding.resource.id, with_deleted=True)
        if row is not None and row.kind == finding.scope and _stands_for_a_machine(row):
            raise NoLongerTrueError
        self._backend.compute[MachineKind(finding.scope)].remove_machine(finding.resource.id)

    def _instance(self, finding: Finding) -> Instance | None:
        """Return the instance if it still is what was looked at."""
        with self._store.read() as connection:
            found = instances.get(connection, finding.resource.id)
        if found is None or found.generation != finding.generation or found.transition is not None:
            return None
        return found

    # -- networks and images ------------------------------------------------------------------------------

    def _ensure_network(self, finding: Finding) -> None:
        with self._store.read() as connection:
            if finding.resource.type == "vpc":
                vpc, subnet = vpc_spec(connection, finding.resource.id), None
            else:
                subnet = subnet_spec(connection, finding.resource.id)
                vpc = vpc_spec(connection, subnet.vpc_id) if subnet is not None and subnet.vpc_id is not None else None
        if vpc is None and subnet is None:
            raise NoLongerTrueError
        if vpc is not None:
            self._backend.networks.ensure_vpc(vpc)
        if subnet is not None:
            self._backend.networks.ensure_subnet(subnet)

    def _remove_network(self, finding: Finding) -> None:
        network_id = finding.resource.id
        with self._store.read() as connection:
            if (vpcs if finding.resource.type == "vpc" else subnets).get(connection, network_id) is not None:
                raise NoLongerTrueError
        if finding.resource.type == "vpc":
            self._backend.networks.remove_vpc(network_id)
        else:
            self._backend.networks.remove_subnet(network_id)

    def _ensure_port(self, finding: Finding) -> None:
        with self._store.read() as connection:
            nic = nics.get(connection, finding.resource.id)
            instance = instances.get(connection, nic.instance_id) if nic is not None and nic.instance_id else None
        if nic is None or instance is None or (nic.transition or instance.transition) is not None:
            raise NoLongerTrueError
        self._backend.networks.ensure_port(port_spec(nic, hostname=instance.hostname))

    def _remove_port(self, finding: Finding) -> None:
        with self._store.read() as connection:
            nic = nics.get(connection, finding.resource.id)
        if nic is not None and nic.subnet_id == finding.scope and (nic.instance_id or nic.transition):
            raise NoLongerTrueError
        self._backend.networks.remove_port(finding.scope, finding.resource.id)

    def _remove_image(self, finding: Finding) -> None:
        self._backend.images.remove_image(finding.resource.id)

    # -- the books ----------------------------------------------------------------------------------------

    def _recount(self, finding: Finding) -> None:
        host_id = finding.resource.id

        def work(tx: Tx) -> None:
            # Locks the host's row first: whoever reserves at the same time comes before or after, never between.
            tx.connection.execute(update(HostRow).where(_hosts.c.id == host_id).values(updated_at=tx.now))
            mine = _instances.c.host_id == host_id
            moving = select(_instances.c.id).where(mine, _instances.c.transition.is_not(None)).limit(1)
            if tx.connection.execute(moving).first() is not None:
                raise NoLongerTrueError
            used = {f"{name}_used": select(held(name)).where(mine).scalar_subquery() for name in RESOURCES}
            tx.connection.execute(update(HostRow).where(_hosts.c.id == host_id).values(used))

        self._store.write(work)

    def _recount_quotas(self, finding: Finding) -> None:
        def work(tx: Tx) -> None:
            # Locked first, as above: whoever takes from a quota changes its row before anything else.
            tx.connection.execute(select(QuotaRow.project_id).with_for_update())
            quotas.repair(tx)

        self._store.write(work)

    def _index_labels(self, finding: Finding) -> None:
        resource_id = finding.resource.id

        def work(tx: Tx) -> None:
            labels: Mapping[str, str] = {}
            if (name := LABELLED.get(finding.resource.type)) is not None:
                table = Base.metadata.tables[name]
                row = tx.connection.execute(select(table).where(table.c.id == resource_id)).first()
                if row is not None and getattr(row, "deleted_at", None) is None:
                    labels = row.labels
            shared.set_labels(tx, resource_id, labels)

        self._store.write(work)

    def _release_claim(self, finding: Finding) -> None:
        query = delete(AllocationRow).where(
            _allocations.c.scope == finding.scope,
            _allocations.c.value == finding.found,
            _allocations.c.resource_id == finding.resource.id,
        )
        self._store.write(lambda tx: tx.connection.execute(query))

    def _claim(self, finding: Finding) -> None:
        def work(tx: Tx) -> None:
            if not shared.claim(tx, scope=finding.scope, value=finding.found, resource_id=finding.resource.id):
                raise NoLongerTrueError

        self._store.write(work)

    def _resume_job(self, finding: Finding) -> None:
        self._submit_job(finding.resource.id)


def _tell(tx: Tx, finding: Finding, event: str) -> None:
    events.add(
        tx,
        type=event,
        project_id=finding.project_id or "",
        resource=finding.resource,
        generation=instances.generation_of(tx.connection, finding.resource.id),
        data={"reason": "doctor", "drift": finding.drift.value},
    )


def _stands_for_a_machine(row: Instance) -> bool:
    if row.transition is not None:
        return True
    if row.deleted_at is not None:
        return row.purge_at is not None and row.purged_at is None
    return row.status != InstanceStatus.FAILED or row.host_id is not None
