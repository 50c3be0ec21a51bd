"""Multi-step work as lists of (do, undo). ``WORKFLOWS`` names every action that a job can have."""

from __future__ import annotations

from collections.abc import Mapping

from iaas.workflows import (
    apply_nic,
    apply_subnet,
    apply_vpc,
    attach_nic,
    create_instance,
    create_subnet,
    create_vpc,
    delete_instance,
    delete_subnet,
    delete_vpc,
    detach_nic,
    purge_instance,
    rebuild_instance,
    recover_instance,
    replug_nic,
    resize_instance,
    restart_instance,
    retire_instance,
    start_instance,
    stop_instance,
    watch_guest,
)
from iaas.workflows.framework import Workflow

WORKFLOWS: Mapping[str, Workflow] = {
    workflow.action: workflow
    for workflow in (
        apply_nic.WORKFLOW,
        apply_subnet.WORKFLOW,
        apply_subnet.JOIN,
        apply_subnet.LEAVE,
        apply_vpc.WORKFLOW,
        attach_nic.WORKFLOW,
        create_instance.WORKFLOW,
        create_subnet.WORKFLOW,
        create_vpc.WORKFLOW,
        delete_instance.WORKFLOW,
        delete_subnet.WORKFLOW,
        delete_vpc.WORKFLOW,
        detach_nic.WORKFLOW,
        purge_instance.WORKFLOW,
        rebuild_instance.WORKFLOW,
        recover_instance.WORKFLOW,
        replug_nic.WORKFLOW,
        resize_instance.WORKFLOW,
        restart_instance.WORKFLOW,
        retire_instance.WORKFLOW,
        start_instance.WORKFLOW,
        stop_instance.WORKFLOW,
        watch_guest.WORKFLOW,
    )
}
