"""What a wish for an instance means: names looked up, fields checked against each other; nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection

from iaas.config import Policy
from iaas.db.repositories import catalog
from iaas.drivers.interface import MachineKind
from iaas.kernel.errors import FieldError, InvalidInput, PermissionDenied
from iaas.kernel.labels import check_labels
from iaas.resources.catalog import DEFAULT_MAX_NICS, Flavor, Image
from iaas.resources.common import Principal
from iaas.resources.instances import NewInstance
from iaas.resources.networks import NewNIC
from iaas.services.naming import check_hostname
from iaas.services.nic_wishes import NICPlan, plan_nic
from iaas.services.placement import Placement, resolve

DEFAULT_ROOT_DISK_GIB = 1

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    flavor: str | None
    vcpus: int
    memory_mib: int
    root_disk_gib: int
    max_nics: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One wish with everything looked up."""

    wish: NewInstance
    field_prefix: str
    image: Image
    shape: Shape
    zone: str
    nics: tuple[NICPlan, ...]
    key_pairs: list[str]
    authorized_keys: list[str]
    placement: Placement | None


class Planner:
    """Plans the wishes of one request; what several of them name is looked up once."""

    def __init__(self, connection: Connection, principal: Principal, policy: Policy) -> None:
        self._connection = connection
        self._principal = principal
        self._policy = policy
        self._known: dict[tuple[str, str | None], Any] = {}
        self._taken_nics: set[str] = set()

    def plan(self, wish: NewInstance, prefix: str) -> Plan:
        """Return the plan.

        Args:
            prefix: stands before the fields of errors.

        Raises:
            InvalidInput, PermissionDenied: what is wrong with the wish.
        """
        connection, principal = self._connection, self._principal
        image = self._once("image", wish.image, lambda: catalog.get_image(connection, wish.image))
        if image is None:
            raise _invalid(prefix + "image", "not_found", f"there is no image {wish.image}")
        if wish.kind not in image.kinds:
            raise _invalid(
                prefix + "image", "no_artefact", f"image {image.name} has no artefact for the kind {wish.kind}"
            )
        placement = resolve(connection, principal, wish.placement, prefix)
        host = placement.host if placement is not None else None
        zones = self._once("zones", None, lambda: catalog.zone_names(connection))
        nics_zone = self._zone_of_nics(wish, prefix) if wish.zone is None and host is None else None
        zone = wish.zone or (host.zone if host is not None else nics_zone or next(iter(zones), ""))
        if zone not in zones:
            raise _invalid(prefix + "zone", "not_found", f"there is no zone {zone}; there are {', '.join(zones)}")
        if host is not None and host.zone != zone:
            raise _invalid(
                prefix + "placement.host", "other_zone", f"host {host.name} is in {host.zone}, not in {zone}"
            )
        if wish.kind != MachineKind.CONTAINER:
            for name in ("nesting", "privileged"):
                if getattr(wish, name):
                    raise _invalid(prefix + name, "not_for_kind", "is for container machines only")
        if wish.privileged and not self._policy.allow_privileged:
            raise PermissionDenied("privileged: this cloud's policy allows no privileged container machines")
        if wish.nesting and not self._policy.allow_nesting:
            raise PermissionDenied("nesting: this cloud's policy allows no nesting")
        if wish.user_data is not None and len(wish.user_data) > self._policy.max_user_data_bytes:
            raise _invalid(prefix + "user_data", "too_long", f"at most {self._policy.max_user_data_bytes} bytes")
        if wish.hostname is not None:
            check_hostname(wish.hostname, prefix + "hostname")
        try:
            check_labels(wish.labels or {})
        except InvalidInput as error:
            fields = [FieldError(prefix + part.field, part.code, part.message) for part in error.errors]
            raise InvalidInput(prefix + error.message, errors=fields) from error
        names: list[str] = []
        keys: list[str] = []
        for index, wanted in enumerate(wish.key_pairs):
            key_pair = catalog.get_key_pair(connection, wanted, project_id=principal.project_id)
            if key_pair is None:
                raise _invalid(f"{prefix}key_pairs.{index}", "not_found", f"there is no key pair {wanted}")
            if key_pair.name not in names:
                names.append(key_pair.name)
                keys.append(key_pair.public_key)
        shape = shape_of(
            lambda name: self._once("flavor", name, lambda: catalog.get_flavor(connection, name)),
            flavor=wish.flavor,
            vcpus=wish.vcpus,
            memory_mib=wish.memory_mib,
            root_disk_gib=wish.root_disk_gib,
            prefix=prefix,
        )
        return Plan(
            wish=wish,
            field_prefix=prefix,
            image=image,
            shape=shape,
            zone=zone,
            nics=self._nics(wish, zone, shape.max_nics, prefix),
            key_pairs=names,
            authorized_keys=keys,
            placement=placement,
        )

    def _zone_of_nics(self, wish: NewInstance, prefix: str) -> str | None:
        """Return where the first NIC must be: then the instance is meant to be there too."""
        for index, nic in enumerate(wish.nics or ()):
            if nic.nic is not None or nic.subnet is not None:
                where = f"{prefix}nics.{index}."
                plan = plan_nic(self._connection, self._principal.project_id, nic, zone=None, prefix=where)
                return None if plan.subnet.is_shared and nic.nic is None else plan.subnet.zone
        return None

    def _nics(self, wish: NewInstance, zone: str, max_nics: int, prefix: str) -> tuple[NICPlan, ...]:
        if wish.nics is None:  # as a rule: then all of a batch share one plan
            return (self._once("basic", zone, lambda: self._plan_nic(NewNIC(), zone, "")),)
        if len(wish.nics) > max_nics:
            raise _invalid(prefix + "nics", "too_many", f"this flavor allows {max_nics} NICs")
        plans = tuple(self._plan_nic(one, zone, f"{prefix}nics.{index}.") for index, one in enumerate(wish.nics))
        for index, plan in enumerate(plans):
            existing = plan.existing
            if existing is None:
                continue
            if existing.id in self._taken_nics:
                raise _invalid(f"{prefix}nics.{index}.nic", "twice", f"NIC {existing.id} is wished for twice")
            self._taken_nics.add(existing.id)
        return plans

    def _plan_nic(self, wish: NewNIC, zone: str, prefix: str) -> NICPlan:
        return plan_nic(self._connection, self._principal.project_id, wish, zone=zone, prefix=prefix)

    def _once(self, what: str, name: str | None, look_up: Callable[[], T]) -> T:
        key = (what, name)
        if key not in self._known:
            self._known[key] = look_up()
        found: T = self._known[key]
        return found


