"""The doctor of one cloud: looks, tells what is new, repairs what persisted over two looks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import structlog

from iaas.config import DoctorPolicy
from iaas.db.repositories import events, instances, jobs
from iaas.db.store import Store, Tx
from iaas.doctor.books import check_books
from iaas.doctor.compare import compare
from iaas.doctor.data_plane import rebuild_networks
from iaas.doctor.findings import Drift, Finding, Findings, Report
from iaas.doctor.repair import NoLongerTrueError, Repairs
from iaas.doctor.shelf import ReportShelf
from iaas.doctor.survey import PAGE, Survey
from iaas.drivers.interface import Backend, DriverError
from iaas.jobs.executor import Executor
from iaas.kernel.clock import Clock
from iaas.kernel.errors import InTransition, ResourceRef
from iaas.resources.jobs import OPERATORS

log = structlog.get_logger(__name__)

_MOST_EVENTS = 100  # of one look: a backend that lost everything is one fact, not ten thousand


class Doctor:
    """Compares the database with the backends, and one table with another.

    Everything here may take as long as the drivers do; one look runs at a time.

    Args:
        on_repair: told the drift of each repair.
        knows_job: whether somebody works on an unfinished job; the executor of this process when absent.
        submit_job: lets somebody work on one; the executor of this process when absent.
        shelf: where the last report is when several processes have doctors; with this one when absent.
        page: how many rows, machines or ports are held at a time.
    """

    def __init__(
        self,
        *,
        store: Store,
        backend: Backend,
        clock: Clock,
        executor: Executor,
        policy: DoctorPolicy,
        on_repair: Callable[[str], None],
        knows_job: Callable[[str], bool] | None = None,
        submit_job: Callable[[str], None] | None = None,
        shelf: ReportShelf | None = None,
        page: int = PAGE,
    ) -> None:
        self._store = store
        self._backend = backend
        self._clock = clock
        self._executor = executor
        self._policy = policy
        self._on_repair = on_repair
        self._knows_job = knows_job or executor.knows
        self._repairs = Repairs(store, backend, submit_job or executor.submit)
        self._shelf = shelf
        self._page = page
        self._lock = threading.Lock()
        self._last: Report | None = None
        self._looked_at_s = float("-inf")  # monotonic

    @property
    def last(self) -> Report | None:
        """The last report, None before the first look."""
        return self._last if self._shelf is None else self._shelf.last()

    def counts(self) -> Mapping[str, int]:
        """Return how many of each drift the last look found; empty before the first."""
        last = self.last
        return {} if last is None else last.counts

    def check(self) -> Report:
        """Look now and return what is wrong.

        Raises:
            InTransition: another look is under way.
        """
        with self._alone():
            return self._tell(self._look())

    def repair(self) -> Report:
        """Look twice, repair what is there at both looks and can be repaired, and return what is left after that.

        Networks are brought to what the rows say in any case: that they are there does not show what is in them.

        Raises:
            InTransition: another look is under way.
        """
        with self._alone():
            earlier = {finding.key for finding in self._look().findings}
            wanted = [each for each in self._look().findings if each.repair is not None and each.key in earlier]
            repaired, failed = self._mend(wanted)
            rebuild_networks(self._store, self._backend, at_rest_only=True, with_ports=self._backend.blocking)
            after = self._look()
            return self._tell(replace(after, repaired=tuple(repaired), failed=failed))

    def look_in_passing(self) -> None:
        """The periodic look: not when another was a moment ago (a cloud clock may run fast), nor in huge clouds."""
        if time.monotonic() - self._looked_at_s < self._policy.least_pause_s:
            return
        if not self._backend.blocking and self._count() > self._policy.most_simulated:
            log.info("doctor_skipped", reason="too many simulated instances for a look in passing")
            return
        try:
            report = self.repair() if self._policy.repairs else self.check()
        except InTransition:
            return
        log.info("doctor_looked", findings=len(report.findings), seconds=round(report.duration_s, 3))

    # -- one look -----------------------------------------------------------------------------------------

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._lock.acquire(blocking=False):
            raise InTransition("the doctor is looking already: wait for that look to end")
        try:
            yield
        finally:
            self._looked_at_s = time.monotonic()
            self._lock.release()

    def _look(self) -> Report:
        began_s = time.monotonic()
        looked_at = self._clock.now()
        survey = Survey(self._store, self._backend, page=self._page)
        found, stuck = Findings(compare(survey)), Findings()
        for finding in check_books(self._store, is_known_job=self._knows_job, page=self._page):
            (stuck if finding.drift is Drift.STUCK_JOB else found).add(finding)
        for finding in stuck.kept:
            if self._is_stuck(finding):
                found.add(finding)
        return Report(
            looked_at=looked_at,
            duration_s=time.monotonic() - began_s,
            checked=survey.checked,
            findings=tuple(sorted(found.kept, key=lambda finding: finding.key)),
            omitted=found.omitted + stuck.omitted,
            unchecked=survey.unchecked,
        )

    def _is_stuck(self, finding: Finding) -> bool:
        """Look again: a job that ended just now was unfinished in the picture, and is unknown since."""
        if self._knows_job(finding.resource.id):
            return False
        with self._store.read() as connection:
            job = jobs.get(connection, finding.resource.id)
        return job is not None and not job.is_finished and not self._knows_job(job.id)

    def _count(self) -> int:
        with self._store.read() as connection:
            return instances.count_alive(connection)

    def _mend(self, wanted: list[Finding]) -> tuple[list[Finding], dict[tuple[str, str, str, str, str], str]]:
        repaired: list[Finding] = []
        failed: dict[tuple[str, str, str, str, str], str] = {}
        for finding in wanted:
            try:
                self._repairs.mend(finding)
            except NoLongerTrueError:
                continue
            except DriverError as error:
                failed[finding.key] = str(error)
                log.error("drift_not_repaired", **_described(finding), reason=str(error))
                continue
            repaired.append(finding)
            self._on_repair(finding.drift.value)
            log.warning("drift_repaired", **_described(finding), repair=finding.repair)
        return repaired, failed

    # -- telling ------------------------------------------------------------------------------------------

    def _tell(self, report: Report) -> Report:
        """Keep the report, and say what the one before did not have: in the log, and as events for the operator."""
        if self._shelf is None:
            fresh = _new_in(report, self._last)
            self._last = report
            if fresh or report.repaired:
                self._store.write(lambda tx: _write_events(tx, fresh, report.repaired))
        else:
            fresh = self._store.write(lambda tx: self._keep(tx, report))
        for finding in fresh:
            log.warning("drift_found", **_described(finding), message=finding.message)
        for what, reason in report.unchecked.items():
            log.warning("doctor_could_not_ask", what=what, reason=reason)
        return report

    def _keep(self, tx: Tx, report: Report) -> list[Finding]:
        assert self._shelf is not None  # noqa: S101 - only called with one; for the type checker
        fresh = _new_in(report, self._shelf.replace(tx, report))
        _write_events(tx, fresh, report.repaired)
        return fresh


def _new_in(report: Report, earlier: Report | None) -> list[Finding]:
    known = {finding.key for finding in earlier.findings} if earlier is not None else set()
    return [finding for finding in report.findings if finding.key not in known]


def _described(finding: Finding) -> dict[str, str]:
    return {
        "drift": finding.drift.value,
        "resource_type": finding.resource.type,
        "resource_id": finding.resource.id,
    }


def _write_events(tx: Tx, fresh: list[Finding], repaired: tuple[Finding, ...]) -> None:
    """For admins: what the doctor sees is not a tenant's business, its repairs have their own events."""
    for word, findings in (("drift_found", fresh), ("drift_repaired", repaired)):
        for finding in findings[:_MOST_EVENTS]:
            events.add(
                tx,
                type=f"doctor.{word}",
                project_id=OPERATORS,
                resource=ResourceRef("doctor", "doctor"),
                data={
                    "drift": finding.drift.value,
                    "resource": {"type": finding.resource.type, "id": finding.resource.id},
                    "message": finding.message,
                },
            )
        if len(findings) > _MOST_EVENTS:
            data = {"more": len(findings) - _MOST_EVENTS}
            events.add(
                tx,
                type=f"doctor.{word}",
                project_id=OPERATORS,
                resource=ResourceRef("doctor", "doctor"),
                data=data,
            )
