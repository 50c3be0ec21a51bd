"""Events of what changes at once, without a job: written with the change."""

from __future__ import annotations

from typing import Any

from iaas.db.repositories import events
from iaas.db.store import Tx
from iaas.kernel.errors import ResourceRef
from iaas.resources.catalog import Host
from iaas.resources.common import Principal
from iaas.resources.jobs import OPERATORS


def tell(
    tx: Tx,
    principal: Principal,
    resource_type: str,
    what: str,
    resource_id: str,
    *,
    project_id: str | None = None,
    data: dict[str, Any] | None = None,
) -> None:
    """Write ``<resource_type>.<what>`` for the change made in this transaction.

    It goes to ``project_id``; where the resource is everybody's (flavors, images), to the project of who changed it.
    """
    events.add(
        tx,
        type=f"{resource_type}.{what}",
        project_id=principal.project_id if project_id is None else project_id,
        resource=ResourceRef(resource_type, resource_id),
        request_id=principal.request_id,
        data=data,
    )


def tell_of_host(tx: Tx, host: Host, status: str, *, reason: str, request_id: str | None = None) -> None:
    """Write ``host.<status>`` for a host that had another status before: ``data`` holds both, and the reason.

    All admins see it, in whatever project they act.
    """
    events.add(
        tx,
        type=f"host.{status}",
        project_id=OPERATORS,
        resource=ResourceRef("host", host.id),
        request_id=request_id,
        data={"name": host.name, "was": str(host.status), "status": str(status), "reason": reason},
    )
