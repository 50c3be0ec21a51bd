"""``iaas worker``: one process of a fleet that runs jobs."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from iaas.cli.exit_status import CommandError


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """``hosts``: names of those whose jobs it runs; all when empty. ``lease_s``: wall clock."""

    database_url: str
    state_dir: Path
    zones: tuple[str, ...]
    hosts: tuple[str, ...]
    lease_s: float
    doctor_every_s: float
    doctor_repairs: bool
    log_level: str
    log_json: bool


def register(app: typer.Typer) -> None:
    @app.command("worker")
    def worker(
        database: Annotated[str, typer.Option(help="postgresql+psycopg://..., as the servers have it.")],
        state: Annotated[Path | None, typer.Option(help="The state folder, the same for the whole fleet.")] = None,
        zones: Annotated[str, typer.Option(help="Names of the zones, as the servers have them.")] = "zone-1,zone-2",
        queue: Annotated[
            list[str] | None, typer.Option(help="Run the jobs of this host only; may be given again. All when absent.")
        ] = None,
        lease: Annotated[
            float, typer.Option(metavar="SECONDS", min=1, help="After this others look whether this worker has died.")
        ] = 5.0,
        doctor_every: Annotated[
            float,
            typer.Option(
                metavar="SECONDS",
                min=0,
                help="One worker compares database and backend so often, and soon after the start; 0: only on request.",
            ),
        ] = 600.0,
        doctor_repairs: Annotated[
            bool, typer.Option("--doctor-repairs", help="Repair what the periodic look finds, where that is safe.")
        ] = False,
        log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "warning",
        log_json: Annotated[bool, typer.Option("--log-json", help="Logs as JSON lines.")] = False,
    ) -> None:
        """Run jobs that servers with '--workers external' accept; prints one line 'ready' when it has begun."""
        from iaas.api.commands import default_state_dir
        from iaas.api.state import StartError

        if not database.startswith("postgresql+psycopg://"):
            raise CommandError("--database must be postgresql+psycopg://...")
        options = WorkerOptions(
            database_url=database,
            state_dir=(state or default_state_dir("sim")).absolute(),
            zones=tuple(name.strip() for name in zones.split(",") if name.strip()),
            hosts=tuple(queue or ()),
            lease_s=lease,
            doctor_every_s=doctor_every,
            doctor_repairs=doctor_repairs,
            log_level=log_level,
            log_json=log_json,
        )
        try:
            work(options)
        except StartError as error:
            raise CommandError(str(error)) from error


def work(options: WorkerOptions) -> None:
    """Run a worker until it is told to stop (SIGINT, SIGTERM).

    Raises:
        StartError: it cannot start.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from iaas.api.logs import configure
    from iaas.api.server import ServeOptions, credentials_from_environment, open_cloud
    from iaas.api.state import StartError, StateDir
    from iaas.db.repositories import catalog
    from iaas.db.store import Store
    from iaas.kernel.clock import CloudClock
    from iaas.kernel.errors import CloudError
    from iaas.kernel.ids import IdSource

    configure(options.log_level, as_json=options.log_json)
    serve_options = ServeOptions(
        backend="sim",
        host="",
        port=0,
        state_dir=options.state_dir,
        database_url=options.database_url,
        zones=options.zones,
        log_level=options.log_level,
        doctor_every_s=options.doctor_every_s,
        doctor_repairs=options.doctor_repairs,
        fleet=True,
    )
    given = credentials_from_environment()
    with contextlib.ExitStack() as stack:
        state = StateDir(options.state_dir, shared=True)
        stack.callback(state.release)
        clock = CloudClock()
        try:
            store = Store(options.database_url, clock)
            stack.callback(store.close)
            cloud, _ = open_cloud(serve_options, state, store, clock, IdSource(), given=given)
        except (SQLAlchemyError, ImportError, CloudError) as error:
            raise StartError(f"the worker cannot start: {str(error).splitlines()[0]}") from error
        stack.callback(cloud.close)
        if cloud.first_credentials is not None:  # it came before any server: nobody else will be told of them
            state.write_credentials(cloud.first_credentials, endpoint="", zone=options.zones[0])
        with store.read() as connection:
            known = {host.name: host.id for host in catalog.all_hosts(connection)}
        unknown = set(options.hosts) - known.keys()
        if unknown:
            raise StartError(f"there is no host {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")

        from iaas.jobs.fleet_worker import FleetWorker

        cloud.start_in_fleet(works=True)
        worker = FleetWorker(
            store=store,
            executor=cloud.executor,
            signals=cloud.signals,
            queues=[known[name] for name in options.hosts] or None,
            lease_s=options.lease_s,
        )
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        worker.run()
