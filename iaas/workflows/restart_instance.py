"""Restart: a stop and a start, so that both kinds and both backends do the same."""

from __future__ import annotations

from iaas.workflows import machine_steps as steps
from iaas.workflows.framework import CancelUntil, RowStep, Step, Workflow
from iaas.workflows.rows import find_status, mark_running, rest_after_boot

WORKFLOW = Workflow(
    action="instance.restart",
    steps=(
        Step("ask_guest", do=steps.stop_gracefully),
        Step("start_machine", do=steps.start_machine),
        Step("await_running", do=steps.await_running),
        RowStep("mark_running", do=mark_running("instance.restarted")),
    ),
    on_failed=rest_after_boot,
    cancel=CancelUntil(step="ask_guest", reason="the guest has stopped and is being started again"),
    look=find_status,
)
