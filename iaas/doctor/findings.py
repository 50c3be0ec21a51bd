"""What the doctor can find, and how it says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from iaas.kernel.errors import ResourceRef

MOST_FINDINGS = 10_000  # of one look


class Drift(StrEnum):
    """The ways in which database and backend, or one table and another, can differ."""

    LOST_MACHINE = "lost_machine"  # an instance at rest, and no machine for it
    LOST_RETAINED = "lost_retained"  # a deleted instance that could be recovered, and no machine for it any more
    RETAINED_RUNS = "retained_runs"  # a deleted instance whose machine runs
    LEAKED_MACHINE = "leaked_machine"  # a machine of this deployment that no instance stands for
    WRONG_STATE = "wrong_state"  # runs, and rests as stopped; or the other way round
    WRONG_SHAPE = "wrong_shape"  # other vCPUs or memory than the instance's
    WRONG_GENERATION = "wrong_generation"  # the root disk of another rebuild
    WRONG_PLACEMENT = "wrong_placement"  # on a host that there is not, or of another zone, or where its machine is not
    LOST_NETWORK = "lost_network"
    LEAKED_NETWORK = "leaked_network"
    LOST_PORT = "lost_port"
    LEAKED_PORT = "leaked_port"
    LEAKED_IMAGE = "leaked_image"
    HOST_COUNTERS = "host_counters"  # reserved capacity is not the sum over the host's instances
    QUOTA_COUNTERS = "quota_counters"  # what a project counts as used is not what it has
    LABEL_INDEX = "label_index"  # the table that selectors use says other than the resource
    ORPHAN_CLAIM = "orphan_claim"  # a name, address or MAC held by nothing that exists
    LOST_CLAIM = "lost_claim"  # a name, address or MAC in use that nothing holds
    STUCK_JOB = "stuck_job"  # unfinished, and not on the executor's agenda
    STRANDED_TRANSITION = "stranded_transition"  # in transition, and no job that would end it


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One drift. ``repair`` says what a repair does; None where a person has to decide."""

    drift: Drift
    resource: ResourceRef
    message: str
    repair: str | None = None
    project_id: str | None = None
    scope: str = ""  # what else tells this finding from others: the network of a port, the kind of a machine
    generation: int | None = None  # of the row, which must still be the same when it is repaired
    found: str = ""  # what was seen, for the repair

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """The same drift of the same thing at two looks has the same key."""
        return (self.drift, self.resource.type, self.resource.id, self.scope, self.found)


class Findings:
    """What one look has found: every drift is counted, the first ``MOST_FINDINGS`` are kept.

    A backend that lost everything is one fact, not a million; a repair mends those that are kept, the next one more.
    """

    def __init__(self, found: Iterable[Finding] = ()) -> None:
        self.kept: list[Finding] = []
        self.omitted: Counter[str] = Counter()
        for finding in found:
            self.add(finding)

    def add(self, finding: Finding) -> None:
        if len(self.kept) < MOST_FINDINGS:
            self.kept.append(finding)
        else:
            self.omitted[finding.drift.value] += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One look. ``unchecked`` says what could not be asked, and why: nothing is known about that."""

    looked_at: datetime  # cloud clock
    duration_s: float
    checked: Mapping[str, int]
    findings: tuple[Finding, ...]
    omitted: Mapping[str, int] = field(default_factory=dict)  # findings beyond those, by drift
    unchecked: Mapping[str, str] = field(default_factory=dict)
    repaired: tuple[Finding, ...] = ()
    failed: Mapping[tuple[str, str, str, str, str], str] = field(default_factory=dict)  # repairs, by key, and why

    @property
    def counts(self) -> Mapping[str, int]:
        """How many there are of each drift; every kind is there, most with 0."""
        counted = Counter(str(finding.drift) for finding in self.findings)
        return {drift.value: counted[drift.value] + self.omitted.get(drift.value, 0) for drift in Drift}
