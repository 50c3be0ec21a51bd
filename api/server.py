"""Starts a server: state folder, database, backend, cloud, application, proxy; in this order, and back."""

from __future__ import annotations

import contextlib
import gc
import http.client
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from iaas.api.app import create_app
from iaas.api.bodies import BodyGate
from iaas.api.connections import hear_no_more, notice_who_is_gone
from iaas.api.drain import DEADLINE_S, DEADLINE_WITH_REMOVAL_S, Drain
from iaas.api.inside.tenant_api import TenantAPI
from iaas.api.logs import configure
from iaas.api.proxy import GuestProxy
from iaas.api.state import StartError, StateDir
from iaas.cloud import Cloud
from iaas.config import CloudConfig, DoctorPolicy
from iaas.db.store import Store
from iaas.drivers.interface import Backend, DriverError, HostReport, MachineKind
from iaas.drivers.interface.logged import logged
from iaas.jobs.executor import DRIVER_CALLS
from iaas.kernel.clock import CloudClock
from iaas.kernel.errors import CloudError
from iaas.kernel.ids import IdSource
from iaas.services.bootstrap import FirstCredentials, deployment_tag
from iaas.services.vault import VaultAside

if TYPE_CHECKING:
    from iaas.api.inside.servers import GuestServers
    from iaas.jobs.fleet import JobQueue

BLOCKING_THREADS = 512  # at most: they are made when they are needed, and end when they are not
MAX_WAITERS = 96  # long polls at most,
MAX_BODIES = 256  # bodies on their way in at most; the other threads are for everybody else
IDLE_THREAD_S = 30
BODY_GRACE_S = 5.0  # when the server stops: for bodies on their way in
SILENCE_S = 60  # after which a client that takes or answers nothing has gone
READY_TIMEOUT_S = 30.0
GC_THRESHOLD = 50_000
ZONES = ("zone-1", "zone-2")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    backend: str
    host: str
    port: int
    state_dir: Path
    database_url: str | None = None
    zones: tuple[str, ...] = ZONES
    hosts_file: Path | None = None
    retention_s: float = 0.0
    quotas: Mapping[str, int] = field(default_factory=dict)
    image_cache: Path | None = None
    virt_type: str = "auto"
    libvirt_uri: str | None = None
    lxd_endpoint: str | None = None
    lxd_pool: str = "default"
    tag: str | None = None
    remove_on_exit: bool = False
    driver_calls: int = DRIVER_CALLS
    log_level: str = "warning"
    log_json: bool = False
    fleet: bool = False  # workers in other processes run the jobs
    metrics_open: bool = False
    doctor_every_s: float = 600.0  # 0: only on request
    doctor_repairs: bool = False


