"""The CLI's server commands: ``iaas serve``, ``iaas host check|remove``, ``iaas image build``.

They join through entry points, so that ``iaas.cli`` itself imports nothing of the server.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from iaas.cli.exit_status import CommandError, ExitStatus
from iaas.cli.plugins import noun
from iaas.services.vault import VaultAside

DEFAULT_LISTEN = "127.0.0.1:7780"
REAL_PARENT = Path("/var/lib/iaas")


def default_state_dir(backend: str) -> Path:
    """Return where a server keeps its state when nobody says: below the user's state folder, or /var/lib for real."""
    if backend == "real":
        return REAL_PARENT / "default"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "iaas"


def register_serve(app: typer.Typer) -> None:
    @app.command("serve")
    def serve(
        backend: Annotated[str, typer.Option(help="sim (no root, nothing real) or real (root on Linux).")] = "sim",
        listen: Annotated[str, typer.Option(help="HOST:PORT; port 0 takes a free one.")] = DEFAULT_LISTEN,
        state: Annotated[Path | None, typer.Option(help="Folder for database, credentials and machines.")] = None,
        database: Annotated[str | None, typer.Option(help="SQLAlchemy URL in place of STATE/cloud.db.")] = None,
        workers: Annotated[
            str, typer.Option(help="embedded (jobs run in this process) or external ('iaas worker', on PostgreSQL).")
        ] = "embedded",
        zones: Annotated[str, typer.Option(help="Names of the zones, separated by commas.")] = "zone-1,zone-2",
        hosts: Annotated[
            Path | None, typer.Option(metavar="FILE", help="TOML file that declares the simulated hosts (sim).")
        ] = None,
        retention: Annotated[
            float,
            typer.Option(
                metavar="SECONDS", min=0, max=31_536_000, help="So long deleted instances can be recovered; 0: not."
            ),
        ] = 0.0,
        quota: Annotated[
            list[str] | None,
            typer.Option(metavar="RESOURCE=LIMIT", help="Limit of projects without one of their own. Repeat for more."),
        ] = None,
        image_cache: Annotated[Path | None, typer.Option(help="Where built images are kept (real).")] = None,
        virt_type: Annotated[
            str, typer.Option(help="qemu (emulation), kvm, or auto: kvm if a probe finds that it works (real).")
        ] = "auto",
        libvirt_uri: Annotated[
            str | None, typer.Option(help="Use this libvirtd in place of a private one (real).")
        ] = None,
        lxd_endpoint: Annotated[
            str | None, typer.Option(help="Use this LXD or Incus in place of a private one (real).")
        ] = None,
        lxd_pool: Annotated[str, typer.Option(help="Storage pool of that LXD.")] = "default",
        tag: Annotated[
            str | None, typer.Option(help="Four of a-z and 0-9 that all real objects carry; chosen when absent (real).")
        ] = None,
        remove_on_exit: Annotated[
            bool, typer.Option("--remove-on-exit", help="Remove machines, networks and the state folder at the end.")
        ] = False,
        driver_calls: Annotated[
            int, typer.Option(min=1, max=64, help="Calls at once to a host's libvirtd, and to its LXD (real).")
        ] = 4,
        log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "warning",
        log_json: Annotated[bool, typer.Option("--log-json", help="Logs as JSON lines.")] = False,
        metrics_open: Annotated[
            bool, typer.Option("--metrics-open", help="/metrics for everybody, not for admins' tokens only.")
        ] = False,
        doctor_every: Annotated[
            float | None,
            typer.Option(
                metavar="SECONDS", min=0, help="Compare database and backend so often (600); 0: only on request."
            ),
        ] = None,
        doctor_repairs: Annotated[
            bool, typer.Option("--doctor-repairs", help="Repair what the periodic look finds, where that is safe.")
        ] = False,
    ) -> None:
        """Run a cloud; prints one line 'ready URL' when it can be used."""
        state_dir = (state or default_state_dir(backend)).absolute()
        vault = VaultAside(state_dir / "secret.key")
        if not (state_dir / "secret.key").exists():
            vault.get_ready()  # while the server is imported
        with closing(vault):
            _import_structlog_without_rich()
            from iaas.api.server import ServeOptions, parse_listen
            from iaas.api.server import serve as run
            from iaas.api.state import StartError

            _one_of("--backend", backend, ("sim", "real"))
            _one_of("--workers", workers, ("embedded", "external"))
            if workers == "external" and not (database or "").startswith("postgresql+psycopg://"):
                raise CommandError("--workers external needs --database postgresql+psycopg://...", ExitStatus.USAGE)
            if workers == "external" and backend != "sim":
                raise CommandError(
                    "--workers external is for the simulated backend: real machines are of one process",
                    ExitStatus.USAGE,
                )
            if workers == "external" and (doctor_every is not None or doctor_repairs):
                option = "--doctor-repairs" if doctor_repairs else "--doctor-every"
                raise CommandError(
                    f"{option} is an option of 'iaas worker' in a fleet: servers there look on request only",
                    ExitStatus.USAGE,
                )
            _one_of("--virt-type", virt_type, ("auto", "qemu", "kvm"))
            _one_of("--log-level", log_level, ("debug", "info", "warning", "error"))
            if tag is not None and not re.fullmatch(r"[a-z0-9]{4}", tag):
                raise CommandError(f"--tag must be four of a-z and 0-9, not {tag}", ExitStatus.USAGE)
            names = tuple(name.strip() for name in zones.split(",") if name.strip())
            if not names or len(set(names)) != len(names):
                raise CommandError("--zones must be different names separated by commas", ExitStatus.USAGE)
            if hosts is not None and backend != "sim":
                raise CommandError("--hosts is for the simulation: a real host reports itself", ExitStatus.USAGE)
            try:
                host, port = parse_listen(listen)
            except StartError as error:
                raise CommandError(str(error), ExitStatus.USAGE) from error
            try:
                if backend == "real":
                    _check_host(state)
                run(
                    ServeOptions(
                        backend=backend,
                        host=host,
                        port=port,
                        state_dir=state_dir,
                        database_url=database,
                        zones=names,
                        hosts_file=hosts,
                        retention_s=retention,
                        quotas=_limits(quota or []),
                        image_cache=image_cache.absolute() if image_cache else None,
                        virt_type=virt_type,
                        libvirt_uri=libvirt_uri,
                        lxd_endpoint=lxd_endpoint,
                        lxd_pool=lxd_pool,
                        tag=tag,
                        remove_on_exit=remove_on_exit,
                        driver_calls=driver_calls,
                        log_level=log_level,
                        log_json=log_json,
                        fleet=workers == "external",
                        metrics_open=metrics_open,
                        doctor_every_s=600.0 if doctor_every is None else doctor_every,
                        doctor_repairs=doctor_repairs,
                    ),
                    vault,
                )
            except StartError as error:
                raise CommandError(str(error)) from error


