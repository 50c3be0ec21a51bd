"""A NIC's row in a transaction: as it is now, what is told of it, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from iaas.db.repositories import events, nics
from iaas.db.store import Tx
from iaas.kernel.errors import InTransition, NotFound, PreconditionFailed, ResourceRef
from iaas.resources.common import Principal
from iaas.resources.jobs import Job
from iaas.resources.networks import NIC

AddJob = Callable[..., Job]


def add_nic_job(add_job: AddJob, tx: Tx, principal: Principal, action: str, nic: NIC, job_input: dict[str, Any]) -> Job:
    """Write a job of the NIC, for who asked for it."""
    return add_job(
        tx,
        action=action,
        resource=ref(nic),
        project_id=principal.project_id,
        request_id=principal.request_id,
        input=job_input,
    )


def tell_of_nic(
    tx: Tx,
    principal: Principal,
    nic: NIC,
    event: str,
    *,
    job_id: str | None = None,
    data: dict[str, Any] | None = None,
) -> None:
    """Write an event of the NIC as it is given."""
    events.add(
        tx,
        type=event,
        project_id=principal.project_id,
        resource=ref(nic),
        generation=nic.generation,
        job_id=job_id,
        request_id=principal.request_id,
        data=data or {},
    )


def check_generation(nic: NIC, wanted: int | None) -> None:
    if wanted is not None and wanted != nic.generation:
        raise PreconditionFailed(
            f"NIC {nic.id} is at generation {nic.generation}, If-Match names {wanted}", resource=ref(nic)
        )


def now(tx: Tx, nic: NIC) -> NIC:
    changed = nics.get(tx.connection, nic.id)
    assert changed is not None  # noqa: S101 - changed before, in this transaction
    return changed


def in_transition(nic: NIC) -> InTransition:
    return InTransition(f"NIC {nic.id} is {nic.transition}: wait for that job before another action", resource=ref(nic))


def ref(nic: NIC) -> ResourceRef:
    return ResourceRef("nic", nic.id)


def not_found(wanted: str) -> NotFound:
    return NotFound(f"there is no NIC {wanted}", resource=ResourceRef("nic", wanted))
