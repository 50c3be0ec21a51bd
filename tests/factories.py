"""Makes what tests are about: a whole cloud on the simulated backend, whose time stands until the test moves it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select

from iaas.cloud import Cloud
from iaas.config import CloudConfig, Ghosts, Policy
from iaas.db.models import AllocationRow, InstanceRow, JobRow
from iaas.db.repositories import catalog, instances, jobs, nics, subnets, vpcs
from iaas.db.repositories.query import Listing
from iaas.db.store import Store
from iaas.drivers.interface import MachineKind, PowerState
from iaas.drivers.sim.backend import build_sim_backend, world_of
from iaas.drivers.sim.world import SimWorld
from iaas.kernel.clock import CloudClock
from iaas.kernel.ids import IdSource
from iaas.resources.common import Page, Principal, Role
from iaas.resources.instances import Instance, InstanceStatus, NewInstance
from iaas.resources.jobs import Job, JobStatus
from iaas.resources.networks import NetworkStatus
from iaas.services.bootstrap import FirstCredentials
from iaas.services.quotas import recount

START = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
TOKEN = "iaas_test-token-of-the-operator"
CREDENTIALS = FirstCredentials(api_token=TOKEN, access_key_id="ak-test0001", secret_access_key="secret-of-the-test")
SETTLE_LIMIT_S = 8 * 3600.0


def make_cloud(
    folder: Path | None = None,
    *,
    clock: CloudClock | None = None,
    blocking: bool = False,
    seed: int = 1,
    zones: tuple[str, ...] = ("zone-1", "zone-2"),
    policy: Policy | None = None,
    max_waiters: int = 64,
    retention_s: float = 0.0,
    ghosts: Ghosts | None = None,
    database_url: str | None = None,
    **sim: Any,
) -> Cloud:
    """Return a cloud that has not begun to work: drive it with :func:`settle`.

    Args:
        folder: its files; a second cloud on the same folder goes on where the first was left. None: in memory.
        clock: a frozen one when absent.
        blocking: treat the simulation like a real backend: pool, journal before each effect.
        seed: a second cloud on the same folder needs another one, or ids come again.
        retention_s: how long deleted instances can be recovered.
        database_url: of a database in place of SQLite.
        sim: more for ``build_sim_backend`` (``vcpus``, ``hosts_per_zone``, ``latency`` ...).
    """
    clock = clock or CloudClock(start=START, scale=0)
    url = database_url or (f"sqlite:///{folder / 'cloud.db'}" if folder else "sqlite://")
    backend = build_sim_backend(folder / "sim.db" if folder else ":memory:", clock, zones=zones, **sim)
    store = Store(url, clock)
    try:
        return Cloud(
            config=CloudConfig(
                state_dir=folder,
                database_url=url,
                zones=zones,
                max_waiters=max_waiters,
                policy=policy or Policy(),
                retention_s=retention_s,
                ghosts=ghosts or Ghosts(),
            ),
            backend=replace(backend, blocking=blocking),
            store=store,
            clock=clock,
            ids=IdSource(seed),
            given_credentials=CREDENTIALS,
        )
    except BaseException:  # raised again: nobody else could close them
        backend.close()
        store.close()
        raise


@contextmanager
def open_cloud(folder: Path | None = None, **settings: Any) -> Iterator[Cloud]:
    """Give a cloud of :func:`make_cloud` and close it afterwards."""
    cloud = make_cloud(folder, **settings)
    try:
        yield cloud
    finally:
        cloud.close()


def wait_for(condition: Callable[[], bool], *, timeout_s: float = 20.0, what: str = "the condition") -> None:
    """Return once ``condition`` holds; it is asked every few milliseconds of wall time.

    Raises:
        TimeoutError: it did not in time.
    """
    give_up_at = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"{what} did not come true within {timeout_s:g} s")
        pause.wait(0.002)


def settle(cloud: Cloud) -> None:
    """Run everything that is to be done, jumping from one due moment to the next, until nothing is left."""
    executor = cloud.executor
    give_up_at = cloud.clock.now() + timedelta(seconds=SETTLE_LIMIT_S)
    while True:
        executor.run_due()
        if executor.is_idle:
            return
        if any(run.in_pool for run in executor._runs.values()):  # time stands while a driver call is under way
            wait_for(lambda: executor.run_due() > 0, what="the driver call in the pool")
            continue
        due = executor.next_due()
        if due is None or due > give_up_at:
            raise TimeoutError(f"the cloud is not idle after {SETTLE_LIMIT_S:g} s of its own time")
        cloud.clock.advance(max(0.0, (due - cloud.clock.now()).total_seconds()))


def operator(cloud: Cloud) -> Principal:
    """Return the operator: admin in the default project."""
    return cloud.identity.authenticate(TOKEN)


def principal_in(cloud: Cloud, project: str, role: Role = Role.MEMBER) -> tuple[Principal, str]:
    """Return somebody in a project (made when absent), and the token."""
    admin = operator(cloud)
    listing = Listing(page=Page(limit=1000))
    if project not in {found.name for found in cloud.identity.list_projects(admin, listing)[0]}:
        cloud.identity.create_project(admin, name=project)
    _, token = cloud.identity.create_token(admin, name=f"{project}-{role}", role=role, project=project)
    return cloud.identity.authenticate(token), token


def wish(**changes: Any) -> NewInstance:
    """Return the wish for a small container machine."""
    return NewInstance(**{"kind": "container", "image": "tiny", "flavor": "nano", **changes})


def create(cloud: Cloud, principal: Principal | None = None, **changes: Any) -> Instance:
    """Create one instance, let everything come to rest and return it."""
    principal = principal or operator(cloud)
    accepted, _ = cloud.instances.create(principal, [wish(**changes)])[0]
    settle(cloud)
    return cloud.instances.get(principal, accepted.id)


def world(cloud: Cloud) -> SimWorld:
    return world_of(cloud.backend)


def job_of(cloud: Cloud, job_id: str) -> Job:
    with cloud.store.read() as connection:
        found = jobs.get(connection, job_id)
    assert found is not None
    return found


def instance_row(cloud: Cloud, instance_id: str) -> Instance:
    """Return an instance, deleted or not."""
    with cloud.store.read() as connection:
        found = instances.get(connection, instance_id, with_deleted=True)
    assert found is not None
    return found


def used_capacity(cloud: Cloud) -> tuple[int, int, int]:
    """Return vCPUs, MiB and GiB reserved on all hosts together."""
    with cloud.store.read() as connection:
        hosts, _ = catalog.list_hosts(connection, Listing(page=Page(limit=1000)))
    return (
        sum(host.vcpus_used for host in hosts),
        sum(host.memory_mib_used for host in hosts),
        sum(host.disk_gib_used for host in hosts),
    )


def claims(cloud: Cloud) -> Counter[str]:
    """Return how many claims there are on names of instances, addresses and MACs of NICs."""
    with cloud.store.read() as connection:
        held = connection.execute(select(AllocationRow.__table__)).all()
        scopes = [row.scope for row in held if not row.resource_id.startswith(("net-", "rsv-"))]
    wanted = ("name:instance", "address", "mac")
    return Counter(prefix for scope in scopes for prefix in wanted if scope.startswith(prefix + ":"))


def assert_consistent(cloud: Cloud) -> None:
    """Hold the database against the simulated world: nothing is in the one that the other does not know."""
    with cloud.store.read() as connection:
        alive = instances.all_alive(connection)
        known = subnets.all_subnets(connection)
        routers = vpcs.all_vpcs(connection)
        interfaces = [nic for subnet in known for nic in nics.on_subnet(connection, subnet.id)]
        unfinished = connection.execute(
            select(JobRow.__table__.c.id).where(JobRow.__table__.c.status.in_([JobStatus.QUEUED, JobStatus.RUNNING]))
        ).all()
        retained = instances.all_retained(connection)
        ghosts = connection.execute(
            select(InstanceRow.__table__.c.host_id).where(InstanceRow.__table__.c.purged_at.is_not(None))
        ).scalars()
        assert set(ghosts) <= {None}, "a deleted instance is still on a host"
        assert recount(connection) == [], "a quota is not what the rows hold"
    assert unfinished == [], "a job was left unfinished"
    assert [each.id for each in alive if each.transition is not None] == [], "an instance was left in a transition"
    machines = {state.machine_id: state for driver in cloud.backend.compute.values() for state in driver.inventory()}
    holders = [each for each in alive if each.host_id is not None]
    assert machines.keys() <= {each.id for each in holders + retained}, "a machine that no instance stands for"
    for each in retained:
        assert each.id not in machines or machines[each.id].power == PowerState.STOPPED, "a deleted machine runs"
        assert each.id in machines or each.retained is None, "the machine of a recoverable instance is lost"
    for each in holders:
        if each.status == InstanceStatus.FAILED:
            continue
        state = machines[each.id]
        running = state.power in (PowerState.RUNNING, PowerState.STARTING)
        assert running == (each.status == InstanceStatus.RUNNING), f"{each.id} is {each.status}, really {state.power}"
        assert state.kind is MachineKind(each.kind)
        assert (state.vcpus, state.memory_mib) == (each.vcpus, each.memory_mib)
        assert state.generation == each.disk_generation
        if not running:
            assert each.guest_ready_at is None, "a guest that does not run cannot be ready"
    driver = cloud.backend.networks
    assert [each.id for each in (*known, *routers, *interfaces) if each.transition is not None] == []
    for what, rows, present in (
        ("VPC", routers, {state.vpc_id for state in driver.vpcs()}),
        ("subnet", known, {state.subnet_id for state in driver.subnets()}),
    ):
        # Basic ones are made when somebody needs them.
        wanted = {each.id for each in rows if each.status == NetworkStatus.ACTIVE and each.project_id is not None}
        assert wanted <= present, f"a {what} that is not there"
        assert present <= {each.id for each in rows}, f"a {what} without a row"
    ports = {port.nic_id for subnet in known for port in driver.ports(subnet.id)}
    assert ports <= {nic.id for each in holders for nic in each.nics}, "a port that no NIC stands for"
    whole = [each for each in holders if each.status != InstanceStatus.FAILED]
    assert ports >= {nic.id for each in whole for nic in each.nics}, "a NIC without its port"
    assert {nic.id for each in holders for nic in each.nics} == {nic.id for nic in interfaces if nic.instance_id}
    for each in holders:
        if each.status != InstanceStatus.FAILED:
            assert machines[each.id].nic_ids == tuple(nic.id for nic in each.nics), "a NIC that its machine has not"
    assert used_capacity(cloud) == (
        sum(each.vcpus for each in holders),
        sum(each.memory_mib for each in holders),
        sum(each.root_disk_gib for each in holders + retained),
    ), "capacity is not what the instances hold"
    assert claims(cloud) == Counter(
        {
            key: count
            for key, count in {
                "name:instance": len(holders),
                "address": sum(len(nic.addresses) for nic in interfaces),
                "mac": len(interfaces),
            }.items()
            if count
        }
    ), "claims are not what the instances hold"
