"""Events of what changes at once, without a job: written with the change."""

from __future__ import annotations

from iaas.db.repositories import events
from iaas.db.store import Tx
from iaas.kernel.errors import ResourceRef
from iaas.resources.common import Principal


def tell(
    tx: Tx, principal: Principal, resource_type: str, what: str, resource_id: str, *, project_id: str | None = None
) -> None:
    """Write ``<resource_type>.<what>`` for the change made in this transaction.

    It goes to ``project_id``; where the resource is everybody's (flavors, hosts), to the project of who changed it.
    """
    events.add(
        tx,
        type=f"{resource_type}.{what}",
        project_id=project_id or principal.project_id,
        resource=ResourceRef(resource_type, resource_id),
        request_id=principal.request_id,
    )
