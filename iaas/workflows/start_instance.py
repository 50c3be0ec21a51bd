"""Start a stopped instance."""

from __future__ import annotations

from iaas.workflows import machine_steps as steps
from iaas.workflows.framework import CancelUntil, RowStep, Step, Workflow
from iaas.workflows.rows import find_status, mark_running, rest_as_found

WORKFLOW = Workflow(
    action="instance.start",
    steps=(
        # Ports outlive a stop, but not a rebooted host: make sure of them.
        Step("ensure_network", do=steps.ensure_network),
        Step("start_machine", do=steps.start_machine, undo=steps.force_stop),
        Step("await_running", do=steps.await_running),
        RowStep("mark_running", do=mark_running("instance.started")),
    ),
    on_failed=rest_as_found,
    cancel=CancelUntil(step="await_running", reason="the instance runs"),
    look=find_status,
)
