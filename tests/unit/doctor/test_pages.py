"""The doctor holds a page at a time, whatever there is: rows, machines, ports, and what it found."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

from iaas.cloud import Cloud
from iaas.config import DoctorPolicy
from iaas.db.models import AllocationRow, HostRow, InstanceRow, LabelRow, NICRow
from iaas.db.models.quotas import QuotaRow
from iaas.doctor import findings as findings_module
from iaas.doctor.doctor import Doctor
from iaas.doctor.findings import Drift
from iaas.doctor.survey import Survey
from iaas.drivers.interface import MachineKind, PortSpec
from tests.factories import create, open_cloud, settle, world
from tests.postgres import Cluster

PAGE = 7


@pytest.fixture(params=["sqlite", "postgresql"])
def cloud(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cloud]:
    if request.param == "sqlite":
        with open_cloud(tmp_path) as opened:
            yield opened
        return
    cluster: Cluster = request.getfixturevalue("postgres")
    with cluster.database() as url, open_cloud(tmp_path, database_url=url) as opened:
        yield opened


def doctor(cloud: Cloud, page: int = PAGE) -> Doctor:
    return Doctor(
        store=cloud.store,
        backend=cloud.backend,
        clock=cloud.clock,
        executor=cloud.executor,
        policy=DoctorPolicy(),
        on_repair=lambda drift: None,
        page=page,
    )


def multiply(cloud: Cloud, model_id: str, count: int, *, first: int = 0) -> list[str]:
    """Write ``count`` more instances like one that is there, with all that belongs to them; return their ids."""
    numbers = range(first, first + count)
    ids = [f"i-{number:08d}" for number in numbers]

    def copies(connection: Any, model: Any, key: Any, changes: Any) -> None:
        for row in connection.execute(select(model.__table__).where(key == model_id)).all():
            rows = [{**row._mapping, **changes(number, each)} for number, each in zip(numbers, ids, strict=True)]
            connection.execute(insert(model), rows)

    with cloud.store.read() as connection:
        nic = connection.execute(select(NICRow.__table__).where(NICRow.instance_id == model_id)).one()
        row = connection.execute(select(InstanceRow.__table__).where(InstanceRow.id == model_id)).one()

    def address(number: int) -> str:
        return f"10.64.{100 + number // 250}.{1 + number % 250}"

    def mac(number: int) -> str:
        return f"52:54:01:00:{number // 256:02x}:{number % 256:02x}"

    def work(tx: Any) -> None:
        connection = tx.connection
        copies(connection, InstanceRow, InstanceRow.id, lambda number, each: {"id": each, "name": f"copy-{number}"})
        copies(
            connection,
            NICRow,
            NICRow.instance_id,
            lambda number, each: {
                "id": f"nic-{number:08d}",
                "name": f"nic-{number:08d}",
                "instance_id": each,
                "mac": mac(number),
                "address": address(number),
            },
        )
        copies(connection, LabelRow, LabelRow.resource_id, lambda number, each: {"resource_id": each})
        for number, each in zip(numbers, ids, strict=True):
            nic_id = f"nic-{number:08d}"
            for scope, value, holder in (
                (f"name:instance:{row.project_id}", f"copy-{number}", each),
                (f"mac:{row.zone}", mac(number), nic_id),
                (f"address:{nic.subnet_id}", address(number), nic_id),
            ):
                connection.execute(insert(AllocationRow).values(scope=scope, value=value, resource_id=holder))
        for name, amount in (("vcpus", row.vcpus), ("memory_mib", row.memory_mib), ("disk_gib", row.root_disk_gib)):
            used = HostRow.__table__.c[f"{name}_used"]
            connection.execute(
                HostRow.__table__.update().where(HostRow.id == row.host_id).values({used: used + count * amount})
            )
        for name in ("instances", "nics", "vcpus", "memory_mib", "root_disk_gib"):
            more = count * (1 if name in ("instances", "nics") else getattr(row, name))
            mine = (QuotaRow.project_id == row.project_id, QuotaRow.resource == name)
            connection.execute(QuotaRow.__table__.update().where(*mine).values(used=QuotaRow.used + more))

    cloud.store.write(work)
    columns = "kind, hostname, vcpus, memory_mib, root_disk_gib, image_id, nesting, privileged, generation, passage,"
    columns += " target, due_us, ready_us, busy_until_us, unannounced, host_id"
    with world(cloud).write("test") as connection:
        connection.executemany(
            f"INSERT INTO machines (machine_id, {columns}) SELECT ?, {columns} FROM machines WHERE machine_id = ?",  # noqa: S608 - all ours
            [(each, model_id) for each in ids],
        )
    for number in numbers:
        cloud.backend.networks.ensure_port(
            PortSpec(
                nic_id=f"nic-{number:08d}",
                subnet_id=nic.subnet_id,
                mac=mac(number),
                owner=nic.project_id,
                addresses=(address(number),),
            )
        )
    return ids


def spy(monkeypatch: pytest.MonkeyPatch, cloud: Cloud) -> list[int]:
    """Return a list that grows by the size of each answer that the doctor gets from a backend."""
    sizes: list[int] = []

    def watched(real: Any) -> Any:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            found = real(self, *args, **kwargs)
            sizes.append(len(found))
            return found

        return call

    for driver, name in ((cloud.backend.compute[MachineKind.VM], "inventory"), (cloud.backend.networks, "ports")):
        monkeypatch.setattr(type(driver), name, watched(getattr(type(driver), name)))
    return sizes


def test_every_page_is_looked_at_and_none_is_larger(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    model = create(cloud, labels={"a": "b"})
    ids = multiply(cloud, model.id, 5 * PAGE)
    sizes = spy(monkeypatch, cloud)
    report = doctor(cloud).check()
    assert report.findings == ()
    assert report.checked["instances"] == report.checked["machines"] == report.checked["ports"] == len(ids) + 1
    assert max(sizes) == PAGE
    held = [len(page.instances) for page in Survey(cloud.store, cloud.backend, page=PAGE).pages(())]
    assert (max(held), sum(held)) == (PAGE, len(ids) + 1)


@pytest.mark.parametrize("which", [0, PAGE - 1, PAGE, 5 * PAGE - 1])
def test_drifts_are_found_on_every_page_and_at_its_edges(cloud: Cloud, which: int) -> None:
    model = create(cloud, labels={"a": "b"})
    lost = multiply(cloud, model.id, 5 * PAGE)[which]
    driver = cloud.backend.compute[MachineKind(model.kind)]
    driver.remove_machine(lost)
    nic = f"nic-{which:08d}"
    cloud.backend.networks.remove_port(model.nics[0].subnet_id, nic)
    with world(cloud).write("test") as connection:  # what nobody knows, just behind it
        connection.execute("UPDATE machines SET machine_id = ? WHERE machine_id = ?", (f"{lost}x", model.id))
    cloud.store.write(lambda tx: tx.connection.execute(insert(LabelRow).values(resource_id=lost, key="c", value="d")))
    found = {(each.drift, each.resource.id) for each in doctor(cloud).check().findings}
    assert found == {
        (Drift.LOST_MACHINE, lost),
        (Drift.LOST_MACHINE, model.id),
        (Drift.LOST_PORT, nic),
        (Drift.LEAKED_MACHINE, f"{lost}x"),
        (Drift.LABEL_INDEX, lost),
    }


def test_what_a_look_holds_does_not_grow_with_the_cloud(cloud: Cloud) -> None:
    model = create(cloud, labels={"a": "b"})
    watching = doctor(cloud, page=50)

    def most_held_bytes() -> int:
        thresholds = gc.get_threshold()
        gc.set_threshold(200, 2, 2)  # what nobody holds any more, but for itself, goes soon and is not counted
        tracemalloc.start()
        try:
            assert watching.check().findings == ()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            gc.set_threshold(*thresholds)

    multiply(cloud, model.id, 100)
    most_held_bytes()  # fills the caches of statements
    few = most_held_bytes()
    multiply(cloud, model.id, 900, first=100)
    assert most_held_bytes() < 1.4 * few, "ten times as many"


def test_beyond_a_number_findings_are_counted_and_the_next_repair_goes_on(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findings_module, "MOST_FINDINGS", 10)
    model = create(cloud)
    ids = multiply(cloud, model.id, 24)
    with world(cloud).write("test") as connection:
        connection.execute("DELETE FROM machines")
    mending = doctor(cloud)
    report = mending.check()
    assert [each.resource.id for each in report.findings] == ids[:10]
    assert report.counts[Drift.LOST_MACHINE] == 25
    left = [mending.repair().counts[Drift.LOST_MACHINE] for _ in range(3)]
    assert left == [15, 5, 0]
    settle(cloud)
