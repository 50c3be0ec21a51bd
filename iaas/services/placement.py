"""Where a new instance goes.

Without rules: the host of the zone with the most free memory by share, then vCPUs. Rules (affinity,
anti-affinity, an admin's choice of host) narrow that down, or only order it when they are not strict. They
are looked at once, when the instance is placed; what comes to the hosts later does not move it.

The reservation is a conditional update, so two cannot take the same room. Rules are looked at again while
the host's row is held by that update, so two cannot break a rule together either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from iaas.db.repositories import catalog, hosts, instances
from iaas.db.repositories.hosts import Amounts
from iaas.db.store import Tx
from iaas.kernel.errors import FieldError, InvalidInput, InvalidState, OutOfCapacity, ResourceRef
from iaas.kernel.labels import LabelTerm, fits, parse_selector
from iaas.resources.catalog import Host, HostStatus
from iaas.resources.common import Principal, Role
from iaas.resources.instances import Instance, PlacementRule, PlacementWish
from iaas.services.access import require

MAX_REASONS = 64

# What tenants are told of a reason: the field of their request that it stands against, a code, a sentence. Hosts, and
# what they have free, are the operator's business.
_TOLD: Mapping[str, tuple[str, str, str]] = {
    "no_memory": ("memory_mib", "no_memory", "too little memory is free"),
    "no_vcpus": ("vcpus", "no_vcpus", "too few vCPUs are free"),
    "no_disk": ("root_disk_gib", "no_disk", "too little disk is free"),
    "affinity": ("placement.affinity", "affinity", "none holds what it must be together with"),
    "anti_affinity": ("placement.anti_affinity", "anti_affinity", "there is one that it must be apart from"),
    HostStatus.DRAINING: ("zone", "no_host", "no new instances are taken"),
    HostStatus.DOWN: ("zone", "no_host", "no new instances are taken"),
}

__all__ = ["Amounts", "Placement", "grow", "place", "refuse_when_down", "resolve"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule with names looked up and its selector parsed."""

    instance_ids: tuple[str, ...]
    terms: tuple[LabelTerm, ...]
    strict: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The rules of one new instance. ``shown`` is what its row keeps of them."""

    affinity: Rule | None
    anti_affinity: Rule | None
    host: Host | None
    shown: dict[str, Any]


@dataclass(slots=True)
class _Holders:
    """How many matching instances each host holds, per rule."""

    near: Mapping[str, int] = field(default_factory=dict)
    far: Mapping[str, int] = field(default_factory=dict)


def resolve(connection: Connection, principal: Principal, wish: PlacementWish | None, prefix: str) -> Placement | None:
    """Return the wish with everything looked up; None when there is nothing to obey.

    Raises:
        InvalidInput: names the field below ``<prefix>placement``.
        PermissionDenied: only admins choose a host.
    """
    if wish is None or (wish.affinity is None and wish.anti_affinity is None and wish.host is None):
        return None
    host = None
    shown: dict[str, Any] = {}
    if wish.host is not None:
        require(principal, Role.ADMIN)
        host = catalog.get_host(connection, wish.host)
        if host is None:
            raise _invalid(f"{prefix}placement.host", "not_found", f"there is no host {wish.host}")
        shown["host"] = host.name
    rules: dict[str, Rule | None] = {}
    for name, rule in (("affinity", wish.affinity), ("anti_affinity", wish.anti_affinity)):
        rules[name] = None
        if rule is not None:
            rules[name] = found = _rule(connection, principal, rule, f"{prefix}placement.{name}")
            shown[name] = {
                "instances": list(found.instance_ids),
                "label_selector": rule.label_selector,
                "strict": rule.strict,
            }
    return Placement(affinity=rules["affinity"], anti_affinity=rules["anti_affinity"], host=host, shown=shown)


def _rule(connection: Connection, principal: Principal, rule: PlacementRule, path: str) -> Rule:
    if bool(rule.instances) == (rule.label_selector is not None):
        raise _invalid(path, "invalid", "needs either instances or a label_selector")
    ids: list[str] = []
    for index, wanted in enumerate(rule.instances):
        found = instances.get(connection, wanted, project_id=principal.project_id)
        found = found or instances.find_by_name(connection, wanted, project_id=principal.project_id)
        if found is None:
            raise _invalid(f"{path}.instances.{index}", "not_found", f"there is no instance {wanted}")
        ids.append(found.id)
    terms: list[LabelTerm] = []
    if rule.label_selector is not None:
        try:
            terms = parse_selector(rule.label_selector)
        except InvalidInput as error:
            fields = [FieldError(f"{path}.{part.field}", part.code, part.message) for part in error.errors]
            raise InvalidInput(f"{path}.{error.message}", errors=fields) from error
        if not terms:
            raise _invalid(f"{path}.label_selector", "required", "must not be empty")
    return Rule(instance_ids=tuple(ids), terms=tuple(terms), strict=rule.strict)


def place(
    tx: Tx,
    *,
    project_id: str,
    zone: str,
    amounts: Amounts,
    placement: Placement | None = None,
    labels: Mapping[str, str] | None = None,
    prefix: str = "",
) -> str:
    """Reserve room on a host of the zone and return its id.

    Args:
        labels: those of the new instance: the first of a group that wants to be together may go anywhere.
        prefix: stands before the fields of errors.

    Raises:
        OutOfCapacity: no host takes it; ``operator_errors`` says why, host by host, ``errors`` without hosts.
    """
    if placement is None:
        for host_id in hosts.candidates(tx.connection, zone, amounts):
            if hosts.reserve_new(tx, host_id, amounts):
                return host_id
        if not (left := hosts.in_zone(tx.connection, zone)):
            raise OutOfCapacity(f"no host takes instances in {zone}")
        return _first_that_takes(tx, left, zone, amounts, prefix)
    return _place_by_rules(tx, project_id, zone, amounts, placement, labels or {}, prefix)


def _first_that_takes(tx: Tx, left: list[Host], zone: str, amounts: Amounts, prefix: str) -> str:
    """The quick look found nobody: ask every host (others may have taken what it saw), and tell why not."""
    reasons: list[FieldError] = []
    for host in left:
        found = _lacks(host, amounts, prefix)
        if not found and hosts.reserve_new(tx, host.id, amounts):
            return host.id
        reasons += found or [_reason(host, prefix, "no_memory", "was filled up by others meanwhile")]
    raise _refusal(zone, amounts, reasons, prefix)


def _place_by_rules(
    tx: Tx,
    project_id: str,
    zone: str,
    amounts: Amounts,
    placement: Placement,
    labels: Mapping[str, str],
    prefix: str,
) -> str:
    hosts.lock_zone(tx, zone)
    chosen = placement.host
    known = [host for host in hosts.in_zone(tx.connection, zone) if chosen is None or host.id == chosen.id]
    held = _look(tx, project_id, placement)
    reasons: list[FieldError] = []
    for host in sorted(known, key=lambda host: _rank(host, placement, held)):
        found = _breaks(host, placement, held, labels, prefix) + _lacks(host, amounts, prefix)
        if not found:
            if hosts.reserve_new(tx, host.id, amounts):
                # We hold the host's row now: whoever came to this host meanwhile has committed and is seen.
                found = _breaks(host, placement, _look(tx, project_id, placement), labels, prefix)
                if not found:
                    return host.id
                catalog.reserve(
                    tx, host.id, vcpus=-amounts.vcpus, memory_mib=-amounts.memory_mib, disk_gib=-amounts.disk_gib
                )
            else:
                found = [_reason(host, prefix, "no_memory", "was filled up by others meanwhile")]
        reasons += found
    raise _refusal(zone, amounts, reasons, prefix)


def _look(tx: Tx, project_id: str, placement: Placement) -> _Holders:
    def holders(rule: Rule | None) -> Mapping[str, int]:
        if rule is None:
            return {}
        return hosts.holders(tx.connection, project_id=project_id, instance_ids=rule.instance_ids, terms=rule.terms)

    return _Holders(near=holders(placement.affinity), far=holders(placement.anti_affinity))


def _rank(host: Host, placement: Placement, held: _Holders) -> tuple[float | int | str, ...]:
    """Order by wishes, then by used shares of memory and vCPUs."""
    is_away = placement.affinity is not None and not held.near.get(host.id)
    return (
        int(is_away),
        held.far.get(host.id, 0),
        host.memory_mib_used / max(1, host.memory_mib),
        host.vcpus_used / max(1, host.vcpus),
        host.id,
    )


def _breaks(
    host: Host, placement: Placement, held: _Holders, labels: Mapping[str, str], prefix: str
) -> list[FieldError]:
    """Return the strict rules that the host would break."""
    found: list[FieldError] = []
    far, near = placement.anti_affinity, placement.affinity
    if far is not None and far.strict and held.far.get(host.id):
        found.append(
            _reason(host, prefix, "anti_affinity", f"holds {held.far[host.id]} that the instance must be apart from")
        )
    if near is not None and near.strict and not held.near.get(host.id):
        is_first = not held.near and not near.instance_ids and fits(labels, near.terms)
        if not is_first:
            found.append(_reason(host, prefix, "affinity", "holds none that the instance must be together with"))
    return found


def _lacks(host: Host, amounts: Amounts, prefix: str) -> list[FieldError]:
    """Return what stands against a new machine on the host: its status, or what it has too little of."""
    if host.status != HostStatus.UP:
        word = "takes no new machines" if host.status == HostStatus.DRAINING else "cannot be used"
        return [_reason(host, prefix, host.status, f"is {host.status}: it {word}")]
    return _too_little(host, amounts, prefix)


def _too_little(host: Host, amounts: Amounts, prefix: str) -> list[FieldError]:
    rows = (
        ("no_memory", amounts.memory_mib, host.memory_mib - host.memory_mib_used, "MiB of memory"),
        ("no_vcpus", amounts.vcpus, host.vcpus - host.vcpus_used, "vCPUs"),
        ("no_disk", amounts.disk_gib, host.disk_gib - host.disk_gib_used, "GiB of disk"),
    )
    return [
        _reason(host, prefix, code, f"has {max(0, free)} {unit} free, {wanted} are needed")
        for code, wanted, free, unit in rows
        if wanted > 0 and wanted > free
    ]


def grow(
    tx: Tx, instance: Instance, *, vcpus: int, memory_mib: int, message: str = "has no room for it to grow"
) -> None:
    """Reserve more of what the instance's host has (amounts of growth, at least 0).

    Raises:
        OutOfCapacity: the host has too little; ``errors`` says of what, ``operator_errors`` where.
    """
    host_id = instance.host_id
    if host_id is None or catalog.reserve(tx, host_id, vcpus=vcpus, memory_mib=memory_mib, disk_gib=0):
        return
    host = catalog.get_host(tx.connection, host_id)
    amounts = Amounts(vcpus=vcpus, memory_mib=memory_mib, disk_gib=0)
    reasons = _too_little(host, amounts, "") if host is not None else []
    raise OutOfCapacity(
        f"the instance's host {message}",
        errors=_told(reasons, ""),
        operator_errors=reasons,
        resource=ResourceRef("instance", instance.id),
    )


def refuse_when_down(connection: Connection, instance: Instance) -> None:
    """Return when something can be done on the instance's host.

    Raises:
        InvalidState: (code ``host_down``) an admin said that it is down, or the backend does not report it.
    """
    if instance.host_id is None:
        return
    found = hosts.name_and_status(connection, instance.host_id)
    if found is not None and found[1] == HostStatus.DOWN:
        raise InvalidState(
            f"the host of instance {instance.id} is down: nothing can be done with it until the host is up again",
            code="host_down",
            resource=ResourceRef("instance", instance.id),
        )


def _reason(host: Host, prefix: str, code: str, message: str) -> FieldError:
    return FieldError(f"{prefix}hosts.{host.name}", code, message)


def _told(reasons: list[FieldError], prefix: str) -> list[FieldError]:
    """Return what a tenant may know of the reasons: each once, and no host."""
    told = dict.fromkeys(_TOLD[part.code] for part in reasons)
    return [FieldError(prefix + name, code, message) for name, code, message in told]


def _refusal(zone: str, amounts: Amounts, reasons: list[FieldError], prefix: str) -> OutOfCapacity:
    wanted = f"{amounts.vcpus} vCPUs, {amounts.memory_mib} MiB of memory and {amounts.disk_gib} GiB of disk"
    told = _told(reasons, prefix)
    why = ", ".join(part.message for part in told)
    return OutOfCapacity(
        f"no host in {zone} takes an instance of {wanted}: {why or 'there is none'}",
        errors=told,
        operator_errors=reasons[:MAX_REASONS],
    )


def _invalid(field_name: str, code: str, message: str) -> InvalidInput:
    return InvalidInput(f"{field_name}: {message}", errors=[FieldError(field_name, code, message)])
