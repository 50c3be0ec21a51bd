"""Who may do what. Another project's resources are never found, so only roles are left to check."""

from __future__ import annotations

from iaas.kernel.errors import PermissionDenied
from iaas.resources.common import Principal, Role

_RANK = {Role.READER: 0, Role.MEMBER: 1, Role.ADMIN: 2}


def is_operator(principal: Principal | None) -> bool:
    """Return whether hosts and the like are the principal's business."""
    return principal is not None and principal.role is Role.ADMIN


def require(principal: Principal, role: Role) -> None:
    """Return when the principal has ``role`` or a higher one.

    Raises:
        PermissionDenied: it has not.
    """
    if _RANK[principal.role] < _RANK[role]:
        raise PermissionDenied(f"this needs the role {role}, the credential has {principal.role}")
