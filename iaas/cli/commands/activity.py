"""``iaas job | event``, and ``iaas capabilities | health``."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from iaas.cli.exit_status import ExitStatus
from iaas.cli.nouns import NameArgument, Noun, add_get, add_list, show
from iaas.cli.output import Column, text_of, write_details, write_json, write_table
from iaas.cli.progress import describe, progress
from iaas.cli.session import Session, command
from iaas.client import DoctorReport, Event, Finding, Job
from iaas.client.jobs import DEFAULT_WAIT_S

JOB = Noun[Job](
    word="job",
    collection=lambda client: client.jobs,
    columns=(
        Column("ID", lambda job: job.id),
        Column("ACTION", lambda job: job.action),
        Column("STATUS", lambda job: job.status),
        Column("STEP", lambda job: f"{job.progress.step}/{job.progress.steps}" if job.progress else None),
        Column("RESOURCES", lambda job: [each.id for each in job.resources]),
        Column("CREATED", lambda job: job.created_at),
        Column("ERROR", lambda job: job.error.message if job.error else None),
    ),
    filters=("status", "action", "resource", "sort"),
)
EVENT = Noun[Event](
    word="event",
    collection=lambda client: client.events,
    columns=(
        Column("ID", lambda event: event.id),
        Column("TIME", lambda event: event.created_at),
        Column("TYPE", lambda event: event.type),
        Column("RESOURCE", lambda event: event.resource.id if event.resource else None),
        Column("JOB", lambda event: event.job_id),
    ),
    filters=("after", "resource", "resource_type", "type"),
)


def add_job(app: typer.Typer) -> None:
    """Add the verbs of jobs."""
    add_list(app, JOB)
    add_get(app, JOB)

    @command(app, "wait")
    def wait(
        session: Session,
        name: NameArgument,
        timeout_s: Annotated[float, typer.Option("--wait-timeout", metavar="SECONDS")] = DEFAULT_WAIT_S,
    ) -> None:
        """Wait until a job has ended; the exit status is 8 when it failed, 7 when the time is over."""
        with session.client() as client, progress(name) as tell:
            job = client.jobs.get(name).wait(timeout_s=timeout_s, on_progress=lambda job: tell(describe(job)))
        show(session, job)

    @command(app, "cancel")
    def cancel(session: Session, name: NameArgument) -> None:
        """Call a job off; the exit status is 4 when there is no way back. 'job wait' waits for its end."""
        with session.client() as client:
            job = client.jobs.get(name).cancel()
        show(session, job)


def add_event(app: typer.Typer) -> None:
    """Add the verbs of events."""

    add_list(app, EVENT)

    @command(app, "follow")
    def follow(
        session: Session,
        after: Annotated[str | None, typer.Option(metavar="EVENT", help="Only those after this one (id).")] = None,
        resource: Annotated[str | None, typer.Option(metavar="ID", help="Only those of this resource.")] = None,
        resource_type: Annotated[
            str | None, typer.Option("--resource-type", metavar="TYPE", help="Only those of such resources (instance).")
        ] = None,
        type_prefix: Annotated[
            str | None, typer.Option("--type", metavar="PREFIX", help="Only types that begin so (instance.del).")
        ] = None,
    ) -> None:
        """Show events as they happen, until Ctrl-C; JSON is one object a line."""
        with session.client() as client:
            followed = client.events.follow(
                after=after, resource_id=resource, resource_type=resource_type, type_prefix=type_prefix
            )
            for event in followed:
                cells = [text_of(column.value(event)) for column in EVENT.columns]
                sys.stdout.write((json.dumps(event.raw) if session.is_json else "   ".join(cells)) + "\n")
                sys.stdout.flush()


def add_meta(app: typer.Typer) -> None:
    """Add what a server says of itself."""

    @command(app, "capabilities")
    def capabilities(session: Session) -> None:
        """Show what the server and its backend can do."""
        with session.client() as client:
            answer = client.capabilities().raw
        write_json(answer) if session.is_json else write_details(answer)

    @command(app, "doctor")
    def doctor(
        session: Session,
        repair: Annotated[bool, typer.Option("--repair", help="Repair what is safe to repair.")] = False,
    ) -> None:
        """Compare the database with what the backends have (admin); the exit status is 6 unless all is well."""
        with session.client() as client:
            report = client.doctor.repair() if repair else client.doctor.check()
        if session.is_json:
            write_json(report.raw)
        else:
            _write_report(report)
        if not report.is_clean:
            raise typer.Exit(ExitStatus.UNAVAILABLE)

    @command(app, "health")
    def health(session: Session) -> None:
        """Show how the server is; the exit status is 6 unless all is well."""
        with session.client() as client:
            found = client.health()
        write_json(found.raw) if session.is_json else write_details(found.raw)
        if found.status != "ok":
            raise typer.Exit(ExitStatus.UNAVAILABLE)


def _write_report(report: DoctorReport) -> None:
    rows = [("repaired", finding) for finding in report.repaired] + [("found", each) for each in report.findings]
    if rows:
        columns = (
            Column[tuple[str, Finding]]("", lambda row: row[0]),
            Column[tuple[str, Finding]]("DRIFT", lambda row: row[1].drift),
            Column[tuple[str, Finding]]("RESOURCE", lambda row: row[1].resource.id if row[1].resource else None),
            Column[tuple[str, Finding]]("WHAT", lambda row: row[1].message),
            Column[tuple[str, Finding]](
                "REPAIR", lambda row: row[1].reason or row[1].repair or "none: a person has to decide"
            ),
        )
        write_table(columns, rows)
    for what, reason in report.unchecked.items():
        sys.stdout.write(f"not asked: {what}: {reason}\n")
    if report.is_clean:
        sys.stdout.write(f"all is well ({', '.join(f'{count} {name}' for name, count in report.checked.items())})\n")
