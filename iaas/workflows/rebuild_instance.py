"""Rebuild: a fresh root disk from an image; id, NICs, MACs and addresses stay."""

from __future__ import annotations

from typing import Any

from iaas.db.store import Tx
from iaas.drivers.interface import MachineKind
from iaas.kernel.errors import Failure
from iaas.workflows import machine_steps as steps
from iaas.workflows.framework import CancelUntil, Context, Done, NotYet, Outcome, RowStep, Step, Workflow
from iaas.workflows.rows import find_status, mark_running, rest_after_boot


def ensure_image(ctx: Context) -> Outcome:
    return steps.ensure_image_of(ctx, ctx.input["image_id"])


def cut_power(ctx: Context) -> Outcome:
    """The old disk is lost anyway, so nobody is asked."""
    driver = ctx.backend.compute[MachineKind(ctx.instance.kind)]
    state = driver.stop_machine(ctx.instance.id, force=True)
    return Done() if state.power in ("stopped", "crashed") else NotYet(state.next_change_at)


def replace_disk(ctx: Context) -> Outcome:
    spec = steps.machine_spec(
        ctx.instance, image_id=ctx.input["image_id"], disk_generation=ctx.input["disk_generation"]
    )
    steps.driver_of(ctx).ensure_machine(spec)
    return Done()


def _mark(tx: Tx, ctx: Context) -> None:
    mark_running(
        "instance.rebuilt",
        image_id=ctx.input["image_id"],
        image=ctx.input["image"],
        disk_generation=ctx.input["disk_generation"],
    )(tx, ctx)


def rest_with_found_disk(tx: Tx, ctx: Context, failure: Failure) -> None:
    """The disk is the old one or the new one; the row tells which.

    When nobody could look, the number of the new one counts as used: the next rebuild must not take it for its own.
    """
    wanted = ctx.input["disk_generation"]
    found = ctx.memo.get("found_generation", wanted)
    changes: dict[str, Any] = {"disk_generation": found}
    if ctx.memo.get("found_generation") == wanted:
        changes |= {"image_id": ctx.input["image_id"], "image": ctx.input["image"]}
    rest_after_boot(tx, ctx, failure, **changes)


WORKFLOW = Workflow(
    action="instance.rebuild",
    steps=(
        Step("ensure_image", do=ensure_image),
        Step("cut_power", do=cut_power),
        # No undo: a disk is replaced in one step, so after a failure it is the old one or the new one.
        Step("replace_disk", do=replace_disk),
        Step("start_machine", do=steps.start_machine),
        Step("await_running", do=steps.await_running),
        RowStep("mark_rebuilt", do=_mark),
    ),
    on_failed=rest_with_found_disk,
    cancel=CancelUntil(step="ensure_image", reason="the power is cut and the old disk is being replaced"),
    look=find_status,
)
