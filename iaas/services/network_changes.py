"""What the services of VPCs, of subnets and of what hangs on them do alike: find, check, refuse, claim, tell.

Whoever changes what hangs on a VPC (subnets, routes, records) changes or locks its row first, so that all of them
come one after the other, and what one has looked at is still true when it writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection

from iaas.db.models import SubnetRow, VPCRow
from iaas.db.repositories import events, shared, subnets, vpcs
from iaas.db.store import Tx
from iaas.kernel.errors import (
    AlreadyExists,
    FieldError,
    InTransition,
    InvalidState,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    ResourceRef,
)
from iaas.kernel.ids import ID_PATTERN
from iaas.resources.common import Principal
from iaas.resources.networks import VPC, NetworkStatus, Subnet
from iaas.services.cidrs import invalid
from iaas.services.revisions import Revisions
from iaas.transitions import MOVES
from iaas.workflows.network_specs import subnet_configuration, vpc_configuration

VPC_REVISIONS = Revisions("vpc", VPCRow.__table__, vpc_configuration)
SUBNET_REVISIONS = Revisions("subnet", SubnetRow.__table__, subnet_configuration)

AT_REST = {"status": NetworkStatus.ACTIVE, "transition": None}
_WORDS = {"vpc": "VPC", "subnet": "subnet", "address_reservation": "address reservation"}


def ref(found: VPC | Subnet) -> ResourceRef:
    return ResourceRef("vpc" if isinstance(found, VPC) else "subnet", found.id)


# -- finding ----------------------------------------------------------------------------------------------------


def find_vpc(connection: Connection, principal: Principal, id_or_name: str) -> VPC:
    """Return a VPC of the project; hidden ones are nobody's.

    Raises:
        NotFound: there is none.
    """
    found = None
    if ID_PATTERN.match(id_or_name):
        found = vpcs.get(connection, id_or_name, project_id=principal.project_id)
    if found is None:
        found = vpcs.find_by_name(connection, id_or_name, project_id=principal.project_id)
    if found is None:
        raise not_found("vpc", id_or_name)
    return found


def vpc_in_body(connection: Connection, principal: Principal, id_or_name: str, field: str = "vpc") -> VPC:
    """Return the VPC that a field names; raises InvalidInput when there is none."""
    try:
        return find_vpc(connection, principal, id_or_name)
    except NotFound as error:
        raise invalid(field, "not_found", f"there is no VPC {id_or_name}") from error


def not_found(resource_type: str, id_or_name: str) -> NotFound:
    return NotFound(
        f"there is no {_WORDS[resource_type]} {id_or_name}", resource=ResourceRef(resource_type, id_or_name)
    )


def again_vpc(tx: Tx, vpc_id: str) -> VPC:
    """Return the VPC as it is in this transaction; raises NotFound when it is gone meanwhile."""
    found = vpcs.get(tx.connection, vpc_id)
    if found is None:
        raise not_found("vpc", vpc_id)
    return found


def again_subnet(tx: Tx, subnet_id: str) -> Subnet:
    """Return the subnet as it is in this transaction; raises NotFound when it is gone meanwhile."""
    found = subnets.get(tx.connection, subnet_id)
    if found is None:
        raise not_found("subnet", subnet_id)
    return found


# -- may this happen now? ---------------------------------------------------------------------------------------


def check_generation(found: VPC | Subnet, wanted: int | None) -> None:
    """Return when the resource is at the generation that If-Match named (None: it named none).

    Raises:
        PreconditionFailed: it is at another.
    """
    if wanted is not None and wanted != found.generation:
        message = f"{_named(found)} is at generation {found.generation}, If-Match names {wanted}"
        raise PreconditionFailed(message, resource=ref(found))


def refuse_shared(subnet: Subnet) -> None:
    """Return when the subnet is the project's own.

    Raises:
        PermissionDenied: it is one that all projects share.
    """
    if subnet.is_shared:
        raise PermissionDenied(f"subnet {subnet.id} is shared by all projects: nobody changes it", resource=ref(subnet))


def refusal(found: VPC | Subnet, action: str) -> InTransition | InvalidState:
    """Return why ``action`` cannot begin in the state that the resource is in."""
    if found.transition is not None:
        message = f"{_named(found)} is {found.transition}: wait for that job before another action"
        return InTransition(message, resource=ref(found))
    move = MOVES[ref(found).type].get(action)
    allowed = sorted(move.sources) if move is not None else [NetworkStatus.ACTIVE.value]
    message = f"{_named(found)} is {found.status}; {action} is allowed when it is {', '.join(allowed)}"
    return InvalidState(message, resource=ref(found))


@contextmanager
def changed_vpc(tx: Tx, vpc_id: str, action: str = "update", **changes: Any) -> Iterator[VPC]:
    """Begin a new revision of an active VPC, applied when the block ends; gives the VPC as it was before.

    Raises:
        NotFound, InTransition, InvalidState: the VPC is not active and at rest.
    """
    vpcs.lock(tx, vpc_id)
    before = again_vpc(tx, vpc_id)
    if not vpcs.change(tx, vpc_id, expect=AT_REST, **changes):
        raise refusal(again_vpc(tx, vpc_id), action)
    with VPC_REVISIONS.change(tx, vpc_id):
        yield before


@contextmanager
def changed_subnet(tx: Tx, subnet_id: str, action: str = "update", **changes: Any) -> Iterator[Subnet]:
    """As :func:`changed_vpc`, of an active subnet."""
    subnets.lock(tx, subnet_id)
    before = again_subnet(tx, subnet_id)
    if not subnets.change(tx, subnet_id, expect=AT_REST, **changes):
        raise refusal(again_subnet(tx, subnet_id), action)
    with SUBNET_REVISIONS.change(tx, subnet_id):
        yield before


# -- names and events -------------------------------------------------------------------------------------------


def claim_name(tx: Tx, resource_type: str, project_id: str, resource_id: str, name: str) -> None:
    """Claim a name in the project, or raise AlreadyExists."""
    if not shared.claim(tx, scope=_name_scope(resource_type, project_id), value=name, resource_id=resource_id):
        message = f"the name {name} is taken by another {_WORDS[resource_type]} of this project"
        raise AlreadyExists(message, errors=[FieldError("name", "taken", "is taken in this project")])


def rename(tx: Tx, resource_type: str, project_id: str, resource_id: str, name: str) -> None:
    """Claim another name in place of the present one, or raise AlreadyExists."""
    shared.release(tx, scope=_name_scope(resource_type, project_id), resource_id=resource_id)
    claim_name(tx, resource_type, project_id, resource_id, name)


def emit(
    tx: Tx,
    principal: Principal,
    found: VPC | Subnet,
    event: str,
    *,
    job_id: str | None = None,
    data: dict[str, Any] | None = None,
) -> None:
    """Tell ``<type>.<event>`` of a VPC or subnet that was changed in this transaction, as it is now."""
    events.add(
        tx,
        type=f"{ref(found).type}.{event}",
        project_id=principal.project_id,
        resource=ref(found),
        generation=found.generation,
        job_id=job_id,
        request_id=principal.request_id,
        data=data,
    )


def _name_scope(resource_type: str, project_id: str) -> str:
    return f"name:{resource_type}:{project_id}"


def _named(found: VPC | Subnet) -> str:
    return f"{_WORDS[ref(found).type]} {found.id}"
