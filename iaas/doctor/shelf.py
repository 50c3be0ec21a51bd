"""The last report, where all processes of a fleet find it: the doctor looks in one of them, people ask another."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from iaas.db.models import ReportRow
from iaas.db.postgres import take_lock
from iaas.db.store import Store, Tx
from iaas.doctor.findings import Drift, Finding, Report
from iaas.kernel.errors import ResourceRef

_reports = ReportRow.__table__

_KEY = "doctor"
MOST_FINDINGS = 1000  # that are kept of a report: beyond that one knows enough


class ReportShelf:
    """Keeps the newest report in the database."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def last(self) -> Report | None:
        """Return the newest report of whatever process, None before the first."""
        with self._store.read() as connection:
            return _found(connection)

    def replace(self, tx: Tx, report: Report) -> Report | None:
        """Keep ``report`` and return the one before it. Others who do so wait until the transaction ends."""
        take_lock(tx.connection, "doctor's report")
        earlier = _found(tx.connection)
        tx.connection.execute(delete(ReportRow).where(_reports.c.key == _KEY))
        tx.connection.execute(insert(ReportRow).values(key=_KEY, document=_document(report), written_at=tx.now))
        return earlier


def _found(connection: Connection) -> Report | None:
    document = connection.execute(select(_reports.c.document).where(_reports.c.key == _KEY)).scalar()
    return None if document is None else _report(document)


def _document(report: Report) -> dict[str, Any]:
    omitted = Counter(report.omitted) + Counter(each.drift.value for each in report.findings[MOST_FINDINGS:])
    return {
        "omitted": omitted,
        "looked_at": report.looked_at.isoformat(),
        "duration_s": report.duration_s,
        "checked": dict(report.checked),
        "unchecked": dict(report.unchecked),
        "findings": [asdict(each) for each in report.findings[:MOST_FINDINGS]],
        "repaired": [asdict(each) for each in report.repaired[:MOST_FINDINGS]],
        "failed": [[*key, reason] for key, reason in report.failed.items()][:MOST_FINDINGS],
    }


def _report(document: dict[str, Any]) -> Report:
    failed = {(key[0], key[1], key[2], key[3], key[4]): reason for *key, reason in document["failed"]}
    return Report(
        looked_at=datetime.fromisoformat(document["looked_at"]),
        duration_s=document["duration_s"],
        checked=document["checked"],
        unchecked=document["unchecked"],
        findings=tuple(map(_finding, document["findings"])),
        omitted=document.get("omitted", {}),
        repaired=tuple(map(_finding, document["repaired"])),
        failed=failed,
    )


def _finding(document: dict[str, Any]) -> Finding:
    return Finding(**{**document, "drift": Drift(document["drift"]), "resource": ResourceRef(**document["resource"])})
