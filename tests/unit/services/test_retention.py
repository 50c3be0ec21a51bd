from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from iaas.cloud import Cloud
from iaas.config import Ghosts
from iaas.db.repositories import instances, jobs, shared
from iaas.db.repositories.query import Listing
from iaas.drivers.interface import MachineKind, PermanentError
from iaas.kernel.clock import CloudClock
from iaas.kernel.errors import AlreadyExists, CloudError, InTransition, InUse, InvalidState, NotFound, OutOfCapacity
from iaas.kernel.labels import parse_selector
from iaas.resources.instances import Instance
from tests.factories import (
    START,
    assert_consistent,
    claims,
    create,
    instance_row,
    make_cloud,
    open_cloud,
    operator,
    principal_in,
    settle,
    used_capacity,
    wish,
    world,
)

TWO_HOURS = 7200.0


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with open_cloud(retention_s=TWO_HOURS) as opened:
        yield opened


def delete(cloud: Cloud, id_or_name: str, *, purge: bool = False) -> Instance:
    instance, _ = cloud.instances.delete(operator(cloud), id_or_name, purge=purge)
    settle(cloud)
    return instance_row(cloud, instance.id)


def recover(cloud: Cloud, instance_id: str, name: str | None = None) -> Instance:
    cloud.instances.recover(operator(cloud), instance_id, name=name)
    settle(cloud)
    return cloud.instances.get(operator(cloud), instance_id)


def power_of(cloud: Cloud, instance: Instance) -> str | None:
    state = cloud.backend.compute[MachineKind(instance.kind)].inspect_machine(instance.id)
    return None if state is None else state.power.value


def pass_time(cloud: Cloud, seconds: float) -> None:
    cloud.clock.advance(seconds)
    settle(cloud)


@pytest.mark.parametrize("kind", ["vm", "container"])
def test_a_deleted_instance_gives_back_all_but_its_disk(cloud: Cloud, kind: str) -> None:
    admin = operator(cloud)
    instance = create(cloud, kind=kind, name="web", labels={"a": "b"})
    gone = delete(cloud, "web")
    assert gone.status == "deleted"
    assert gone.purge_at is not None
    assert gone.deleted_at is not None
    assert (gone.purge_at - gone.deleted_at).total_seconds() == TWO_HOURS
    assert power_of(cloud, instance) == "stopped"
    assert used_capacity(cloud) == (0, 0, instance.root_disk_gib)
    assert not claims(cloud)
    assert_consistent(cloud)
    for wanted in ("web", instance.id):
        with pytest.raises(NotFound):
            cloud.instances.get(admin, wanted)
    assert cloud.instances.get(admin, instance.id, deleted=True) == gone
    create(cloud, name="web")


def test_recovered_it_is_what_it_was_and_stopped(cloud: Cloud) -> None:
    admin = operator(cloud)
    before = create(cloud, name="web", labels={"a": "b"})
    cloud.instances.execute(admin, "web", ["sh", "-c", "echo kept > /root/note"], timeout_s=5)
    delete(cloud, "web")
    after = recover(cloud, before.id)
    assert (after.status, after.transition) == ("stopped", None)
    assert (after.name, after.labels, after.host_id) == ("web", {"a": "b"}, before.host_id)
    again = {"created_at": after.nics[0].created_at, "updated_at": after.nics[0].updated_at}
    assert after.nics == tuple(replace(nic, **again) for nic in before.nics)
    assert (after.deleted_at, after.purge_at, after.purged_at, after.retained) == (None, None, None, None)
    assert_consistent(cloud)
    cloud.instances.start(admin, "web")
    settle(cloud)
    outcome = cloud.instances.execute(admin, "web", ["cat", "/root/note"], timeout_s=5)
    assert outcome.stdout == "kept\n"
    listed, _ = cloud.instances.list_page(admin, Listing(labels=parse_selector("a=b")))
    assert [each.id for each in listed] == [before.id]


def test_after_its_time_it_is_purged_and_then_forgotten(cloud: Cloud) -> None:
    admin = operator(cloud)
    instance = create(cloud)
    delete(cloud, instance.id)
    pass_time(cloud, TWO_HOURS - 60)
    assert power_of(cloud, instance) == "stopped"
    pass_time(cloud, 120)
    ghost = instance_row(cloud, instance.id)
    assert ghost.purged_at is not None
    assert (ghost.purge_at, ghost.host_id) == (None, None)
    assert power_of(cloud, instance) is None
    assert used_capacity(cloud) == (0, 0, 0)
    assert_consistent(cloud)
    with pytest.raises(InvalidState, match="any more"):
        cloud.instances.recover(admin, instance.id)
    with pytest.raises(NotFound):
        cloud.instances.delete(admin, instance.id, purge=True)
    pass_time(cloud, cloud.config.ghosts.age_s + 60)
    with cloud.store.read() as connection:
        assert instances.get(connection, instance.id, with_deleted=True) is None
        assert jobs.list_page(connection, Listing(), project_id=instance.project_id)[0] == []


