"""Instances: may this happen now?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from iaas.config import Policy
from iaas.db.repositories import catalog, events, instances, shared
from iaas.db.repositories.query import Listing
from iaas.db.store import Store, Tx
from iaas.drivers.interface import Backend, ComputeCapability, ComputeDriver, MachineKind, PowerState
from iaas.kernel.errors import (
    AlreadyExists,
    FieldError,
    InTransition,
    InvalidInput,
    InvalidState,
    NotFound,
    NotSupported,
    ResourceRef,
)
from iaas.kernel.ids import ID_PATTERN, IdSource
from iaas.kernel.labels import check_labels
from iaas.resources.common import Principal, Role
from iaas.resources.instances import ExecOutcome, Instance, InstanceStatus, NewInstance
from iaas.resources.jobs import Job
from iaas.services.access import require
from iaas.services.driver_errors import translated
from iaas.services.health import BackendHealth
from iaas.services.instance_creation import AddJobs, InstanceCreation
from iaas.services.instance_planning import shape_of
from iaas.services.instance_retention import InstanceRetention, check_generation
from iaas.services.labelling import merged_labels
from iaas.services.placement import grow, refuse_when_down
from iaas.services.quotas import Quotas
from iaas.transitions import INSTANCE_MOVES

AddJob = Callable[..., Job]


class InstanceService:
    def __init__(
        self,
        store: Store,
        ids: IdSource,
        backend: Backend,
        health: BackendHealth,
        policy: Policy,
        add_job: AddJob,
        add_jobs: AddJobs,
        *,
        quotas: Quotas,
        retention: InstanceRetention,
        retention_s: float,
    ) -> None:
        self._store = store
        self._backend = backend
        self._health = health
        self._policy = policy
        self._add_job = add_job
        self._quotas = quotas
        self._retention = retention
        self.retention_s = retention_s
        self._creation = InstanceCreation(store, ids, health, policy, add_jobs, quotas=quotas)

    # -- reading ------------------------------------------------------------------------------------------

    def get(self, principal: Principal, id_or_name: str, *, deleted: bool = False) -> Instance:
        """Return an instance; with ``deleted`` also one (by id) that is deleted and not forgotten yet."""
        if deleted and (gone := self._retention.find(principal, id_or_name)) is not None:
            return gone
        with self._store.read() as connection:
            found = None
            if ID_PATTERN.match(id_or_name):
                found = instances.get(connection, id_or_name, project_id=principal.project_id)
            if found is None:
                found = instances.find_by_name(connection, id_or_name, project_id=principal.project_id)
        if found is None:
            raise _not_found(id_or_name)
        return found

    def list_page(
        self, principal: Principal, listing: Listing, *, deleted: bool = False
    ) -> tuple[list[Instance], str | None]:
        with self._store.read() as connection:
            return instances.list_page(connection, listing, project_id=principal.project_id, deleted=deleted)

    # -- changing -----------------------------------------------------------------------------------------

    def create(
        self, principal: Principal, wishes: Sequence[NewInstance], *, is_batch: bool = False
    ) -> list[tuple[Instance, Job]]:
        """Accept instances, all or none; see :class:`InstanceCreation`."""
        require(principal, Role.MEMBER)
        return self._creation.create(principal, wishes, is_batch=is_batch)

    def update(
        self,
        principal: Principal,
        id_or_name: str,
        *,
        name: str | None = None,
        labels: dict[str, str | None] | None = None,
        if_generation: int | None = None,
    ) -> Instance:
        """Change name and labels (a merge patch: null removes one)."""
        require(principal, Role.MEMBER)
        instance = self.get(principal, id_or_name)
        check_labels({key: value for key, value in (labels or {}).items() if value is not None})

        def work(tx: Tx) -> Instance:
            instances.lock(tx, instance.id)
            current = instances.get(tx.connection, instance.id)
            if current is None:
                raise _not_found(id_or_name)
            check_generation(current, if_generation)
            merged = merged_labels(current.labels, labels)
            # One that failed to come is on no host and holds nothing, a name neither.
            if name is not None and name != current.name and current.host_id is not None:
                scope = name_scope(principal.project_id)
                shared.release(tx, scope=scope, resource_id=current.id)
                if not shared.claim(tx, scope=scope, value=name, resource_id=current.id):
                    raise name_taken(name)
            if merged != current.labels:
                shared.set_labels(tx, current.id, merged)
            instances.change(tx, current.id, name=name or current.name, labels=merged)
            _emit(tx, principal, current, "instance.updated")
            changed = instances.get(tx.connection, current.id)
            assert changed is not None  # noqa: S101 - changed one line above, in this transaction
            return changed

        return self._store.write(work)

    def start(self, principal: Principal, id_or_name: str, *, if_generation: int | None = None) -> tuple[Instance, Job]:
        return self._act(principal, id_or_name, "start", {}, if_generation=if_generation)

    def stop(
        self,
        principal: Principal,
        id_or_name: str,
        *,
        force: bool = False,
        timeout_s: int = 60,
        if_generation: int | None = None,
    ) -> tuple[Instance, Job]:
        """Ask the guest to stop and cut the power after ``timeout_s`` (cloud time); at once with ``force``."""
        return self._act(principal, id_or_name, "stop", _ending(force, timeout_s), if_generation=if_generation)

    def restart(
        self,
        principal: Principal,
        id_or_name: str,
        *,
        force: bool = False,
        timeout_s: int = 60,
        if_generation: int | None = None,
    ) -> tuple[Instance, Job]:
        """Stop as :meth:`stop` does, and start again."""
        return self._act(principal, id_or_name, "restart", _ending(force, timeout_s), if_generation=if_generation)

    def resize(
        self,
        principal: Principal,
        id_or_name: str,
        *,
        flavor: str | None = None,
        vcpus: int | None = None,
        memory_mib: int | None = None,
        if_generation: int | None = None,
    ) -> tuple[Instance, Job]:
        """Give a stopped instance another shape; the root disk stays as it is."""
        require(principal, Role.MEMBER)
        self.get(principal, id_or_name)  # who may not know of it learns nothing from the wish either
        with self._store.read() as connection:
            shape = shape_of(
                lambda name: catalog.get_flavor(connection, name),
                flavor=flavor,
                vcpus=vcpus,
                memory_mib=memory_mib,
                root_disk_gib=None,
            )

        def reserve(tx: Tx, instance: Instance) -> dict[str, Any]:
            vcpus = max(0, shape.vcpus - instance.vcpus)
            memory_mib = max(0, shape.memory_mib - instance.memory_mib)
            if instance.host_id is not None:
                self._quotas.take(tx, instance.project_id, {"vcpus": vcpus, "memory_mib": memory_mib})
            grow(tx, instance, vcpus=vcpus, memory_mib=memory_mib)
            return {"flavor": shape.flavor, "vcpus": shape.vcpus, "memory_mib": shape.memory_mib}

        return self._act(principal, id_or_name, "resize", reserve, if_generation=if_generation)

    def rebuild(
        self, principal: Principal, id_or_name: str, *, image: str | None = None, if_generation: int | None = None
    ) -> tuple[Instance, Job]:
        """Give the instance a fresh root disk from an image (the present one when None)."""

        def choose(tx: Tx, instance: Instance) -> dict[str, Any]:
            # Here and not before: another rebuild may have ended meanwhile, and its disk has the next number then.
            wanted = image or instance.image_id
            found = catalog.get_image(tx.connection, wanted)
            if found is None:
                raise InvalidInput(
                    f"image: there is no image {wanted}", errors=[FieldError("image", "not_found", "does not exist")]
                )
            if instance.kind not in found.kinds:
                message = f"image {found.name} has no artefact for the kind {instance.kind}"
                raise InvalidInput(f"image: {message}", errors=[FieldError("image", "no_artefact", message)])
            return {"image_id": found.id, "image": found.name, "disk_generation": instance.disk_generation + 1}

        return self._act(principal, id_or_name, "rebuild", choose, if_generation=if_generation)

    def delete(
        self, principal: Principal, id_or_name: str, *, purge: bool = False, if_generation: int | None = None
    ) -> tuple[Instance, Job]:
        """Delete an instance. It can be recovered for the cloud's retention time, unless ``purge``.

        ``purge`` with the id of a deleted one ends its retention now.
        """
        require(principal, Role.MEMBER)
        if purge and (gone := self._retention.find(principal, id_or_name)) is not None:
            return self._retention.purge(principal, gone.id, if_generation=if_generation)
        instance = self.get(principal, id_or_name)
        if purge or self.retention_s <= 0 or instance.status not in INSTANCE_MOVES["retire"].sources:
            return self._act(principal, id_or_name, "delete", {}, if_generation=if_generation)
        job_input = {"retention_s": self.retention_s}
        return self._act(principal, id_or_name, "retire", job_input, if_generation=if_generation)

    def recover(
        self, principal: Principal, instance_id: str, *, name: str | None = None, if_generation: int | None = None
    ) -> tuple[Instance, Job]:
        """Bring a deleted instance back, stopped; see :meth:`InstanceRetention.recover`."""
        return self._retention.recover(principal, instance_id, name=name, if_generation=if_generation)

    def _act(
        self,
        principal: Principal,
        id_or_name: str,
        action: str,
        job_input: dict[str, Any] | Callable[[Tx, Instance], dict[str, Any]],
        *,
        if_generation: int | None = None,
    ) -> tuple[Instance, Job]:
        """Accept one action: state and transition are checked and set by one conditional update.

        Args:
            job_input: what the job is told; or what reserves what it needs and returns that, inside the transaction,
                from the instance as it was before the action.
        """
        require(principal, Role.MEMBER)
        instance = self.get(principal, id_or_name)
        self._health.check(instance.kind)
        move = INSTANCE_MOVES[action]

        def work(tx: Tx) -> tuple[Instance, Job]:
            instances.lock(tx, instance.id)
            current = instances.get(tx.connection, instance.id)
            if current is None:
                raise _not_found(id_or_name)
            check_generation(current, if_generation)
            expect = {"status": move.sources, "transition": None, "deleted_at": None}
            if not instances.change(tx, current.id, expect=expect, transition=move.transition):
                raise _refusal(current, action)
            if moving := next((nic for nic in current.nics if nic.transition is not None), None):
                raise InTransition(
                    f"NIC {moving.id} of instance {current.id} is {moving.transition}: wait for that job first",
                    resource=_ref(current),
                )
            refuse_when_down(tx.connection, current)
            job = self._add_job(
                tx,
                action=f"instance.{action}",
                instance=current,
                request_id=principal.request_id,
                input=job_input(tx, current) if callable(job_input) else job_input,
            )
            _emit(tx, principal, current, f"instance.{move.transition}", job_id=job.id)
            changed = instances.get(tx.connection, current.id)
            assert changed is not None  # noqa: S101 - changed above, in this transaction
            return changed, job

        return self._store.write(work)

    # -- the guest ----------------------------------------------------------------------------------------

    def execute(
        self, principal: Principal, id_or_name: str, argv: Sequence[str], *, timeout_s: float, stdin: str = ""
    ) -> ExecOutcome:
        """Run a command in the guest as root, without a shell, and wait for its end.

        Raises:
            InvalidState: the instance does not run.
            NotSupported: this backend cannot do it.
            GuestUnavailable: nothing answers in the guest.
        """
        require(principal, Role.MEMBER)
        instance = self.get(principal, id_or_name)
        driver = self._driver(instance)
        if ComputeCapability.EXEC not in driver.capabilities:
            raise NotSupported(f"this backend cannot run commands in a {instance.kind}", resource=_ref(instance))
        if instance.status != InstanceStatus.RUNNING:
            raise InvalidState(f"instance {instance.id} is {instance.status}, not running", resource=_ref(instance))
        self.refuse_when_host_is_down(instance)
        self._health.check(instance.kind)
        with translated():
            result = driver.execute(instance.id, list(argv), timeout_s=timeout_s, stdin=stdin.encode())
        return ExecOutcome(
            exit_code=result.exit_code,
            stdout=result.stdout.decode(errors="replace"),
            stderr=result.stderr.decode(errors="replace"),
            truncated=result.truncated,
        )

    def console(self, principal: Principal, id_or_name: str, *, tail_bytes: int) -> str:
        """Return the end of the console log, text with replacement characters; empty when nothing ever ran."""
        instance = self.get(principal, id_or_name)
        driver = self._driver(instance)
        if ComputeCapability.CONSOLE not in driver.capabilities:
            raise NotSupported(f"this backend keeps no console of a {instance.kind}", resource=_ref(instance))
        if instance.status in (InstanceStatus.PENDING, InstanceStatus.FAILED):
            return ""
        self.refuse_when_host_is_down(instance)
        self._health.check(instance.kind)
        with translated():
            return driver.read_console(instance.id, tail_bytes=tail_bytes).decode(errors="replace")

    def refuse_when_host_is_down(self, instance: Instance) -> None:
        """Return when the instance's host can be asked.

        Raises:
            InvalidState: (code ``host_down``) it cannot.
        """
        with self._store.read() as connection:
            refuse_when_down(connection, instance)

    def note_power(self, machine_id: str, power: PowerState) -> bool:
        """A backend says that a machine changed by itself; True when the instance's row followed.

        Rows in a transition are left to their job, which looks for itself.
        """
        if power not in (PowerState.STOPPED, PowerState.CRASHED):
            return False

        def work(tx: Tx) -> bool:
            current = instances.get(tx.connection, machine_id)
            if current is None:
                return False
            expect = {"status": InstanceStatus.RUNNING, "transition": None, "deleted_at": None}
            changes: dict[str, Any] = {"status": InstanceStatus.STOPPED, "guest_ready_at": None}
            if not instances.change(tx, machine_id, expect=expect, **changes):
                return False
            events.add(
                tx,
                type="instance.stopped",
                project_id=current.project_id,
                resource=_ref(current),
                generation=current.generation + 1,
                data={"reason": "guest" if power is PowerState.STOPPED else "crash"},
            )
            return True

        return self._store.write(work)

    def _driver(self, instance: Instance) -> ComputeDriver:
        return self._backend.compute[MachineKind(instance.kind)]


def _ending(force: bool, timeout_s: int) -> dict[str, Any]:
    """Return how a job ends a run of the machine, as ``machine_steps.stop_gracefully`` reads it."""
    return {"force": force, "timeout_s": timeout_s}


def name_scope(project_id: str) -> str:
    """Return the scope in which instance names are claimed."""
    return f"name:instance:{project_id}"


def name_taken(name: str, field: str = "name") -> AlreadyExists:
    return AlreadyExists(
        f"there is an instance named {name} in this project already",
        errors=[FieldError(field, "taken", "is taken in this project")],
    )


def _ref(instance: Instance) -> ResourceRef:
    return ResourceRef("instance", instance.id)


def _not_found(id_or_name: str) -> NotFound:
    return NotFound(f"there is no instance {id_or_name}", resource=ResourceRef("instance", id_or_name))


def _refusal(instance: Instance, action: str) -> InTransition | InvalidState:
    if instance.transition is not None:
        return InTransition(
            f"instance {instance.id} is {instance.transition}: wait for that job before another action",
            resource=_ref(instance),
        )
    allowed = ", ".join(sorted(INSTANCE_MOVES[action].sources))
    return InvalidState(
        f"instance {instance.id} is {instance.status}; {action} is allowed when it is {allowed}",
        resource=_ref(instance),
    )


def _emit(tx: Tx, principal: Principal, instance: Instance, event: str, *, job_id: str | None = None) -> None:
    events.add(
        tx,
        type=event,
        project_id=instance.project_id,
        resource=_ref(instance),
        generation=instance.generation + 1,
        job_id=job_id,
        request_id=principal.request_id,
    )
