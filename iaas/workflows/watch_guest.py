"""Watch for the guest's first answer after a boot. No transition: ``running`` does not wait for it."""

from __future__ import annotations

from iaas.db.repositories import instances
from iaas.db.store import Tx
from iaas.drivers.interface import PowerState
from iaas.kernel.errors import Failure
from iaas.resources.instances import InstanceStatus
from iaas.workflows import machine_steps as steps
from iaas.workflows.framework import CancelUntil, Context, Done, NotYet, Outcome, RowStep, Step, Workflow
from iaas.workflows.rows import emit


def await_guest(ctx: Context) -> Outcome:
    driver = steps.driver_of(ctx)
    state = driver.inspect_machine(ctx.instance.id)
    if state is None:
        return Done({"ready": False})  # deleted meanwhile: nothing left to watch
    if state.power not in (PowerState.RUNNING, PowerState.STARTING):
        return Done({"ready": False, "stopped": True})
    if driver.is_guest_ready(ctx.instance.id):
        return Done({"ready": True})
    return NotYet(state.next_change_at, message="waiting for the guest to answer")


def mark_ready(tx: Tx, ctx: Context) -> None:
    if ctx.memo.get("stopped"):
        follow_stop(tx, ctx)
    if not ctx.memo.get("ready"):
        return
    expect = {"status": InstanceStatus.RUNNING, "deleted_at": None, "guest_ready_at": None}
    if instances.change(tx, ctx.instance.id, expect=expect, guest_ready_at=tx.now):
        emit(tx, ctx, "instance.guest_ready")


def follow_stop(tx: Tx, ctx: Context) -> None:
    """Let the row follow a guest that went down at once.

    News of a machine are left to the job while its instance is in transition; a guest that powers itself off just
    after that job's last look would stay ``running`` for ever. Only a row that is still the one that this job read.
    """
    expect = {
        "status": InstanceStatus.RUNNING,
        "transition": None,
        "deleted_at": None,
        "generation": ctx.instance.generation,
    }
    if instances.change(tx, ctx.instance.id, expect=expect, status=InstanceStatus.STOPPED, guest_ready_at=None):
        emit(tx, ctx, "instance.stopped", {"reason": "guest"})


def say_nothing(tx: Tx, ctx: Context, failure: Failure) -> None:
    """A guest that never answers is no state of the instance: the job's error tells it."""


WORKFLOW = Workflow(
    action="instance.watch_guest",
    steps=(
        Step("await_guest", do=await_guest),
        RowStep("mark_ready", do=mark_ready),
    ),
    on_failed=say_nothing,
    cancel=CancelUntil(step="await_guest", reason="the guest has answered"),
)
