"""An accepted action: its job, and the resource it works on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from iaas.client.jobs import DEFAULT_WAIT_S, Job
from iaas.client.resource import Resource, mapping_of

if TYPE_CHECKING:
    from iaas.client.client import Client

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


@dataclass(frozen=True, kw_only=True)  # no slots: as above
class Change(Generic[R]):
    """What the server answered to a change: the ``resource`` as it is now, and the ``job`` by which backends follow.

    ``job`` is None when there is nothing to follow (a name, labels).
    """

    resource: R
    job: Job | None = None

    def wait(self, *, timeout_s: float | None = DEFAULT_WAIT_S, on_progress: Callable[[Job], None] | None = None) -> R:
        """Return the resource when the change is in force; as ``Action.wait``."""
        if self.job is None:
            return self.resource
        self.job.wait(timeout_s=timeout_s, on_progress=on_progress)
        return self.resource.refresh()


def action_from_answer(model: type[R], client: Client, answer: object, *, is_removal: bool = False) -> Action[R]:
    """Return the action of a ``{"instance": {...}, "job": {...}}`` answer."""
    body = mapping_of(answer, model.key)
    return Action(
        job=Job.from_answer(client, body.get("job")),
        resource=model.from_answer(client, body.get(model.key)),
        is_removal=is_removal,
    )


def removal_from_answer(resource: R, answer: object) -> Action[R]:
    """Return the action of a ``{"job": {...}}`` answer to the removal of ``resource``."""
    job = Job.from_answer(resource.client, mapping_of(answer, resource.key).get("job"))
    return Action(job=job, resource=resource, is_removal=True)


def change_from_answer(resource: R, answer: object) -> Change[R]:
    """Return the change of ``resource`` by an answer that is the resource, or holds it with a job."""
    body = mapping_of(answer, resource.key)
    job = body.get("job") if resource.key in body else None
    return Change(
        resource=resource.from_answer(resource.client, body),
        job=None if job is None else Job.from_answer(resource.client, job),
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