def test_overdue_is_over_even_before_the_purge(cloud: Cloud) -> None:
    instance = create(cloud)
    delete(cloud, instance.id)
    cloud.clock.advance(TWO_HOURS)
    with pytest.raises(InvalidState, match="any more"):
        cloud.instances.recover(operator(cloud), instance.id)


@pytest.mark.parametrize("retention_s", [0.0, TWO_HOURS])
def test_a_purge_removes_at_once(retention_s: float) -> None:
    with open_cloud(retention_s=retention_s) as cloud:
        instance = create(cloud)
        gone = delete(cloud, instance.id, purge=True)
        assert gone.purged_at is not None
        assert power_of(cloud, instance) is None
        assert used_capacity(cloud) == (0, 0, 0)
        assert_consistent(cloud)


def test_without_retention_a_delete_is_for_good() -> None:
    with open_cloud() as cloud:
        instance = create(cloud)
        assert delete(cloud, instance.id).purged_at is not None
        with pytest.raises(InvalidState, match="any more"):
            cloud.instances.recover(operator(cloud), instance.id)


def test_a_retained_instance_can_be_purged_before_its_time(cloud: Cloud) -> None:
    instance = create(cloud, name="web")
    delete(cloud, "web")
    with pytest.raises(NotFound):
        cloud.instances.delete(operator(cloud), instance.id)
    assert delete(cloud, instance.id, purge=True).purged_at is not None
    assert used_capacity(cloud) == (0, 0, 0)


def test_a_failed_create_leaves_nothing_to_retain(cloud: Cloud) -> None:
    world(cloud).faults.fail_next("start_machine", PermanentError("it broke"))
    failed, _ = cloud.instances.create(operator(cloud), [wish(name="web")])[0]
    settle(cloud)
    assert instance_row(cloud, failed.id).status == "failed"
    assert used_capacity(cloud) == (0, 0, 0)
    assert not claims(cloud)
    assert delete(cloud, failed.id).purged_at is not None
    assert_consistent(cloud)


def test_a_name_taken_meanwhile_needs_another(cloud: Cloud) -> None:
    instance = create(cloud, name="web")
    delete(cloud, "web")
    create(cloud, name="web")
    with pytest.raises(AlreadyExists, match="another name"):
        cloud.instances.recover(operator(cloud), instance.id)
    assert recover(cloud, instance.id, name="old-web").name == "old-web"
    assert_consistent(cloud)


def test_an_address_taken_meanwhile_is_replaced(cloud: Cloud) -> None:
    instance = create(cloud)
    [nic] = instance.nics
    delete(cloud, instance.id)
    scope = f"address:{nic.subnet_id}"
    assert nic.address is not None
    assert cloud.store.write(
        lambda tx: shared.claim(tx, scope=scope, value=str(nic.address), resource_id="nic-other000")
    )
    after = recover(cloud, instance.id)
    assert after.address not in (None, nic.address)
    assert after.nics[0].mac == nic.mac


def test_a_mac_taken_meanwhile_is_replaced_in_the_machine_too(cloud: Cloud) -> None:
    instance = create(cloud)
    [nic] = instance.nics
    delete(cloud, instance.id)
    cloud.store.write(
        lambda tx: shared.claim(tx, scope=f"mac:{instance.zone}", value=nic.mac, resource_id="nic-other000")
    )
    after = recover(cloud, instance.id)
    assert after.nics[0].mac != nic.mac
    assert after.address == nic.address
    cloud.instances.start(operator(cloud), after.id)
    settle(cloud)
    shown = cloud.instances.execute(operator(cloud), after.id, ["ip", "link"], timeout_s=5).stdout
    assert after.nics[0].mac in shown
    assert nic.mac not in shown


def test_room_given_to_others_is_gone() -> None:
    with open_cloud(retention_s=TWO_HOURS, zones=("zone-1",), hosts_per_zone=1, vcpus=1) as cloud:
        first = create(cloud)
        delete(cloud, first.id)
        second = create(cloud)
        with pytest.raises(OutOfCapacity) as caught:
            cloud.instances.recover(operator(cloud), first.id)
        assert [part.code for part in caught.value.errors] == ["no_vcpus"]
        assert not [claim for claim in claims(cloud).elements() if claims(cloud)[claim] > 1]
        delete(cloud, second.id)
        recover(cloud, first.id)
        assert_consistent(cloud)


def test_its_disk_keeps_room_taken() -> None:
    with open_cloud(retention_s=TWO_HOURS, zones=("zone-1",), hosts_per_zone=1, disk_gib=1) as cloud:
        first = create(cloud)
        delete(cloud, first.id)
        with pytest.raises(OutOfCapacity) as caught:
            create(cloud)
        assert [part.code for part in caught.value.errors] == ["no_disk"]
        delete(cloud, first.id, purge=True)
        create(cloud)