def shape_of(
    flavor_named: Callable[[str], Flavor | None],
    *,
    flavor: str | None,
    vcpus: int | None,
    memory_mib: int | None,
    root_disk_gib: int | None,
    prefix: str = "",
) -> Shape:
    """Return the shape asked for: a flavor, or vCPUs and memory, never both.

    Raises:
        InvalidInput: both, neither, or an unknown flavor.
    """
    if flavor is not None:
        for name, value in (("vcpus", vcpus), ("memory_mib", memory_mib)):
            if value is not None:
                raise _invalid(prefix + name, "excluded", "is given by the flavor; give one or the other")
        found = flavor_named(flavor)
        if found is None:
            raise _invalid(prefix + "flavor", "not_found", f"there is no flavor {flavor}")
        return Shape(
            flavor=found.name,
            vcpus=found.vcpus,
            memory_mib=found.memory_mib,
            root_disk_gib=root_disk_gib or found.root_disk_gib,
            max_nics=found.max_nics,
        )
    for name, value in (("vcpus", vcpus), ("memory_mib", memory_mib)):
        if value is None:
            raise _invalid(prefix + name, "required", "is needed when no flavor is given")
    assert vcpus is not None  # noqa: S101 - looked at just above; for the type checker
    assert memory_mib is not None  # noqa: S101 - as above
    return Shape(
        flavor=None,
        vcpus=vcpus,
        memory_mib=memory_mib,
        root_disk_gib=root_disk_gib or DEFAULT_ROOT_DISK_GIB,
        max_nics=DEFAULT_MAX_NICS,
    )


def _invalid(field: str, code: str, message: str) -> InvalidInput:
    return InvalidInput(f"{field}: {message}", errors=[FieldError(field, code, message)])
