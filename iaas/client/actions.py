"""An accepted action: its job, and the resource it works on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from iaas.client.jobs import DEFAULT_WAIT_S, Job
from iaas.client.resource import Resource, mapping_of

R = TypeVar("R", bound=Resource)


@dataclass(frozen=True, kw_only=True)  # no slots: Python 3.11 cannot make a slotted, frozen Generic[X](...)
class Action(Generic[R]):
    """What the server answered to a verb: ``resource`` as it was then, in transition, and the ``job`` that goes on.

    ``is_removal``: after success there is nothing left to read.
    """

    job: Job
    resource: R
    is_removal: bool = False

    def wait(self, *, timeout_s: float | None = DEFAULT_WAIT_S, on_progress: Callable[[Job], None] | None = None) -> R:
        """Return the resource as it is after success (for a removal: as it was last seen).

        Args:
            timeout_s: by the wall clock; None waits for ever.
            on_progress: called with the job at first and whenever its step or status has changed.

        Raises:
            JobFailed: the action failed; its reason is the message.
            WaitTimeout: the time is over; the action goes on.
        """
        self.job.wait(timeout_s=timeout_s, on_progress=on_progress)
        return self.resource if self.is_removal else self.resource.refresh()


def action_from_answer(model: type[R], of: Resource, answer: object, *, is_removal: bool = False) -> Action[R]:
    """Return the action of a ``{"instance": {...}, "job": {...}}`` answer to a verb of ``of``."""
    body = mapping_of(answer, model.key)
    return Action(
        job=Job.from_answer(of.client, body.get("job")),
        resource=model.from_answer(of.client, body.get(model.key)),
        is_removal=is_removal,
    )


def wait_all(actions: Iterable[Action[R]], *, timeout_s: float | None = DEFAULT_WAIT_S) -> list[R]:
    """Return the resources of all actions, in their order, when all have succeeded. One time limit for all.

    Raises:
        JobFailed: of the first, in their order, that failed; the others go on.
        WaitTimeout: the time is over.
    """
    actions = list(actions)
    if not actions:
        return []
    monotonic = actions[0].job.client.transport.monotonic
    deadline = None if timeout_s is None else monotonic() + timeout_s
    return [each.wait(timeout_s=None if deadline is None else max(0.0, deadline - monotonic())) for each in actions]
