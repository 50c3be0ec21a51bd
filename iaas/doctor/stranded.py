"""Lets VPCs, subnets and NICs rest truthfully whose transition no job would end."""

from __future__ import annotations

from typing import Any

from iaas.db.repositories import events, instances, nics, subnets, vpcs
from iaas.db.store import Store, Tx
from iaas.doctor.findings import Finding
from iaas.drivers.interface import Backend, MachineKind
from iaas.kernel.errors import Failure
from iaas.resources.networks import NetworkTransition, NICStatus
from iaas.workflows.network_rows import failed, release_subnet, release_vpc


def end_network_transition(tx: Tx, finding: Finding) -> bool:
    """Let a VPC or subnet rest: failed if it was made or deleted, else as declared. False if it changed since."""
    expect = {"generation": finding.generation, "transition": finding.found}
    changes: dict[str, Any] = {"transition": None}
    vpc = vpcs.get(tx.connection, finding.resource.id) if finding.resource.type == "vpc" else None
    subnet = subnets.get(tx.connection, finding.resource.id) if finding.resource.type == "subnet" else None
    found = vpc or subnet
    if found is None or found.generation != finding.generation or found.transition != finding.found:
        return False
    if finding.found != NetworkTransition.UPDATING:
        changes = failed(Failure("job_lost", f"it was {finding.found} when its job got lost; delete it"))
        if vpc is not None:
            release_vpc(tx, vpc)
        if subnet is not None:
            release_subnet(tx, subnet)
            if finding.found == NetworkTransition.CREATING:  # as a create that failed: no place in a VPC
                changes |= dict.fromkeys(("vpc_id", "cidr", "gateway", "dhcp_first", "dhcp_last"))
    change = vpcs.change if vpc is not None else subnets.change
    change(tx, finding.resource.id, expect=expect, **changes)
    _tell(tx, finding, f"{finding.resource.type}.recovered", found.generation + 1)
    return True


def end_nic_transition(store: Store, backend: Backend, finding: Finding) -> bool:
    """Let a NIC rest in its instance if the machine has it, else as available. False if it changed since.

    Raises:
        DriverError: the backend did not answer.
    """
    with store.read() as connection:
        nic = nics.get(connection, finding.resource.id)
        instance = instances.get(connection, nic.instance_id) if nic is not None and nic.instance_id else None
    if nic is None or nic.generation != finding.generation:
        return False
    driver = backend.compute[MachineKind(instance.kind)] if instance is not None else None
    state = driver.inspect_machine(instance.id) if driver is not None and instance is not None else None
    if state is not None and nic.id in state.nic_ids:
        changes: dict[str, Any] = {"status": NICStatus.IN_USE}
    else:
        changes = {"status": NICStatus.AVAILABLE, "instance_id": None, "device_index": None}

    def work(tx: Tx) -> bool:
        expect = {"generation": finding.generation, "transition": finding.found}
        if not nics.change(tx, finding.resource.id, expect=expect, transition=None, **changes):
            return False
        _tell(tx, finding, "nic.recovered", nic.generation + 1)
        return True

    return store.write(work)


def _tell(tx: Tx, finding: Finding, event: str, generation: int) -> None:
    events.add(
        tx,
        type=event,
        project_id=finding.project_id or "",
        resource=finding.resource,
        generation=generation,
        data={"reason": "doctor", "drift": finding.drift.value},
    )
