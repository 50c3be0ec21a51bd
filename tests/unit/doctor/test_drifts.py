"""Every drift is planted on a simulated cloud, found under its name, and repaired where that is safe."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import delete, insert, update

from iaas.cloud import Cloud
from iaas.db.models import AllocationRow, HostRow, InstanceRow, JobRow, LabelRow, NICRow, SubnetRow, VPCRow
from iaas.db.models.quotas import QuotaRow
from iaas.db.repositories import hosts, instances, shared
from iaas.doctor.findings import Drift
from iaas.drivers.interface import (
    BackendDownError,
    ImageSpec,
    MachineKind,
    MachineSpec,
    PortSpec,
    SubnetSpec,
    VPCSpec,
)
from iaas.kernel.errors import InTransition, InvalidState
from iaas.resources.instances import Instance, InstanceStatus
from tests.factories import assert_consistent, create, instance_row, open_cloud, operator, settle, wish, world

Plant = Callable[[Cloud, Instance], str]


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with open_cloud() as opened:
        yield opened


def driver_of(cloud: Cloud, instance: Instance):  # type: ignore[no-untyped-def]  # the protocol's name says no more
    return cloud.backend.compute[MachineKind(instance.kind)]


def execute(cloud: Cloud, statement: object) -> None:
    cloud.store.write(lambda tx: tx.connection.execute(statement))  # type: ignore[call-overload]  # any statement


# -- plants: each makes one drift and returns the id that the finding must name ------------------------------------


def lose_machine(cloud: Cloud, instance: Instance) -> str:
    driver_of(cloud, instance).remove_machine(instance.id)
    return instance.id


def lose_retained(cloud: Cloud, instance: Instance) -> str:
    retire(cloud, instance)
    return lose_machine(cloud, instance)


def retire(cloud: Cloud, instance: Instance) -> None:
    cloud.instances.retention_s = 7200
    cloud.instances.delete(operator(cloud), instance.id)
    settle(cloud)


def leak_machine(cloud: Cloud, instance: Instance) -> str:
    driver_of(cloud, instance).ensure_machine(
        MachineSpec(
            machine_id="i-stray000",
            kind=MachineKind(instance.kind),
            hostname="stray",
            vcpus=1,
            memory_mib=128,
            root_disk_gib=1,
            image_id=instance.image_id,
        )
    )
    return "i-stray000"


def leak_machine_of_a_failed_create(cloud: Cloud, instance: Instance) -> str:
    """The row is failed and holds nothing, so nothing may be there."""
    failed = create(cloud)
    cloud.instances.delete(operator(cloud), failed.id)
    settle(cloud)
    return leak_machine(cloud, instance)


def stop_behind(cloud: Cloud, instance: Instance) -> str:
    driver_of(cloud, instance).stop_machine(instance.id, force=True)
    cloud.clock.advance(60)
    return instance.id


def start_behind(cloud: Cloud, instance: Instance) -> str:
    cloud.instances.stop(operator(cloud), instance.id, force=True)
    settle(cloud)
    driver_of(cloud, instance).start_machine(instance.id)
    return instance.id


def shrink_behind(cloud: Cloud, instance: Instance) -> str:
    cloud.instances.stop(operator(cloud), instance.id, force=True)
    settle(cloud)
    driver_of(cloud, instance).resize_machine(instance.id, vcpus=7, memory_mib=64)
    return instance.id


def grow_running(cloud: Cloud, instance: Instance) -> str:
    """A shape that only a person can set right: the machine runs."""
    more = instance.memory_mib + 64
    execute(cloud, update(InstanceRow).where(InstanceRow.id == instance.id).values(memory_mib=more))
    execute(cloud, update(HostRow).where(HostRow.id == instance.host_id).values(memory_mib_used=more))
    execute(cloud, update(QuotaRow).where(QuotaRow.resource == "memory_mib").values(used=more))
    return instance.id


def other_disk(cloud: Cloud, instance: Instance) -> str:
    execute(cloud, update(InstanceRow).where(InstanceRow.id == instance.id).values(disk_generation=5))
    return instance.id


def nowhere(cloud: Cloud, instance: Instance) -> str:
    with world(cloud).write("test") as connection:
        connection.execute("UPDATE machines SET host_id = NULL")  # made by a version that did not note it
    execute(cloud, update(InstanceRow).where(InstanceRow.id == instance.id).values(host_id="host-gone"))
    execute(
        cloud,
        update(HostRow).where(HostRow.id == instance.host_id).values(vcpus_used=0, memory_mib_used=0, disk_gib_used=0),
    )
    return instance.id


def put_elsewhere(cloud: Cloud, instance: Instance) -> str:
    """The machine is on one host, the row and the books say another of the zone."""
    with cloud.store.read() as connection:
        other = next(each for each in hosts.in_zone(connection, instance.zone) if each.id != instance.host_id)
    used = ("vcpus_used", "memory_mib_used", "disk_gib_used")
    held = (instance.vcpus, instance.memory_mib, instance.root_disk_gib)
    for host_id, amounts in ((instance.host_id, (0, 0, 0)), (other.id, held)):
        execute(cloud, update(HostRow).where(HostRow.id == host_id).values(dict(zip(used, amounts, strict=True))))
    execute(cloud, update(InstanceRow).where(InstanceRow.id == instance.id).values(host_id=other.id))
    return instance.id


def put_into_another_zone(cloud: Cloud, instance: Instance) -> str:
    """Of zones a person has to decide: addresses and volumes are of one."""
    with cloud.store.read() as connection:
        other = next(each for each in hosts.in_zone(connection, "zone-2"))
    with world(cloud).write("test") as connection:
        connection.execute("UPDATE machines SET host_id = ?", (other.id,))
    return instance.id


def leak_network(cloud: Cloud, instance: Instance) -> str:
    cloud.backend.networks.ensure_subnet(SubnetSpec(subnet_id="net-stray000"))
    return "net-stray000"


def leak_vpc(cloud: Cloud, instance: Instance) -> str:
    cloud.backend.networks.ensure_vpc(VPCSpec(vpc_id="vpc-stray000", cidr="10.9.0.0/16"))
    return "vpc-stray000"


def lose_port(cloud: Cloud, instance: Instance) -> str:
    nic = instance.nics[0]
    cloud.backend.networks.remove_port(nic.subnet_id, nic.id)
    return nic.id


def leak_port(cloud: Cloud, instance: Instance) -> str:
    nic = instance.nics[0]
    cloud.backend.networks.ensure_port(
        PortSpec(
            nic_id="nic-stray000",
            subnet_id=nic.subnet_id,
            mac="52:54:00:99:99:99",
            owner=nic.project_id,
            addresses=(nic.address.rpartition(".")[0] + ".250",),  # type: ignore[union-attr]  # it has one
            names=("stray",),
        )
    )
    return "nic-stray000"


def leak_image(cloud: Cloud, instance: Instance) -> str:
    spec = ImageSpec(image_id="img-stray000", source="builtin:tiny", kinds=frozenset(MachineKind))
    cloud.backend.images.ensure_image(spec, kind=MachineKind.VM, progress=lambda text: None)
    return "img-stray000"


def miscount(cloud: Cloud, instance: Instance) -> str:
    execute(cloud, update(HostRow).where(HostRow.id == instance.host_id).values(vcpus_used=17, disk_gib_used=0))
    return str(instance.host_id)


def miscount_quota(cloud: Cloud, instance: Instance) -> str:
    mine = (QuotaRow.project_id == instance.project_id, QuotaRow.resource == "vcpus")
    execute(cloud, update(QuotaRow).where(*mine).values(used=99))
    return instance.project_id


def misindex(cloud: Cloud, instance: Instance) -> str:
    cloud.store.write(lambda tx: shared.set_labels(tx, instance.id, {"not": "there"}))
    return instance.id


def index_of_nothing(cloud: Cloud, instance: Instance) -> str:
    execute(cloud, insert(LabelRow).values(resource_id="i-gone0000", key="a", value="b"))
    return "i-gone0000"


def orphan_a_claim(cloud: Cloud, instance: Instance) -> str:
    row = {"scope": "name:instance:proj-x", "value": "ghost", "resource_id": "i-gone0000"}
    execute(cloud, insert(AllocationRow).values(row))
    return "i-gone0000"


def lose_claims(cloud: Cloud, instance: Instance) -> str:
    execute(cloud, delete(AllocationRow).where(AllocationRow.resource_id == instance.nics[0].id))
    return instance.nics[0].id


def forget_job(cloud: Cloud, instance: Instance) -> str:
    job = cloud.instances.stop(operator(cloud), instance.id, force=True)[1]
    cloud.executor._agenda.take(cloud.clock.now())  # what a fault in the executor would do
    return job.id


def strand(cloud: Cloud, instance: Instance) -> str:
    job = cloud.instances.stop(operator(cloud), instance.id, force=True)[1]
    cloud.executor._agenda.take(cloud.clock.now())
    execute(cloud, delete(JobRow).where(JobRow.id == job.id))
    return instance.id


def strand_nic(cloud: Cloud, instance: Instance) -> str:
    """The machine has it: it comes to rest in its instance."""
    nic = instance.nics[0]
    execute(cloud, update(NICRow).where(NICRow.id == nic.id).values(transition="detaching"))
    return nic.id


def strand_vpc(cloud: Cloud, instance: Instance) -> str:
    vpc = cloud.vpcs.create(operator(cloud), cidr="10.8.0.0/16")[0]
    settle(cloud)
    execute(cloud, update(VPCRow).where(VPCRow.id == vpc.id).values(transition="deleting"))
    return vpc.id


def strand_subnet(cloud: Cloud, instance: Instance) -> str:
    subnet = cloud.subnets.create(operator(cloud))[0]
    settle(cloud)
    execute(cloud, update(SubnetRow).where(SubnetRow.id == subnet.id).values(transition="updating"))
    return subnet.id


def lose_gateway(cloud: Cloud, instance: Instance) -> str:
    subnet_id = instance.nics[0].subnet_id
    execute(cloud, delete(AllocationRow).where(AllocationRow.resource_id == subnet_id))
    return subnet_id


REPAIRED: list[tuple[Plant, Drift]] = [
    (lose_machine, Drift.LOST_MACHINE),
    (lose_retained, Drift.LOST_RETAINED),
    (leak_machine, Drift.LEAKED_MACHINE),
    (leak_machine_of_a_failed_create, Drift.LEAKED_MACHINE),
    (stop_behind, Drift.WRONG_STATE),
    (start_behind, Drift.WRONG_STATE),
    (shrink_behind, Drift.WRONG_SHAPE),
    (put_elsewhere, Drift.WRONG_PLACEMENT),
    (leak_network, Drift.LEAKED_NETWORK),
    (leak_vpc, Drift.LEAKED_NETWORK),
    (lose_port, Drift.LOST_PORT),
    (leak_port, Drift.LEAKED_PORT),
    (leak_image, Drift.LEAKED_IMAGE),
    (miscount, Drift.HOST_COUNTERS),
    (miscount_quota, Drift.QUOTA_COUNTERS),
    (misindex, Drift.LABEL_INDEX),
    (index_of_nothing, Drift.LABEL_INDEX),
    (orphan_a_claim, Drift.ORPHAN_CLAIM),
    (lose_claims, Drift.LOST_CLAIM),
    (forget_job, Drift.STUCK_JOB),
    (strand, Drift.STRANDED_TRANSITION),
    (strand_nic, Drift.STRANDED_TRANSITION),
    (strand_subnet, Drift.STRANDED_TRANSITION),
    (strand_vpc, Drift.STRANDED_TRANSITION),
    (lose_gateway, Drift.LOST_CLAIM),
]
REPORTED: list[tuple[Plant, Drift]] = [
    (grow_running, Drift.WRONG_SHAPE),
    (other_disk, Drift.WRONG_GENERATION),
    (nowhere, Drift.WRONG_PLACEMENT),
    (put_into_another_zone, Drift.WRONG_PLACEMENT),
]


def test_every_drift_is_planted_here_or_below() -> None:
    planted = {drift for _, drift in REPAIRED + REPORTED}
    elsewhere = {Drift.LOST_NETWORK, Drift.RETAINED_RUNS}
    assert planted | elsewhere == set(Drift)


@pytest.mark.parametrize(("plant", "drift"), REPAIRED, ids=lambda value: getattr(value, "__name__", None))
@pytest.mark.parametrize("kind", ["vm", "container"])
def test_a_drift_is_found_and_repaired(cloud: Cloud, plant: Plant, drift: Drift, kind: str) -> None:
    instance = create(cloud, kind=kind, labels={"a": "b"}, name="web")
    assert cloud.doctor.check().findings == ()
    wanted = plant(cloud, instance)
    found = cloud.doctor.check().findings
    assert {(each.drift, each.resource.id) for each in found} == {(drift, wanted)}
    assert all(each.repair and each.message for each in found)
    report = cloud.doctor.repair()
    assert {(each.drift, each.resource.id) for each in report.repaired} == {(drift, wanted)}
    assert report.failed == {}
    settle(cloud)
    assert cloud.doctor.check().findings == ()
    assert_consistent(cloud)


@pytest.mark.parametrize(("plant", "drift"), REPORTED, ids=lambda value: getattr(value, "__name__", None))
def test_what_only_a_person_can_decide_is_reported_and_left(cloud: Cloud, plant: Plant, drift: Drift) -> None:
    instance = create(cloud)
    wanted = plant(cloud, instance)
    before = instance_row(cloud, instance.id)
    report = cloud.doctor.repair()
    assert {(each.drift, each.resource.id, each.repair) for each in report.findings} == {(drift, wanted, None)}
    assert report.repaired == ()
    assert instance_row(cloud, instance.id) == before


def test_a_lost_network_is_made_again_with_its_ports(cloud: Cloud) -> None:
    instance = create(cloud)
    cloud.backend.networks.remove_subnet(instance.nics[0].subnet_id)
    cloud.backend.networks.remove_vpc(str(instance.nics[0].vpc_id))
    found = {(each.drift, each.resource.type) for each in cloud.doctor.check().findings}
    assert found == {(Drift.LOST_NETWORK, "subnet"), (Drift.LOST_NETWORK, "vpc")}
    cloud.doctor.repair()
    assert {each.drift for each in cloud.doctor.check().findings} == {Drift.LOST_PORT}
    assert cloud.doctor.repair().findings == ()
    assert_consistent(cloud)


def test_an_instance_whose_machine_is_lost_says_so_and_can_be_deleted(cloud: Cloud) -> None:
    instance = create(cloud)
    lose_machine(cloud, instance)
    cloud.doctor.repair()
    failed = instance_row(cloud, instance.id)
    assert failed.status == InstanceStatus.FAILED
    assert failed.failure is not None
    assert failed.failure.code == "machine_lost"
    told = [event for event in cloud.events.list_after(operator(cloud), after=0, limit=100) if event.generation]
    assert (told[-1].type, told[-1].generation) == ("instance.lost", failed.generation)
    cloud.instances.delete(operator(cloud), instance.id)
    settle(cloud)
    assert_consistent(cloud)


def test_a_deleted_instance_whose_machine_is_lost_is_purged_and_not_recovered(cloud: Cloud) -> None:
    instance = create(cloud)
    lose_retained(cloud, instance)
    cloud.doctor.repair()
    with pytest.raises(InvalidState):
        cloud.instances.recover(operator(cloud), instance.id)
    cloud.instances.delete(operator(cloud), instance.id, purge=True)
    settle(cloud)
    assert instance_row(cloud, instance.id).purged_at is not None
    assert cloud.doctor.check().findings == ()
    assert_consistent(cloud)


def test_a_deleted_instance_that_runs_is_stopped_and_can_be_recovered(cloud: Cloud) -> None:
    instance = create(cloud)
    retire(cloud, instance)
    driver_of(cloud, instance).start_machine(instance.id)
    assert [each.drift for each in cloud.doctor.check().findings] == [Drift.RETAINED_RUNS]
    assert [each.drift for each in cloud.doctor.repair().repaired] == [Drift.RETAINED_RUNS]
    cloud.clock.advance(60)  # a cut of the power takes a moment in the simulation
    assert cloud.doctor.check().findings == ()
    assert_consistent(cloud)
    cloud.instances.recover(operator(cloud), instance.id)
    settle(cloud)
    assert instance_row(cloud, instance.id).status == InstanceStatus.STOPPED


def test_what_is_in_transition_is_left_alone(cloud: Cloud) -> None:
    """In the middle of a create and of a delete there is a machine too many, or too few; that is no drift."""
    who = operator(cloud)
    accepted = cloud.instances.create(who, [wish()])[0][0]
    for _ in range(40):
        assert cloud.doctor.repair().findings == ()
        cloud.executor.run_due()
        cloud.clock.advance(0.1)
    settle(cloud)
    cloud.instances.delete(who, accepted.id)
    assert cloud.doctor.repair().findings == ()
    settle(cloud)
    assert cloud.doctor.repair().findings == ()


def test_what_is_there_at_one_look_only_is_not_repaired(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    instance = create(cloud)
    driver = driver_of(cloud, instance)
    real, looks = type(driver).inventory, iter([1])  # the first question of a look is for the machines of rows
    monkeypatch.setattr(type(driver), "inventory", lambda self, **part: [] if next(looks, None) else real(self, **part))
    report = cloud.doctor.repair()
    assert report.repaired == ()
    assert instance_row(cloud, instance.id).status == InstanceStatus.RUNNING


def test_a_backend_that_does_not_answer_is_named_and_nothing_is_concluded(cloud: Cloud) -> None:
    create(cloud, kind="vm")
    world(cloud).faults.fail_next("inventory", BackendDownError("the daemon is down"), count=20)
    report = cloud.doctor.repair()
    assert report.findings == ()
    assert report.unchecked.keys() == {"vm", "container", "images"} or report.unchecked.keys() == {"vm", "container"}
    world(cloud).faults.clear()
    assert cloud.doctor.check().unchecked == {}


def test_a_repair_that_fails_is_told_and_the_others_go_on(cloud: Cloud) -> None:
    instance = create(cloud)
    leak_machine(cloud, instance)
    leak_port(cloud, instance)
    world(cloud).faults.fail_next("remove_machine", BackendDownError("not now"))
    report = cloud.doctor.repair()
    assert [each.drift for each in report.repaired] == [Drift.LEAKED_PORT]
    [left] = report.findings
    assert report.failed == {left.key: "not now"}
    assert cloud.doctor.repair().findings == ()


def test_one_look_at_a_time(cloud: Cloud) -> None:
    with cloud.doctor._alone(), pytest.raises(InTransition):
        cloud.doctor.check()


def test_new_findings_are_events_once_and_a_number_in_the_metrics(cloud: Cloud) -> None:
    instance = create(cloud)
    leak_machine(cloud, instance)

    def told() -> list[tuple[str, str]]:
        found = cloud.events.list_after(operator(cloud), after=0, limit=1000)
        return [(event.type, event.data["drift"]) for event in found if event.type.startswith("doctor.")]

    cloud.doctor.check()
    cloud.doctor.check()
    assert told() == [("doctor.drift_found", "leaked_machine")]
    assert b'iaas_doctor_findings{drift="leaked_machine"} 1.0' in cloud.metrics.text()
    cloud.doctor.repair()
    assert told()[1:] == [("doctor.drift_repaired", "leaked_machine")]
    assert b'iaas_doctor_findings{drift="leaked_machine"} 0.0' in cloud.metrics.text()
    assert b'iaas_doctor_repairs_total{drift="leaked_machine"} 1.0' in cloud.metrics.text()


def test_a_row_that_moved_on_since_is_not_touched(cloud: Cloud) -> None:
    instance = create(cloud)
    stop_behind(cloud, instance)
    [finding] = cloud.doctor.check().findings
    cloud.store.write(lambda tx: instances.change(tx, instance.id, name="renamed"))
    repaired, failed = cloud.doctor._mend([finding])
    assert (repaired, failed) == ([], {})
    assert instance_row(cloud, instance.id).status == InstanceStatus.RUNNING
