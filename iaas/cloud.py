"""One cloud: its store, clocks, random source, backend and services. A process may hold many; nothing is global."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import structlog

from iaas.config import CloudConfig
from iaas.db.ownership import ExecutorClaim
from iaas.db.repositories import events, instances, jobs
from iaas.db.schema import upgrade
from iaas.db.store import Store, Tx
from iaas.doctor.data_plane import rebuild_networks
from iaas.doctor.doctor import Doctor
from iaas.doctor.shelf import ReportShelf
from iaas.drivers.interface import Backend, DriverError, MachineKind, PowerState
from iaas.jobs.event_feed import EventFeed
from iaas.jobs.executor import Executor
from iaas.jobs.signals import JobSignals
from iaas.jobs.wait_slots import WaitSlots
from iaas.kernel import ids as id_prefixes
from iaas.kernel.clock import CloudClock, WallClock
from iaas.kernel.errors import ResourceRef
from iaas.kernel.ids import IdSource
from iaas.kernel.turns import Turns
from iaas.metrics import CloudMetrics
from iaas.metrics.readings import CloudReadings, StoreReadings
from iaas.resources.instances import Instance, InstanceStatus
from iaas.resources.jobs import Job
from iaas.services.bootstrap import SECRET_KEY, FirstCredentials, prepare, renew_credentials
from iaas.services.catalog import CatalogService
from iaas.services.events import EventService
from iaas.services.health import BackendHealth
from iaas.services.idempotency import IdempotencyService
from iaas.services.identity import IdentityService
from iaas.services.instance_retention import InstanceRetention
from iaas.services.instances import InstanceService
from iaas.services.jobs import JobService
from iaas.services.key_pairs import KeyPairService
from iaas.services.metadata import MetadataService
from iaas.services.nics import NICService
from iaas.services.quotas import Quotas
from iaas.services.reservations import ReservationService
from iaas.services.subnets import SubnetService
from iaas.services.vault import Cipher, Vault
from iaas.services.vpc_entries import VPCEntries
from iaas.services.vpcs import VPCService
from iaas.workflows import WORKFLOWS
from iaas.workflows.deadlines import STEP_DEADLINES_S

if TYPE_CHECKING:
    from iaas.jobs.fleet import FleetNews, JobQueue
    from iaas.services.reachability import ReachabilityService

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 10.0


class Cloud:
    """Everything of one cloud.

    Args:
        config: its settings.
        backend: its drivers, wired by the composition root.
        store: its database, at the newest schema after construction.
        clock: what tenants see as time.
        ids: makes ids; a seeded one makes them repeatable.
        operators_vault: the same vault as the cloud's own, for the operator's secret at the start.
        queue: hands jobs to the workers of a fleet; the executor in this process runs them when absent.
    """

    def __init__(
        self,
        *,
        config: CloudConfig,
        backend: Backend,
        store: Store,
        clock: CloudClock,
        ids: IdSource,
        given_credentials: FirstCredentials | None = None,
        queue: JobQueue | None = None,
        operators_vault: Cipher | None = None,
    ) -> None:
        upgrade(store)
        self._queue = queue
        self._news: FleetNews | None = None
        self.config = config
        self.backend = backend
        self.store = store
        self.clock = clock
        self.wall = WallClock()
        self.ids = ids
        self.wait_slots = WaitSlots(config.max_waiters)
        self.signals = JobSignals(self.wait_slots)
        self.event_feed = EventFeed(self.wait_slots)
        store.on_events = self.event_feed.news
        self.metrics = CloudMetrics()
        store.on_group = self.metrics.group_committed
        key_path = config.state_dir / SECRET_KEY if config.state_dir else None
        vault = Vault(key_path)
        self._operators_vault = operators_vault or vault
        self.first_credentials = prepare(store, ids, backend, config, self._operators_vault, given_credentials)
        # One writer and nothing that blocks: then threads only get in each other's way.
        self.turns = Turns() if store.is_sqlite and not backend.blocking else None
        store.turns = self.turns
        self.executor = Executor(
            store=store,
            backend=backend,
            clock=clock,
            ids=ids,
            workflows=WORKFLOWS,
            deadlines_s=STEP_DEADLINES_S,
            signals=self.signals,
            add_job=self._add_job,
            observer=self.metrics,
            driver_calls=config.driver_calls,
            turns=self.turns,
        )
        self._claim = ExecutorClaim(store)
        self.health = BackendHealth(backend)
        if backend.blocking:
            self.executor.periodic.add("look_at_backends", self.health.look, interval_s=LOOK_EVERY_S, each_process=True)
        self.idempotency = IdempotencyService(store, clock, vault, owner=secrets.token_hex(8))
        self.identity = IdentityService(store, ids, clock, vault)
        self.catalog = CatalogService(store, ids, frozenset(host.name for host in backend.hosts))
        self.quotas = Quotas(store, config.quotas)
        self.key_pairs = KeyPairService(store, ids, self.quotas)
        retention = InstanceRetention(store, ids, self.health, self.quotas, config.ghosts, self._add_job)
        self.instances = InstanceService(
            store,
            ids,
            backend,
            self.health,
            config.policy,
            self._add_job,
            self._add_jobs,
            quotas=self.quotas,
            retention=retention,
            retention_s=config.retention_s,
        )
        self.executor.periodic.add("tidy_instances", retention.tidy, interval_s=config.ghosts.tidy_every_s)
        self.vpcs = VPCService(store, ids, self.health, self._add_job, self.quotas)
        self.vpc_entries = VPCEntries(store, ids, self._add_job, self.quotas)
        self.subnets = SubnetService(store, ids, self.health, self._add_job, self.quotas)
        self.reservations = ReservationService(store, ids, self._add_job, self.quotas)
        self.nics = NICService(store, ids, backend, self.health, self._add_job, self.quotas)
        self.jobs = JobService(store, self.signals, self.executor)
        self.events = EventService(store, clock, self.event_feed, config.event_retention)
        self.metadata = MetadataService(store)
        self.executor.periodic.add("purge_events", self.events.purge, interval_s=config.event_retention.purge_every_s)
        self.doctor = Doctor(
            store=store,
            backend=backend,
            clock=clock,
            executor=self.executor,
            policy=config.doctor,
            on_repair=self.metrics.drift_repaired,
            # In a fleet the jobs are the queue's, which hands those of a dead worker on by itself.
            knows_job=None if queue is None else queue.has,
            submit_job=None if queue is None else self._queue_again,
            shelf=None if queue is None else ReportShelf(store),
        )
        if config.doctor.every_s is not None:
            self.executor.periodic.add(
                "doctor",
                self.doctor.look_in_passing,
                interval_s=config.doctor.every_s,
                first_in_s=config.doctor.first_in_s,
                in_thread=True,
            )
        self._publish_readings()
        for driver in backend.compute.values():
            driver.on_lifecycle(self._on_lifecycle)
        backend.networks.on_link_lost(self.nics.note_link_lost)

    @cached_property
    def reachability(self) -> ReachabilityService:
        """Who reaches whom. Made when somebody asks: start-up is short."""
        from iaas.services.reachability import ReachabilityService

        return ReachabilityService(self.store, self.backend)

    def _add_job(
        self,
        tx: Tx,
        *,
        action: str,
        instance: Instance | None = None,
        resource: ResourceRef | None = None,
        project_id: str = "",
        request_id: str | None = None,
        input: dict[str, Any] | None = None,
    ) -> Job:
        """Write a job into the open transaction; the executor takes it up once that is committed.

        It is an instance's, or (``resource``, with the ``project_id`` of who asked for it) another resource's.
        """
        if instance is not None:
            return self._add_jobs(tx, action=action, resources=[instance], request_id=request_id, input=input)[0]
        if resource is None:
            raise TypeError(f"a job {action} is for an instance or another resource")
        workflow = WORKFLOWS[action]
        job = jobs.queued(
            tx,
            job_id=self.ids.new(id_prefixes.JOB),
            project_id=project_id,
            action=action,
            resource=resource,
            input=input or {},
            steps=len(workflow.steps),
            first_step=workflow.steps[0].name,
            request_id=request_id,
        )
        jobs.add_all(tx, [job])
        if self._queue is not None:
            self._queue.put(tx, job.id, host_id=None)
        else:
            tx.on_commit(lambda: self.executor.submit(job.id))
        return job

    def _add_jobs(
        self,
        tx: Tx,
        *,
        action: str,
        resources: Sequence[Instance],
        request_id: str | None = None,
        input: dict[str, Any] | None = None,
    ) -> list[Job]:
        """As :meth:`_add_job`, one job for each instance."""
        workflow = WORKFLOWS[action]
        new = [
            jobs.queued(
                tx,
                job_id=self.ids.new(id_prefixes.JOB),
                project_id=instance.project_id,
                action=action,
                resource=ResourceRef("instance", instance.id),
                input=input or {},
                steps=len(workflow.steps),
                first_step=workflow.steps[0].name,
                request_id=request_id,
            )
            for instance in resources
        ]
        jobs.add_all(tx, new)
        if self._queue is not None:
            for job, instance in zip(new, resources, strict=True):
                self._queue.put(tx, job.id, host_id=instance.host_id)
            return new
        # Only a new instance is known here as its row is; other actions have changed theirs meanwhile.
        known = resources if action == "instance.create" else [None] * len(new)
        tx.on_commit(lambda: self.executor.submit_new(list(zip(new, known, strict=True))))
        return new

    def _queue_again(self, job_id: str) -> None:
        """Hand an unfinished job that no queue has any more to the workers."""

        def work(tx: Tx) -> None:
            job = jobs.get(tx.connection, job_id)
            if self._queue is None or job is None or job.is_finished:
                return
            instance = instances.get(tx.connection, job.resource.id, with_deleted=True)
            self._queue.put_again(tx, job_id, host_id=None if instance is None else instance.host_id)

        self.store.write(work)

    def _publish_readings(self) -> None:
        readings = CloudReadings(
            backend_name=self.backend.name,
            store=self.store,
            clock=self.clock,
            executor=self.executor,
            wait_slots=self.wait_slots,
            findings=self.doctor.counts,
        )
        self.metrics.read_from(readings.read)
        self.metrics.read_from(StoreReadings(self.store).read)

    # -- life ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take up unfinished jobs, bring rows and backend together, and begin to work.

        Raises:
            Unavailable: another process works on this database.
        """
        self._claim.acquire()
        if self.backend.blocking:
            rebuild_networks(self.store, self.backend, at_rest_only=False)  # after a host restart they are gone
            self._follow_machines()
        recovered = self.executor.recover()
        if recovered:
            log.info("jobs_recovered", count=recovered)
        self.executor.start()

    def start_in_fleet(self, *, works: bool) -> None:
        """Begin as one process of a fleet: a server, which hears of what workers do, or a worker that is fed."""
        from iaas.jobs.fleet import FleetNews
        from iaas.jobs.fleet_turns import FleetTurns

        if works:
            self.executor.periodic.turns = FleetTurns(self.store)
            self.executor.start()
        else:
            self._news = FleetNews(self.store, self.signals, self.event_feed)
            self._news.start()

    def close(self) -> None:
        """Stop working and let go of everything; machines are left as they are."""
        self.end_waits()
        if self._news is not None:
            self._news.stop()
        self.executor.stop()
        self.backend.close()
        self._claim.release()
        self.store.close()

    def end_waits(self) -> None:
        """Answer all long polls and end all event streams: the server is about to stop. Later ones wait no more."""
        self.signals.close()
        self.event_feed.close()

    def renew_credentials(self) -> FirstCredentials:
        """Make new operator's credentials (the file that held them is gone)."""
        return renew_credentials(self.store, self.ids, self._operators_vault)

    def _follow_machines(self) -> None:
        """Machines may have changed while nobody looked: rows at rest follow them."""
        with self.store.read() as connection:
            resting = [instance for instance in instances.all_alive(connection) if instance.transition is None]
        for instance in resting:
            try:
                state = self.backend.compute[MachineKind(instance.kind)].inspect_machine(instance.id)
            except DriverError as error:
                log.error("machine_not_seen", instance_id=instance.id, reason=str(error))
                continue
            power = state.power if state is not None else PowerState.STOPPED
            if power is PowerState.RUNNING and instance.status == InstanceStatus.STOPPED:
                self._note_running(instance)
            else:
                self.instances.note_power(instance.id, power)

    def _note_running(self, instance: Instance) -> None:
        def work(tx: Tx) -> None:
            expect = {"status": InstanceStatus.STOPPED, "transition": None, "deleted_at": None}
            if instances.change(tx, instance.id, expect=expect, status=InstanceStatus.RUNNING):
                events.add(
                    tx,
                    type="instance.started",
                    project_id=instance.project_id,
                    resource=ResourceRef("instance", instance.id),
                    generation=instance.generation + 1,
                    data={"reason": "host"},
                )

        self.store.write(work)

    def _on_lifecycle(self, machine_id: str, power: PowerState) -> None:
        if self.instances.note_power(machine_id, power):
            log.info("machine_changed_by_itself", instance_id=machine_id, power=power)
