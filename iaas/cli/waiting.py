"""Showing what was accepted: at once, or when its job is through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, TypeVar

import typer

from iaas.cli.nouns import Noun
from iaas.cli.output import write_json, write_table
from iaas.cli.progress import describe, progress
from iaas.cli.session import Session
from iaas.client import Action, Change, Resource

R = TypeVar("R", bound=Resource)

WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the job, showing its progress.")]
WaitTimeoutOption = Annotated[
    float, typer.Option("--wait-timeout", metavar="SECONDS", help="Then the exit status is 7; the job goes on.")
]


def finish(
    session: Session,
    noun: Noun[R],
    results: Sequence[Action[R] | Change[R]],
    *,
    wait: bool,
    wait_timeout_s: float,
) -> None:
    """Wait if asked to, then write the resources; with their jobs for programs, as the API does.

    Several are written for programs as ``{"vpcs": [...], "jobs": [...]}``.
    """
    if wait:
        results = [_waited(each, wait_timeout_s) for each in results]
    if not session.is_json:
        write_table(noun.columns, [each.resource for each in results])
        return
    resources: list[Any] = [each.resource.raw for each in results]
    jobs: list[Any] = [each.job.raw for each in results if each.job is not None]
    if len(results) == 1:
        write_json({results[0].resource.key: resources[0], "job": jobs[0]} if jobs else resources[0])
    else:
        write_json({f"{results[0].resource.key}s": resources, "jobs": jobs})


def _waited(result: Action[R] | Change[R], timeout_s: float) -> Action[R] | Change[R]:
    if result.job is None:
        return result
    resource = result.resource
    with progress(resource.name or resource.id) as tell:
        job = result.job.wait(timeout_s=timeout_s, on_progress=lambda job: tell(describe(job)))
        if not (isinstance(result, Action) and result.is_removal):
            resource = resource.refresh()
    return replace(result, job=job, resource=resource)
