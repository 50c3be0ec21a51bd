"""A cloud on the real backend in the files of a test deployment, whose driver calls can be told to fail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import iaas.cloud
from iaas.api.inside.published import PublishedNetworks
from iaas.api.inside.servers import GuestServers
from iaas.api.metadata.app import MetadataApp
from iaas.cloud import Cloud
from iaas.config import CloudConfig
from iaas.db.repositories import jobs
from iaas.db.store import Store
from iaas.drivers.interface import Backend, DriverError
from iaas.drivers.real import RealOptions, build_real_backend
from iaas.drivers.sim.faults import OPERATIONS, Faults, When
from iaas.kernel.clock import CloudClock
from iaas.kernel.ids import IdSource
from tests.chaos.hooks import Around, wrapped
from tests.chaos.stage import Stage
from tests.factories import CREDENTIALS, wait_for

SETTLE_TIMEOUT_S = 240.0
STOP_TIMEOUT_S = 3.0  # a VM that still boots hears nothing
ZONES = ("zone-1",)
WATCH = "instance.watch_guest"

D = TypeVar("D")


class FaultsOfAThread(Faults):
    """Faults that hit only calls of the thread that asked for them.

    A step makes its calls in one thread. Others make the same calls meanwhile: who watches for a guest inspects
    its machine again and again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread: int | None = None

    def fail_next(
        self,
        operation: str,
        error: DriverError,
        *,
        count: int = 1,
        resource_id: str | None = None,
        when: When = "before",
    ) -> None:
        self._thread = threading.get_ident()
        super().fail_next(operation, error, count=count, resource_id=resource_id, when=when)

    def strike(self, operation: str, resource_id: str | None, when: When) -> None:
        if threading.get_ident() == self._thread:
            super().strike(operation, resource_id, when)


@contextmanager
def open_real_cloud(tag: str, state_dir: Path, faults: Faults | None = None) -> Iterator[Cloud]:
    """Give a working cloud on the deployment; machines and files stay afterwards."""
    clock = CloudClock()
    backend = build_real_backend(RealOptions(tag=tag, state_dir=state_dir, zones=ZONES, virt_type="qemu"))
    guests = GuestServers()  # without it a guest spends minutes of its boot on asking for it
    backend = replace(backend, networks=PublishedNetworks(backend.networks, guests))
    url = f"sqlite:///{state_dir / 'cloud.db'}"
    cloud = Cloud(
        config=CloudConfig(state_dir=state_dir, database_url=url, zones=ZONES),
        backend=backend if faults is None else _fragile(backend, faults),
        store=Store(url, clock),
        clock=clock,
        ids=IdSource(),
        given_credentials=CREDENTIALS,
    )
    guests.connect(MetadataApp(cloud.metadata, cloud.wall))
    try:
        cloud.start()
        yield cloud
    finally:
        guests.close()
        cloud.close()


def real_stage(cloud: Cloud, kind: str, action: str) -> Stage:
    """Return the stage for a play on the real backend.

    An emulated VM takes ten seconds and more to boot: it is waited for only where that is what the play is about.
    """
    awaits_guests = kind == "container" or action == WATCH

    def settle(cloud: Cloud) -> None:
        def is_at_rest() -> bool:
            with cloud.store.read() as connection:
                left = jobs.unfinished(connection)
            return not [job for job in left if awaits_guests or job.action != WATCH]

        wait_for(is_at_rest, timeout_s=SETTLE_TIMEOUT_S, what=f"the end of {action}")

    return Stage(cloud, kind=kind, settle=settle, awaits_guests=awaits_guests, stop_timeout_s=STOP_TIMEOUT_S)


@contextmanager
def around_steps(around: Around) -> Iterator[None]:
    """Let clouds that are made inside the block use workflows with ``around`` around each step."""
    before = iaas.cloud.WORKFLOWS
    iaas.cloud.WORKFLOWS = wrapped(around)  # type: ignore[misc]  # put back below
    try:
        yield
    finally:
        iaas.cloud.WORKFLOWS = before  # type: ignore[misc]  # as above


def _fragile(backend: Backend, faults: Faults) -> Backend:
    return replace(
        backend,
        compute={kind: _fragile_driver(driver, faults) for kind, driver in backend.compute.items()},
        networks=_fragile_driver(backend.networks, faults),
        images=_fragile_driver(backend.images, faults),
    )


def _fragile_driver(driver: D, faults: Faults) -> D:
    return cast(D, _FragileDriver(driver, faults))  # it answers to everything the driver answers to


class _FragileDriver:
    """Stands before a driver and lets its calls fail, before or after their effect, as it is told."""

    def __init__(self, driver: object, faults: Faults) -> None:
        self._driver = driver
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._driver, name)
        return self._fragile_call(name, value) if name in OPERATIONS else value

    def _fragile_call(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self._faults.strike(name, None, "before")
            outcome = function(*arguments, **named)
            self._faults.strike(name, None, "after")
            return outcome

        return call
