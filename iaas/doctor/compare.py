"""Compares the rows with what the backends have, and says what differs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from iaas.doctor.findings import Drift, Finding
from iaas.doctor.survey import Page, Survey
from iaas.drivers.interface import MachineKind, MachineState, PowerState
from iaas.kernel.errors import ResourceRef
from iaas.kernel.ids import VPC
from iaas.resources.instances import InstanceStatus

_RUNNING = frozenset({PowerState.RUNNING, PowerState.STARTING, PowerState.STOPPING})
_AT_REST = frozenset({InstanceStatus.RUNNING, InstanceStatus.STOPPED, InstanceStatus.SUSPENDED})


def compare(survey: Survey) -> Iterator[Finding]:
    """Yield every drift between the two sides, as it is found."""
    known = survey.known_networks()
    present = survey.networks()
    wanted = set(survey.wanted_networks())
    for page in survey.pages(present or ()):
        for row in page.instances.values():
            yield from _instance(page, row) if row.deleted_at is None else _retained(page, row)
        yield from _lost_ports(page)
        wanted.update(each for nic in page.nics for each in (nic.subnet_id, nic.vpc_id) if each is not None)
    for kind in MachineKind:
        for state in survey.stray_machines(kind):
            yield _stray_machine(kind, state)
    if present is not None:
        known_now, present_now = survey.known_networks(), survey.networks()
        wanted &= known_now | survey.wanted_networks()  # what goes meanwhile is not lost
        lost = wanted & known_now - present_now if present_now is not None else ()
        yield from _networks(present - known - known_now, lost)
        subnets = [each for each in present & known_now if _type_of(each) == "subnet"]
        for subnet_id in sorted(subnets):  # the ports of another go with it
            for nic_id in survey.stray_ports(subnet_id):
                yield _stray_port(subnet_id, nic_id)
    for image_id in survey.stray_images():
        yield Finding(
            drift=Drift.LEAKED_IMAGE,
            resource=ResourceRef("image", image_id),
            message="the host holds this image, the database does not know it",
            repair="the image is removed from the host",
        )


def _instance(page: Page, row: Any) -> Iterator[Finding]:
    kind = MachineKind(row.kind)
    state = page.machines[kind].get(row.id) if kind in page.machines else None
    if row.host_id is not None:
        yield from _placement(page, row, state)
    if row.status not in _AT_REST or kind not in page.machines:
        return
    if state is None:
        yield _of(
            row,
            Drift.LOST_MACHINE,
            f"it is {row.status}, but its host has no machine for it",
            "the instance becomes failed, to be deleted by its owner",
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
    if row.disk_generation != state.generation:
        yield _of(
            row,
            Drift.WRONG_GENERATION,
            f"its root disk is of rebuild {row.disk_generation}, the machine's of {state.generation}; rebuild it",
            None,
        )


def _retained(page: Page, row: Any) -> Iterator[Finding]:
    kind = MachineKind(row.kind)
    if kind not in page.machines:
        return
    state = page.machines[kind].get(row.id)
    if state is None and row.is_recoverable:  # one whose purge failed half-way is not, and may be without
        yield _of(
            row,
            Drift.LOST_RETAINED,
            "it is deleted and could be recovered, but its host has no machine for it",
            "it cannot be recovered any more and is purged",
        )
    if state is not None and state.power in (PowerState.STARTING, PowerState.RUNNING, PowerState.SUSPENDED):
        yield _of(row, Drift.RETAINED_RUNS, "it is deleted, but its machine runs", "its machine's power is cut")


def _placement(page: Page, row: Any, state: MachineState | None) -> Iterator[Finding]:
    zone = page.host_zones.get(row.host_id)
    if state is not None and state.host_id not in (None, row.host_id):
        follows = page.host_zones.get(state.host_id) == row.zone
        yield _of(
            row,
            Drift.WRONG_PLACEMENT,
            f"it is on host {row.host_id}, its machine on {state.host_id}",
            "the instance's host becomes that of its machine" if follows else None,
            found=state.host_id or "",
        )
    elif zone is None:
        yield _of(row, Drift.WRONG_PLACEMENT, f"it is on host {row.host_id}, which does not exist", None)
    elif zone != row.zone:
        yield _of(row, Drift.WRONG_PLACEMENT, f"it is in {row.zone}, its host {row.host_id} in {zone}", None)


def _stray_machine(kind: MachineKind, state: MachineState) -> Finding:
    return Finding(
        drift=Drift.LEAKED_MACHINE,
        resource=ResourceRef("instance", state.machine_id),
        message=f"there is a {kind} of this name ({state.power}), but no instance for it",
        repair="the machine is removed",
        scope=kind,
    )


def _type_of(network_id: str) -> str:
    return "vpc" if network_id.startswith(f"{VPC}-") else "subnet"


def _networks(leaked: Collection[str], lost: Collection[str]) -> Iterator[Finding]:
    for subnet_id in sorted(leaked):
        yield Finding(
            drift=Drift.LEAKED_NETWORK,
            resource=ResourceRef(_type_of(subnet_id), subnet_id),
            message="the host has this network, the database has not",
            repair="the network is removed from the host",
        )
    for subnet_id in sorted(lost):
        yield Finding(
            drift=Drift.LOST_NETWORK,
            resource=ResourceRef(_type_of(subnet_id), subnet_id),
            message="running instances are in it, but the host does not have it",
            repair="the network is made again",
        )


def _stray_port(subnet_id: str, nic_id: str) -> Finding:
    return Finding(
        drift=Drift.LEAKED_PORT,
        resource=ResourceRef("nic", nic_id),
        message=f"network {subnet_id} has a port for this NIC, but there is no such NIC in it",
        repair="the port is removed",
        scope=subnet_id,
    )


def _lost_ports(page: Page) -> Iterator[Finding]:
    for nic in page.nics:
        if nic.subnet_id in page.ports and nic.id not in page.ports[nic.subnet_id]:
            yield Finding(
                drift=Drift.LOST_PORT,
                resource=ResourceRef("nic", nic.id),
                message=f"instance {nic.instance_id} runs, but network {nic.subnet_id} has no port for this NIC",
                repair="the port is made again",
                project_id=page.instances[nic.instance_id].project_id,
                scope=nic.subnet_id,
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
