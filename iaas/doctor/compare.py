"""Compares the rows with what the backends have. Pure: a survey in, findings out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from iaas.doctor.findings import Drift, Finding
from iaas.doctor.survey import Survey
from iaas.drivers.interface import MachineKind, MachineState, PowerState
from iaas.kernel.errors import ResourceRef
from iaas.resources.instances import InstanceStatus

_RUNNING = frozenset({PowerState.RUNNING, PowerState.STARTING, PowerState.STOPPING})
_AT_REST = frozenset({InstanceStatus.RUNNING, InstanceStatus.STOPPED, InstanceStatus.SUSPENDED})


def compare(survey: Survey) -> Iterator[Finding]:
    """Yield every drift between the two sides."""
    for row in survey.rows.instances.values():
        if row.id not in survey.moving and row.deleted_at is None:
            yield from _instance(survey, row)
    for kind, machines in survey.machines.items():
        for state in machines.values():
            yield from _machine(survey, kind, state)
    yield from _networks(survey)
    yield from _ports(survey)
    yield from _images(survey)


def _instance(survey: Survey, row: Any) -> Iterator[Finding]:
    if row.host_id is not None:
        yield from _placement(survey, row)
    kind = MachineKind(row.kind)
    if row.status not in _AT_REST or kind not in survey.machines:
        return
    state = survey.machines[kind].get(row.id)
    if state is None:
        yield _of(
            row,
            Drift.LOST_MACHINE,
            f"it is {row.status}, but its host has no machine for it",
            "the instance becomes failed, to be deleted or rebuilt anew by its owner",
        )
        return
    if (row.status == InstanceStatus.RUNNING) != (state.power in _RUNNING):
        really = InstanceStatus.RUNNING if state.power in _RUNNING else InstanceStatus.STOPPED
        yield _of(
            row,
            Drift.WRONG_STATE,
            f"it is {row.status}, but its machine is {state.power}",
            f"the instance becomes {really}",
            found=really,
        )
    if (row.vcpus, row.memory_mib) != (state.vcpus, state.memory_mib):
        is_stopped = state.power in (PowerState.STOPPED, PowerState.CRASHED)
        yield _of(
            row,
            Drift.WRONG_SHAPE,
            f"it has {row.vcpus} vCPUs and {row.memory_mib} MiB, its machine {state.vcpus} and {state.memory_mib} MiB",
            "the machine gets the instance's shape" if is_stopped else None,
        )
    if state.host_id not in (None, row.host_id):
        yield _of(
            row,
            Drift.WRONG_PLACEMENT,
            f"it is on host {row.host_id}, its machine on {state.host_id}",
            None,
            found=state.host_id or "",
        )
    if row.disk_generation != state.generation:
        yield _of(
            row,
            Drift.WRONG_GENERATION,
            f"its root disk is of rebuild {row.disk_generation}, the machine's of {state.generation}; rebuild it",
            None,
        )


def _placement(survey: Survey, row: Any) -> Iterator[Finding]:
    zone = survey.rows.host_zones.get(row.host_id)
    if zone is None:
        yield _of(row, Drift.WRONG_PLACEMENT, f"it is on host {row.host_id}, which does not exist", None)
    elif zone != row.zone:
        yield _of(row, Drift.WRONG_PLACEMENT, f"it is in {row.zone}, its host {row.host_id} in {zone}", None)


def _machine(survey: Survey, kind: MachineKind, state: MachineState) -> Iterator[Finding]:
    row = survey.rows.instances.get(state.machine_id)
    if state.machine_id in survey.moving:
        return
    if row is not None and row.kind == kind and _may_have_a_machine(row):
        return
    yield Finding(
        drift=Drift.LEAKED_MACHINE,
        resource=ResourceRef("instance", state.machine_id),
        message=f"there is a {kind} of this name ({state.power}), but no instance for it",
        repair="the machine is removed",
        scope=kind,
    )


def _may_have_a_machine(row: Any) -> bool:
    """A failed instance that holds a host may have one (its deletion failed), and so may a retained one."""
    return row.deleted_at is not None or row.status != InstanceStatus.FAILED or row.host_id is not None


def _networks(survey: Survey) -> Iterator[Finding]:
    if survey.networks is None:
        return
    for network_id in sorted(survey.networks - survey.rows.networks.keys() - survey.before.networks.keys()):
        yield Finding(
            drift=Drift.LEAKED_NETWORK,
            resource=ResourceRef("network", network_id),
            message="the host has this network, the database has not",
            repair="the network is removed from the host",
        )
    wanted = {
        nic.network_id
        for nic in survey.rows.nics.values()
        if (row := survey.rows.instances.get(nic.instance_id or "")) is not None
        and row.id not in survey.moving
        and row.status == InstanceStatus.RUNNING
    }
    for network_id in sorted((wanted & survey.rows.networks.keys()) - survey.networks):
        yield Finding(
            drift=Drift.LOST_NETWORK,
            resource=ResourceRef("network", network_id),
            message="running instances are in it, but the host does not have it",
            repair="the network is made again",
        )


def _ports(survey: Survey) -> Iterator[Finding]:
    nics, rows = survey.rows.nics, survey.rows.instances
    for network_id, held in survey.ports.items():
        if network_id not in survey.rows.networks:
            continue  # goes with its network
        for nic_id in sorted(held):
            nic = nics.get(nic_id) or survey.before.nics.get(nic_id)
            if nic is not None and (nic.network_id == network_id or nic.instance_id in survey.moving):
                continue
            yield Finding(
                drift=Drift.LEAKED_PORT,
                resource=ResourceRef("nic", nic_id),
                message=f"network {network_id} has a port for this NIC, but there is no such NIC in it",
                repair="the port is removed",
                scope=network_id,
            )
    for nic in nics.values():
        row = rows.get(nic.instance_id or "")
        if row is None or row.id in survey.moving or nic.address is None or nic.network_id not in survey.ports:
            continue
        if row.status == InstanceStatus.RUNNING and nic.id not in survey.ports[nic.network_id]:
            yield Finding(
                drift=Drift.LOST_PORT,
                resource=ResourceRef("nic", nic.id),
                message=f"instance {row.id} runs, but network {nic.network_id} has no port for this NIC",
                repair="the port is made again",
                project_id=row.project_id,
                scope=nic.network_id,
            )


def _images(survey: Survey) -> Iterator[Finding]:
    for image_id in sorted((survey.images or frozenset()) - survey.rows.images - survey.before.images):
        yield Finding(
            drift=Drift.LEAKED_IMAGE,
            resource=ResourceRef("image", image_id),
            message="the host holds this image, the database does not know it",
            repair="the image is removed from the host",
        )


def _of(row: Any, drift: Drift, message: str, repair: str | None, *, found: str = "") -> Finding:
    return Finding(
        drift=drift,
        resource=ResourceRef("instance", row.id),
        message=message,
        repair=repair,
        project_id=row.project_id,
        generation=row.generation,
        found=found,
    )
