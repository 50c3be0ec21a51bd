"""Accepting new instances: every wish is checked, then all are written in one transaction or none is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from iaas.config import Policy
from iaas.db.repositories import catalog, events, instances, networks, shared
from iaas.db.store import Store, Tx
from iaas.drivers.interface import MachineKind
from iaas.kernel import ids as id_prefixes
from iaas.kernel.errors import (
    AlreadyExists,
    FieldError,
    InvalidInput,
    OutOfCapacity,
    PermissionDenied,
    ResourceRef,
    Unavailable,
)
from iaas.kernel.ids import IdSource
from iaas.kernel.labels import check_labels
from iaas.resources.catalog import Image, Network
from iaas.resources.common import Principal
from iaas.resources.instances import Instance, InstanceStatus, NewInstance
from iaas.resources.jobs import Job
from iaas.services.health import BackendHealth
from iaas.services.naming import check_hostname, hostname_from
from iaas.services.placement import Amounts, Placement, place, resolve
from iaas.services.quotas import Quotas
from iaas.transitions import INSTANCE_MOVES

_MAC_TRIES = 16
DEFAULT_ROOT_DISK_GIB = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    flavor: str | None
    vcpus: int
    memory_mib: int
    root_disk_gib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """One wish with everything looked up."""

    wish: NewInstance
    field_prefix: str
    image: Image
    shape: Shape
    zone: str
    network: Network
    key_pairs: list[str]
    authorized_keys: list[str]
    placement: Placement | None


class InstanceCreation:
    def __init__(
        self,
        store: Store,
        ids: IdSource,
        health: BackendHealth,
        policy: Policy,
        add_job: Callable[..., Job],
        *,
        quotas: Quotas,
    ) -> None:
        self._store = store
        self._ids = ids
        self._health = health
        self._policy = policy
        self._add_job = add_job
        self._quotas = quotas

    def create(
        self, principal: Principal, wishes: Sequence[NewInstance], *, is_batch: bool
    ) -> list[tuple[Instance, Job]]:
        """Accept all wishes, or none; in a batch the fields in errors begin with ``instances.<index>.``.

        Raises:
            InvalidInput, AlreadyExists, OutOfCapacity, QuotaExceeded, PermissionDenied: nothing was written.
            Unavailable: the backend for one of the kinds is down.
        """
        with self._store.read() as connection:
            plans = [
                self._plan(connection, principal, wish, f"instances.{index}." if is_batch else "")
                for index, wish in enumerate(wishes)
            ]
        for kind in sorted({MachineKind(plan.wish.kind) for plan in plans}):
            self._health.check(kind)
        if plans:
            self._health.check_networks()
        shapes = [plan.shape for plan in plans]
        amounts = {
            "instances": len(plans),
            "vcpus": sum(shape.vcpus for shape in shapes),
            "memory_mib": sum(shape.memory_mib for shape in shapes),
            "root_disk_gib": sum(shape.root_disk_gib for shape in shapes),
        }

        def work(tx: Tx) -> list[tuple[Instance, Job]]:
            self._quotas.take(tx, principal.project_id, amounts)
            return [self._accept(tx, principal, plan) for plan in plans]

        return self._store.write(work)

    def _plan(self, connection: Connection, principal: Principal, wish: NewInstance, prefix: str) -> _Plan:
        image = catalog.get_image(connection, wish.image)
        if image is None:
            raise _invalid(prefix + "image", "not_found", f"there is no image {wish.image}")
        if wish.kind not in image.kinds:
            raise _invalid(
                prefix + "image", "no_artefact", f"image {image.name} has no artefact for the kind {wish.kind}"
            )
        placement = resolve(connection, principal, wish.placement, prefix)
        host = placement.host if placement is not None else None
        zones = catalog.zone_names(connection)
        zone = wish.zone or (host.zone if host is not None else zones[0] if zones else "")
        network = networks.of_zone(connection, zone)
        if zone not in zones or network is None:
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
        return _Plan(
            wish=wish,
            field_prefix=prefix,
            image=image,
            shape=shape_of(
                connection,
                flavor=wish.flavor,
                vcpus=wish.vcpus,
                memory_mib=wish.memory_mib,
                root_disk_gib=wish.root_disk_gib,
                prefix=prefix,
            ),
            zone=zone,
            network=network,
            key_pairs=names,
            authorized_keys=keys,
            placement=placement,
        )

    def _accept(self, tx: Tx, principal: Principal, plan: _Plan) -> tuple[Instance, Job]:
        wish, shape = plan.wish, plan.shape
        instance_id = self._ids.new(id_prefixes.INSTANCE)
        name = wish.name or instance_id
        scope = f"name:instance:{principal.project_id}"
        if not shared.claim(tx, scope=scope, value=name, resource_id=instance_id):
            raise AlreadyExists(
                f"there is an instance named {name} in this project already",
                errors=[FieldError(plan.field_prefix + "name", "taken", "is taken in this project")],
            )
        labels = wish.labels or {}
        host_id = place(
            tx,
            project_id=principal.project_id,
            zone=plan.zone,
            amounts=Amounts(vcpus=shape.vcpus, memory_mib=shape.memory_mib, disk_gib=shape.root_disk_gib),
            placement=plan.placement,
            labels=labels,
            prefix=plan.field_prefix,
        )
        instances.add(
            tx,
            id=instance_id,
            project_id=principal.project_id,
            name=name,
            labels=labels,
            zone=plan.zone,
            kind=wish.kind,
            status=InstanceStatus.PENDING,
            transition=INSTANCE_MOVES["create"].transition,
            failure_code=None,
            failure_message=None,
            generation=1,
            hostname=wish.hostname or hostname_from(wish.name or instance_id, instance_id),
            flavor=shape.flavor,
            vcpus=shape.vcpus,
            memory_mib=shape.memory_mib,
            root_disk_gib=shape.root_disk_gib,
            image_id=plan.image.id,
            image=plan.image.name,
            key_pairs=plan.key_pairs,
            authorized_keys=plan.authorized_keys,
            user_data=wish.user_data,
            nesting=wish.nesting,
            privileged=wish.privileged,
            host_id=host_id,
            disk_generation=0,
            guest_ready_at=None,
            deleted_at=None,
            placement=plan.placement.shown if plan.placement is not None else None,
            retained=None,
            purge_at=None,
            purged_at=None,
        )
        shared.add_labels(tx, instance_id, labels)
        self._add_nic(tx, principal, plan, instance_id)
        instance = instances.get(tx.connection, instance_id)
        assert instance is not None  # noqa: S101 - written above, in this transaction
        job = self._add_job(tx, action="instance.create", instance=instance, request_id=principal.request_id)
        events.add(
            tx,
            type="instance.creating",
            project_id=principal.project_id,
            resource=ResourceRef("instance", instance_id),
            generation=1,
            job_id=job.id,
            request_id=principal.request_id,
        )
        return instance, job

    def _add_nic(self, tx: Tx, principal: Principal, plan: _Plan, instance_id: str) -> None:
        """The one NIC of this first network model, on the zone's default network."""
        nic_id = self._ids.new(id_prefixes.NIC)
        address = networks.claim_address(tx, plan.network, nic_id=nic_id)
        if address is None:
            raise OutOfCapacity(f"the network of {plan.zone} has no free address")
        for _ in range(_MAC_TRIES):
            mac = self._ids.mac()
            if shared.claim(tx, scope=f"mac:{plan.zone}", value=mac, resource_id=nic_id):
                break
        else:
            raise Unavailable("no free MAC address was found")
        instances.add_nic(
            tx,
            id=nic_id,
            project_id=principal.project_id,
            network_id=plan.network.id,
            instance_id=instance_id,
            device_index=0,
            mac=mac,
            address=address,
        )


def shape_of(
    connection: Connection,
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
        found = catalog.get_flavor(connection, flavor)
        if found is None:
            raise _invalid(prefix + "flavor", "not_found", f"there is no flavor {flavor}")
        return Shape(
            flavor=found.name,
            vcpus=found.vcpus,
            memory_mib=found.memory_mib,
            root_disk_gib=root_disk_gib or found.root_disk_gib,
        )
    for name, value in (("vcpus", vcpus), ("memory_mib", memory_mib)):
        if value is None:
            raise _invalid(prefix + name, "required", "is needed when no flavor is given")
    assert vcpus is not None  # noqa: S101 - looked at just above; for the type checker
    assert memory_mib is not None  # noqa: S101 - as above
    return Shape(flavor=None, vcpus=vcpus, memory_mib=memory_mib, root_disk_gib=root_disk_gib or DEFAULT_ROOT_DISK_GIB)


def _invalid(field: str, code: str, message: str) -> InvalidInput:
    return InvalidInput(f"{field}: {message}", errors=[FieldError(field, code, message)])