def _import_structlog_without_rich() -> None:
    """Import structlog as if rich were not installed: its console renderer, unused here, would load 3 MiB of it."""
    if "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # the import system's own way to hide a module
    try:
        import structlog  # noqa: F401 - for what it leaves in sys.modules
    finally:
        del sys.modules["rich"]


def _limits(terms: list[str]) -> dict[str, int]:
    from iaas.services.quotas import DEFAULTS, MAX_LIMIT

    limits = {}
    for term in terms:
        name, _, value = term.partition("=")
        if (
            name not in DEFAULTS
            or not value.isascii()
            or not value.isdigit()
            or len(value) > 16
            or int(value) > MAX_LIMIT
        ):
            known = ", ".join(DEFAULTS)
            raise CommandError(f"--quota must be RESOURCE=LIMIT with one of {known}, not {term}", ExitStatus.USAGE)
        limits[name] = int(value)
    return limits


def register_host(app: typer.Typer) -> None:
    host = noun(app, "host", help="Hosts that run instances.")

    @host.command("check")
    def check(
        state: Annotated[Path | None, typer.Option(help="The state folder that the server will use.")] = None,
        quiet: Annotated[bool, typer.Option("--quiet", help="Only what is wrong.")] = False,
    ) -> None:
        """Say in one line each what this host lacks for the real backend, or what will be slow, and how to mend it."""
        from iaas.drivers.linux.host_check import check_host

        findings = check_host(state or REAL_PARENT)
        for finding in findings:
            if finding.ok and quiet:
                continue
            mark = "ok" if finding.ok else finding.severity.value
            remedy = f" -> {finding.remedy}" if finding.remedy and not finding.ok else ""
            sys.stdout.write(f"{mark:8}{finding.name}: {finding.message}{remedy}\n")
        if any(finding.blocks for finding in findings):
            raise typer.Exit(1)

    @host.command("remove")
    def remove(
        state: Annotated[Path, typer.Option(help="The state folder of the deployment.")],
    ) -> None:
        """Remove all that a deployment has on this host (machines, networks, daemons, its state folder).

        A deployment whose server is running is not touched.
        """
        from iaas.drivers.interface import DriverError
        from iaas.drivers.linux.cleanup import remove_deployment
        from iaas.drivers.linux.deployment import find_deployments

        place = state.absolute()
        found = next((each for each in find_deployments(place.parent) if each.state_dir == place), None)
        if found is None:
            sys.stdout.write(f"no deployment in {place}\n")
            return
        try:
            removed = remove_deployment(found.tag, place)
        except DriverError as error:
            raise CommandError(str(error)) from error
        for line in removed:
            sys.stdout.write(f"removed {line}\n")


def register_image(app: typer.Typer) -> None:
    image = noun(app, "image", help="Images that instances boot.")
    build = typer.Typer(no_args_is_help=True)
    image.add_typer(build, name="build", help="Build an image on this host.")

    @build.command("tiny")
    def tiny(
        cache: Annotated[Path | None, typer.Option(help="Where built images are kept.")] = None,
        refresh: Annotated[
            bool, typer.Option("--refresh", help="Build anew with the mirror's present packages.")
        ] = False,
    ) -> None:
        """Build the tiny image from Debian packages: one root file system as VM disk and as container image."""
        from iaas.drivers.images.tiny import build_tiny
        from iaas.drivers.interface import DriverError

        try:
            built = build_tiny(cache, lambda text: print(text, file=sys.stderr), refresh=refresh)  # noqa: T201 - progress for people
        except DriverError as error:
            raise CommandError(str(error)) from error
        for artefact in built.artefacts.values():
            for role, path in sorted(artefact.files.items()):
                sys.stdout.write(f"{artefact.kind.value:10} {role:8} {path.stat().st_size:>10} {path}\n")


def _check_host(state: Path | None) -> None:
    from iaas.drivers.linux.host_check import check_host

    lines = [f"{finding.message}: {finding.remedy}" for finding in check_host(state or REAL_PARENT) if finding.blocks]
    if lines:
        raise CommandError("this host cannot run the real backend: " + "; ".join(lines))


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise CommandError(f"{option} must be one of {', '.join(allowed)}, not {value}", ExitStatus.USAGE)
