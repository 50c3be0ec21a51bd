"""What is read from a cloud when somebody asks for its metrics: capacity, instances, agenda, places, findings."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from sqlalchemy import Connection, func, select

from iaas import __version__
from iaas.db.models import HostRow, InstanceRow, JobRow
from iaas.db.store import Store
from iaas.jobs.executor import Executor
from iaas.jobs.wait_slots import WaitSlots
from iaas.kernel.clock import Clock
from iaas.resources.jobs import JobStatus

CACHE_S = 10.0  # counting a million instances takes a moment; scrapers come every few seconds

_instances = InstanceRow.__table__
_hosts = HostRow.__table__
_jobs = JobRow.__table__


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudReadings:
    """Reads one cloud; ``findings`` gives the number of drifts the doctor found last, by their kind."""

    backend_name: str
    store: Store
    clock: Clock
    executor: Executor
    wait_slots: WaitSlots
    findings: Callable[[], Mapping[str, int]]

    def read(self) -> Iterator[Metric]:
        """Yield everything that can be read without the database."""
        info = InfoMetricFamily("iaas_build", "Version and backend of this server.")
        info.add_metric([], {"version": __version__, "backend": self.backend_name})
        yield info
        yield from self._agenda()
        yield from self._places()
        yield from self._periodic()
        found = GaugeMetricFamily("iaas_doctor_findings", "Drifts found at the doctor's last look.", labels=["drift"])
        for drift, count in self.findings().items():
            found.add_metric([drift], count)
        yield found

    def _agenda(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("iaas_agenda_jobs", "Jobs on the executor's agenda.", self.executor.agenda_size)
        due_at = self.executor.next_due()
        age_s = 0.0 if due_at is None else max(0.0, (self.clock.now() - due_at).total_seconds())
        yield GaugeMetricFamily(
            "iaas_agenda_oldest_due_seconds", "For how long the oldest due job has been waiting, cloud clock.", age_s
        )
        calls = GaugeMetricFamily("iaas_driver_calls", "Driver calls in the pool.", labels=["lane", "state"])
        for lane, (running, waiting) in self.executor.driver_load().items():
            calls.add_metric([lane, "running"], running)
            calls.add_metric([lane, "waiting"], waiting)
        yield calls

    def _places(self) -> Iterator[Metric]:
        used = GaugeMetricFamily("iaas_waits", "Requests that wait: long polls and event streams.", labels=["what"])
        for what, count in self.wait_slots.used.items():
            used.add_metric([what], count)
        yield used
        yield GaugeMetricFamily("iaas_waits_limit", "How many may wait at once.", self.wait_slots.total)

    def _periodic(self) -> Iterator[Metric]:
        runs = CounterMetricFamily("iaas_periodic_runs", "Runs of periodic tasks.", labels=["task"])
        failures = CounterMetricFamily("iaas_periodic_failures", "Failed runs of periodic tasks.", labels=["task"])
        for task in self.executor.periodic.all():
            runs.add_metric([task.name], task.runs)
            failures.add_metric([task.name], task.failures)
        yield runs
        yield failures


class StoreReadings:
    """What has to be asked of the database, at most every :data:`CACHE_S` seconds of the wall clock."""

    def __init__(self, store: Store, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._read_at_s: float | None = None
        self._found: list[Metric] = []

    def read(self) -> Iterable[Metric]:
        with self._lock:  # one counts, the others wait for its result
            now_s = self._monotonic()
            if self._read_at_s is None or now_s - self._read_at_s >= CACHE_S:
                with self._store.read() as connection:
                    self._found = [*_instances_of(connection), *_jobs_of(connection), *_hosts_of(connection)]
                self._read_at_s = now_s
            return self._found


def _instances_of(connection: Connection) -> Iterator[Metric]:
    query = (
        select(_instances.c.kind, _instances.c.status, func.count())
        .where(_instances.c.deleted_at.is_(None))
        .group_by(_instances.c.kind, _instances.c.status)
    )
    counted = GaugeMetricFamily("iaas_instances", "Instances that are not deleted.", labels=["kind", "status"])
    for kind, status, count in connection.execute(query):
        counted.add_metric([kind, status], count)
    yield counted


def _jobs_of(connection: Connection) -> Iterator[Metric]:
    query = (
        select(_jobs.c.action, _jobs.c.status, func.count())
        .where(_jobs.c.status.in_([JobStatus.QUEUED, JobStatus.RUNNING]))
        .group_by(_jobs.c.action, _jobs.c.status)
    )
    counted = GaugeMetricFamily("iaas_jobs_unfinished", "Jobs that have not ended.", labels=["action", "status"])
    for action, status, count in connection.execute(query):
        counted.add_metric([action, status], count)
    yield counted


def _hosts_of(connection: Connection) -> Iterator[Metric]:
    labels = ["host", "zone", "status", "resource"]
    total = GaugeMetricFamily("iaas_host_capacity", "What a host has: vcpus, memory_mib, disk_gib.", labels=labels)
    used = GaugeMetricFamily("iaas_host_used", "What of it is reserved by instances.", labels=labels)
    for row in connection.execute(select(_hosts)):
        for resource in ("vcpus", "memory_mib", "disk_gib"):
            where = [row.name, row.zone, row.status, resource]
            total.add_metric(where, getattr(row, resource))
            used.add_metric(where, getattr(row, f"{resource}_used"))
    yield total
    yield used
