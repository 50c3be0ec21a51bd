"""Counters and histograms, and the text of all metrics.

The hot paths call one method here, which finds its counter in a dict and adds to it: some microseconds for a
whole request. What can be read when somebody asks (capacity, agenda) is not counted but read, see ``readings``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from iaas.jobs.observer import StepOutcome

CONTENT_TYPE = CONTENT_TYPE_LATEST

_REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
_STEP_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1200.0)
_COMMIT_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 1.0)
_GROUP_BUCKETS = (1, 2, 4, 8, 16, 32, 64)


class _Readings(Collector):
    """Metrics that are read at the moment somebody asks."""

    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        return ()  # otherwise registering would read them all once, before there is anything to read

    def collect(self) -> Iterable[Metric]:
        return self._read()


class CloudMetrics:
    """The metrics of one cloud.

    Implements the executor's ``JobObserver`` and the hook of the store.
    """

    def __init__(self) -> None:
        # One more series for each counter, to say when it began: that is the server's start, for nearly all of them.
        # The library has one switch for the whole process.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "iaas_http_requests", "Requests answered.", ("route", "method", "status"), registry=self.registry
        )
        self._request_seconds = Histogram(
            "iaas_http_request_seconds",
            "Wall time until the answer began, by route template; streams are measured to their first byte.",
            ("route", "method"),
            buckets=_REQUEST_BUCKETS,
            registry=self.registry,
        )
        self._jobs = Counter("iaas_jobs_finished", "Jobs that ended.", ("action", "status"), registry=self.registry)
        self._step_seconds = Histogram(
            "iaas_step_seconds",
            "Time of a job's step from its begin to its outcome, waits and retries included, on the cloud clock.",
            ("action", "step", "outcome"),
            buckets=_STEP_BUCKETS,
            registry=self.registry,
        )
        self._retries = Counter(
            "iaas_step_retries",
            "Steps tried again after a failure that may pass.",
            ("action", "step"),
            registry=self.registry,
        )
        self._group_size = Histogram(
            "iaas_store_group_size", "Writes that shared one commit.", buckets=_GROUP_BUCKETS, registry=self.registry
        )
        self._commit_seconds = Histogram(
            "iaas_store_commit_seconds", "Wall time of a commit.", buckets=_COMMIT_BUCKETS, registry=self.registry
        )
        self._repairs = Counter(
            "iaas_doctor_repairs",
            "Drifts between database and backend that were repaired.",
            ("drift",),
            registry=self.registry,
        )
        # ``labels()`` takes a lock and builds a key each time; the dicts here make that one look-up.
        self._request_children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._step_children: dict[tuple[str, str, str], Histogram] = {}

    def read_from(self, read: Callable[[], Iterable[Metric]]) -> None:
        """Let ``read`` give further metrics whenever somebody asks."""
        self.registry.register(_Readings(read))

    def text(self) -> bytes:
        """Return all metrics, to be sent as :data:`CONTENT_TYPE`."""
        return generate_latest(self.registry)

    # -- what the hot paths call --------------------------------------------------------------------------

    def request_answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one request; ``route`` is the template, never the path (that would be endless)."""
        key = (route, method, status)
        children = self._request_children.get(key)
        if children is None:
            children = (
                self._requests.labels(route, method, str(status)),
                self._request_seconds.labels(route, method),
            )
            self._request_children[key] = children
        children[0].inc()
        children[1].observe(seconds)

    def step_ended(self, action: str, step: str, outcome: StepOutcome, seconds: float) -> None:
        key = (action, step, outcome)
        child = self._step_children.get(key)
        if child is None:
            child = self._step_children[key] = self._step_seconds.labels(*key)
        child.observe(seconds)

    def step_retried(self, action: str, step: str) -> None:
        self._retries.labels(action, step).inc()

    def job_ended(self, action: str, status: str) -> None:
        self._jobs.labels(action, status).inc()

    def group_committed(self, size: int, commit_s: float) -> None:
        self._group_size.observe(size)
        self._commit_seconds.observe(commit_s)

    def drift_repaired(self, drift: str) -> None:
        self._repairs.labels(drift).inc()
