"""The doctor: does the database say what the backends have? For the operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from iaas.client.resource import TIME, decode, read_reference, reads, reads_all
from iaas.kernel.errors import ResourceRef

if TYPE_CHECKING:
    from iaas.client.client import Client

_TIMEOUT_S = 300.0  # it asks every daemon, and waits for each


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One drift: ``leaked_machine``, ``wrong_state`` ... ``repair`` says what a repair does, None where a person has
    to decide; ``reason`` why the repair just tried did not succeed."""

    drift: str = ""
    resource: ResourceRef | None = field(default=None, metadata=reads(read_reference))
    project_id: str | None = None
    message: str = ""
    repair: str | None = None
    reason: str | None = None


def _finding(value: Any) -> Finding:
    return decode(Finding, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorReport:
    """One look. ``unchecked`` says what did not answer, and why: nothing is known about that. ``omitted`` says how many
    findings of each drift there are beyond those shown."""

    looked_at: datetime | None = field(default=None, metadata=TIME)
    duration_s: float = 0.0
    checked: Mapping[str, int] = field(default_factory=dict, hash=False)
    unchecked: Mapping[str, str] = field(default_factory=dict, hash=False)
    findings: tuple[Finding, ...] = field(default=(), metadata=reads_all(_finding))
    omitted: Mapping[str, int] = field(default_factory=dict, hash=False)
    repaired: tuple[Finding, ...] = field(default=(), metadata=reads_all(_finding))
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_clean(self) -> bool:
        """Everything answered, and nothing is wrong."""
        return not self.findings and not self.unchecked


class Doctor:
    """``client.doctor``."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def last(self) -> DoctorReport:
        """Return the last report; ``looked_at`` is None before the first look."""
        return self._read("GET", "/v1/doctor")

    def check(self) -> DoctorReport:
        """Look now; changes nothing."""
        return self._read("POST", "/v1/doctor/actions/check")

    def repair(self) -> DoctorReport:
        """Repair what is wrong at two looks, where that is safe; ``findings`` is what is left."""
        return self._read("POST", "/v1/doctor/actions/repair")

    def _read(self, method: str, path: str) -> DoctorReport:
        answer = self._client.request(method, path, timeout_s=_TIMEOUT_S)
        return decode(DoctorReport, answer, raw=answer)