def test_another_project_sees_no_deleted_instance(cloud: Cloud) -> None:
    instance = create(cloud)
    delete(cloud, instance.id)
    stranger, _ = principal_in(cloud, "others")
    with pytest.raises(NotFound):
        cloud.instances.get(stranger, instance.id, deleted=True)
    with pytest.raises(NotFound):
        cloud.instances.recover(stranger, instance.id)
    with pytest.raises(NotFound):
        cloud.instances.delete(stranger, instance.id, purge=True)


def test_a_living_instance_needs_no_recovery(cloud: Cloud) -> None:
    instance = create(cloud)
    with pytest.raises(InvalidState, match="not deleted"):
        cloud.instances.recover(operator(cloud), instance.id)
    with pytest.raises(NotFound):
        cloud.instances.recover(operator(cloud), "i-unknown0")


def test_a_project_with_retained_instances_is_not_empty(cloud: Cloud) -> None:
    member, _ = principal_in(cloud, "team")
    instance = create(cloud, member)
    cloud.instances.delete(member, instance.id)
    settle(cloud)
    with pytest.raises(InUse) as caught:
        cloud.identity.delete_project(operator(cloud), "team")
    assert [blocker.id for blocker in caught.value.blockers] == [instance.id]
    cloud.instances.delete(member, instance.id, purge=True)
    settle(cloud)
    cloud.identity.delete_project(operator(cloud), "team")


def test_on_a_host_that_is_down_nothing_is_recovered_or_purged(cloud: Cloud) -> None:
    admin = operator(cloud)
    instance = create(cloud)
    delete(cloud, instance.id)
    assert instance.host_id is not None
    cloud.catalog.update_host(admin, instance.host_id, status="down")
    for call in (cloud.instances.recover, lambda who, which: cloud.instances.delete(who, which, purge=True)):
        with pytest.raises(InvalidState) as caught:
            call(admin, instance.id)
        assert caught.value.code == "host_down"
    pass_time(cloud, TWO_HOURS + 60)
    assert instance_row(cloud, instance.id).purged_at is None
    cloud.catalog.update_host(admin, instance.host_id, status="up")
    pass_time(cloud, 60)
    assert instance_row(cloud, instance.id).purged_at is not None


def test_a_purge_that_failed_comes_round_again(cloud: Cloud) -> None:
    instance = create(cloud)
    delete(cloud, instance.id)
    world(cloud).faults.fail_next("remove_machine", PermanentError("it broke"))
    pass_time(cloud, TWO_HOURS + 60)
    assert instance_row(cloud, instance.id).purged_at is None
    with pytest.raises(InvalidState):
        cloud.instances.recover(operator(cloud), instance.id)
    pass_time(cloud, 400)
    assert instance_row(cloud, instance.id).purged_at is not None
    assert_consistent(cloud)


def test_recovery_and_purge_exclude_each_other(cloud: Cloud) -> None:
    instance = create(cloud)
    delete(cloud, instance.id)
    cloud.instances.recover(operator(cloud), instance.id)
    with pytest.raises(InTransition):
        cloud.instances.recover(operator(cloud), instance.id)
    with pytest.raises(InTransition):
        cloud.instances.delete(operator(cloud), instance.id, purge=True)
    settle(cloud)
    delete(cloud, instance.id)
    cloud.instances.delete(operator(cloud), instance.id, purge=True)
    with pytest.raises(InTransition):
        cloud.instances.recover(operator(cloud), instance.id)
    settle(cloud)
    assert_consistent(cloud)


def test_of_two_recoveries_under_one_name_one_wins(tmp_path: Path) -> None:
    with open_cloud(tmp_path, retention_s=TWO_HOURS) as cloud:
        ids = []
        for _ in range(6):
            ids.append(create(cloud, name="web").id)
            delete(cloud, "web")
        outcomes: list[str] = []

        def work(instance_id: str) -> None:
            try:
                cloud.instances.recover(operator(cloud), instance_id)
                outcomes.append("won")
            except CloudError as error:
                outcomes.append(error.code)

        threads = [threading.Thread(target=work, args=(each,)) for each in ids]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["name_taken"] * 5 + ["won"]
        settle(cloud)
        assert_consistent(cloud)


def test_what_is_over_its_time_is_purged_after_a_restart(tmp_path: Path) -> None:
    clock = CloudClock(start=START, scale=0)
    first = make_cloud(tmp_path, clock=clock, retention_s=TWO_HOURS)
    ids = [create(first).id for _ in range(3)]
    for each in ids:
        delete(first, each)
    first.close()
    clock.advance(TWO_HOURS)
    with open_cloud(tmp_path, clock=clock, seed=2) as second:
        pass_time(second, 60)
        assert all(instance_row(second, each).purged_at is not None for each in ids)
        assert_consistent(second)


def test_ghosts_are_bounded() -> None:
    with open_cloud(ghosts=Ghosts(count=3)) as cloud:
        ids = []
        for _ in range(5):
            ids.append(create(cloud).id)
            delete(cloud, ids[-1])
            cloud.clock.advance(1)
        pass_time(cloud, 60)
        with cloud.store.read() as connection:
            left = [each for each in ids if instances.get(connection, each, with_deleted=True) is not None]
        assert left == ids[2:]