def parse_listen(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT`` or ``[v6]:PORT``.

    Raises:
        StartError: it is neither.
    """
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]]+)):([0-9]{1,5})", text)
    if match is None or int(match[3]) > 65535:
        raise StartError(f"--listen must be HOST:PORT, not {text}")
    return match[1] or match[2], int(match[3])


def serve(options: ServeOptions, vault: VaultAside | None = None) -> None:
    """Run a server until it is told to stop (SIGINT, SIGTERM).

    Prints ``ready URL`` on standard output once it answers.

    Args:
        vault: of the state folder's key, for the operator's secret.

    Raises:
        StartError: it cannot start; nothing is left half made.
    """
    configure(options.log_level, as_json=options.log_json)
    given = credentials_from_environment()  # this and the hosts file may be wrong: before anything is made
    hosts = _declared_hosts(options)
    port, holder = _hold_port(options.host, options.port)
    with contextlib.ExitStack() as stack:
        stack.callback(holder.close)
        state = StateDir(options.state_dir, mode=0o711 if options.backend == "real" else 0o700, shared=options.fleet)
        stack.callback(state.release)
        clock = CloudClock()
        ids = IdSource()
        if options.database_url is None:
            _private(options.state_dir / "cloud.db")
        try:
            store = Store(options.database_url or f"sqlite:///{options.state_dir / 'cloud.db'}", clock)
        except (SQLAlchemyError, ImportError) as error:  # no URL, or no driver for it here
            raise StartError(f"--database cannot be used: {error}") from error
        stack.callback(store.close)
        guests = _guest_servers(options)
        try:
            cloud, on_exit = open_cloud(
                options, state, store, clock, ids, given=given, hosts=hosts, vault=vault, guests=guests
            )
        except SQLAlchemyError as error:
            raise StartError(f"the database cannot be used: {str(error).splitlines()[0]}") from error
        except (DriverError, CloudError, OSError) as error:
            raise StartError(str(error)) from error
        stack.callback(on_exit)
        drain = Drain(DEADLINE_WITH_REMOVAL_S if options.remove_on_exit else DEADLINE_S)
        stack.callback(drain.end)
        proxy = GuestProxy(cloud, options.host)
        stack.callback(cloud.close)
        stack.callback(proxy.stop)
        app = create_app(cloud, proxy_url=proxy.url, metrics_open=options.metrics_open)
        if guests is not None:
            stack.callback(guests.close)  # while there is a cloud to answer for
            guests.connect_api(TenantAPI(app))
        shown_host = f"[{options.host}]" if ":" in options.host else options.host
        url = f"http://{shown_host}:{port}"
        credentials = cloud.first_credentials or state.read_credentials() or cloud.renew_credentials()
        state.write_credentials(credentials, endpoint=url, zone=options.zones[0])
        if vault is not None:
            vault.close()  # there is no second first start
        try:
            if options.fleet:
                cloud.start_in_fleet(works=False)
            else:
                cloud.start()
        except CloudError as error:
            raise StartError(error.message) from error
        proxy.start()

        def before_stop() -> None:
            drain.begin()
            cloud.end_waits()

        _run_http(app, options.host, port, url, before_stop)


def open_cloud(
    options: ServeOptions,
    state: StateDir,
    store: Store,
    clock: CloudClock,
    ids: IdSource,
    *,
    given: FirstCredentials | None,
    hosts: Sequence[HostReport] | None = None,
    vault: VaultAside | None = None,
    guests: GuestServers | None = None,
) -> tuple[Cloud, Callable[[], None]]:
    """Return the cloud, and what is to be done after it was closed.

    Args:
        given: the operator's credentials, if the environment has them.
        hosts: the simulation's, if a file declares them.
        guests: what answers inside VPCs; the simulation has no use for them.
    """
    from iaas.db.schema import upgrade

    upgrade(store)
    config = CloudConfig(
        state_dir=state.path,
        database_url=store.url,
        zones=options.zones,
        max_waiters=MAX_WAITERS,
        retention_s=options.retention_s,
        quotas=options.quotas,
        doctor=DoctorPolicy(every_s=options.doctor_every_s or None, repairs=options.doctor_repairs),
        driver_calls={kind.value: options.driver_calls for kind in MachineKind},
    )
    on_exit: Callable[[], None] = lambda: None  # noqa: E731 - replaced below for the real backend
    backend: Backend
    if options.backend == "sim":
        from iaas.drivers.sim.backend import build_sim_backend

        backend = build_sim_backend(state.path / "sim.db", clock, zones=options.zones, hosts=hosts)
    else:
        from dataclasses import replace

        from iaas.api.inside.published import PublishedNetworks
        from iaas.api.inside.servers import GuestServers
        from iaas.drivers.real import RealOptions, build_real_backend, remove_real_backend

        tag = deployment_tag(store, ids, options.tag)
        real = RealOptions(
            tag=tag,
            state_dir=state.path,
            zones=options.zones,
            image_cache=options.image_cache,
            virt_type=options.virt_type,
            libvirt_uri=options.libvirt_uri,
            lxd_endpoint=options.lxd_endpoint,
            lxd_pool=options.lxd_pool,
        )
        backend = build_real_backend(real)
        guests = guests or GuestServers()
        backend = replace(backend, networks=PublishedNetworks(backend.networks, guests))
        if options.remove_on_exit:

            def on_exit() -> None:
                state.release()
                remove_real_backend(real)

    if options.log_level == "debug":
        backend = logged(backend)
    cloud = Cloud(
        config=config,
        backend=backend,
        store=store,
        clock=clock,
        ids=ids,
        given_credentials=given,
        queue=_queue(store) if options.fleet else None,
        operators_vault=vault,
    )
    if guests is not None:
        from iaas.api.metadata.app import MetadataApp

        guests.connect(MetadataApp(cloud.metadata, cloud.wall))
    return cloud, on_exit


def _guest_servers(options: ServeOptions) -> GuestServers | None:
    """Return what answers inside VPCs; None for the simulation, whose guests send no packets."""
    if options.backend == "sim":
        return None
    from iaas.api.inside.servers import GuestServers

    return GuestServers()


def _queue(store: Store) -> JobQueue:
    try:
        from iaas.jobs.fleet import JobQueue
    except ImportError as error:
        raise StartError(f"a fleet needs the extra 'fleet' of iaas: {error}") from error
    return JobQueue(store)


def credentials_from_environment() -> FirstCredentials | None:
    """Return what CI gave: IAAS_TOKEN, and IAAS_ACCESS_KEY_ID with IAAS_SECRET_ACCESS_KEY if signed dialects matter.

    Raises:
        StartError: the token is too short.
    """
    token = os.environ.get("IAAS_TOKEN")
    if not token:
        return None
    if len(token) < 16:
        raise StartError("IAAS_TOKEN must have at least 16 characters")
    import hashlib

    derived = hashlib.sha256(token.encode()).hexdigest()
    return FirstCredentials(
        api_token=token,
        access_key_id=os.environ.get("IAAS_ACCESS_KEY_ID") or f"ak-{derived[:8]}",
        secret_access_key=os.environ.get("IAAS_SECRET_ACCESS_KEY") or derived[8:],
    )


def _declared_hosts(options: ServeOptions) -> Sequence[HostReport] | None:
    if options.hosts_file is None:
        return None
    from iaas.api.hosts_file import read_hosts

    return read_hosts(options.hosts_file, options.zones)


def _private(path: Path) -> None:
    """Make the file for this user only before anything is in it (SQLite gives its side files the same mode)."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    path.chmod(0o600)


def _hold_port(host: str, port: int) -> tuple[int, socket.socket]:
    """Return a port that nobody listens on, and a socket that keeps others from taking it until it is closed.

    Granian binds the same port beside that socket (SO_REUSEPORT), for which reason it would also share one that
    another server has, silently: so a given port is tried without that first.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    holder = socket.socket(family, socket.SOCK_STREAM)
    try:
        if port != 0:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
                probe.listen(1)  # with SO_REUSEADDR only listening finds out about another listener
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((host, port))
        found: int = holder.getsockname()[1]
    except OSError as error:
        holder.close()
        raise StartError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    if not hasattr(socket, "SO_REUSEPORT"):
        holder.close()  # nobody may bind beside it there
    return found, holder


def _run_http(app: Any, host: str, port: int, url: str, before_stop: Callable[[], None]) -> None:
    from granian.constants import HTTPModes, Interfaces
    from granian.server.mt import MTServer

    gated = BodyGate(app, most=MAX_BODIES)

    class Server(MTServer):
        """Granian's threaded server. It insists on a Python without the GIL; ours has one, and it works (ADR 0003)."""

        def _check_gil(self) -> None:
            return

        def shutdown(self, exit_code: int = 0) -> None:
            """Granian waits here for the requests under way: those that only wait must end first."""
            before_stop()
            ending = threading.Timer(BODY_GRACE_S, lambda: hear_no_more(port) if gated.is_receiving else None)
            ending.daemon = True
            ending.start()
            super().shutdown(exit_code)  # type: ignore[no-untyped-call]  # granian publishes no types

    server = Server(
        "iaas.api.app",
        address=host,
        port=port,
        interface=Interfaces.WSGI,
        workers=1,
        blocking_threads=BLOCKING_THREADS,
        blocking_threads_idle_timeout=IDLE_THREAD_S,
        websockets=False,
        log_enabled=False,
        http=HTTPModes.http1,
    )
    # What is loaded by now stays. The collector looks through everything else whenever so many objects have come
    # without going; at its default of 700 a batch of instances would have it do so a dozen times.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 50)
    stopped = threading.Event()
    announcer = threading.Thread(target=_announce, args=(host, port, url, stopped), name="announcer", daemon=True)
    announcer.start()
    try:
        server.serve(target_loader=lambda *_args, **_kwargs: gated, wrap_loader=False)
    finally:
        stopped.set()


def _announce(host: str, port: int, url: str, stopped: threading.Event) -> None:
    """Print ``ready URL`` when the server answers."""
    give_up_at = time.monotonic() + READY_TIMEOUT_S
    while not stopped.is_set() and time.monotonic() < give_up_at:
        connection = http.client.HTTPConnection(_loopback(host), port, timeout=5)
        try:
            connection.request("GET", "/v1/capabilities")
            if connection.getresponse().status == 200:
                notice_who_is_gone(port, silence_s=SILENCE_S)
                sys.stdout.write(f"ready {url}\n")
                sys.stdout.flush()
                return
        except OSError:
            stopped.wait(0.01)
        finally:
            connection.close()


def _loopback(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared with, not bound to
