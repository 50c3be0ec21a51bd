from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest

from iaas.cloud import Cloud
from iaas.db.repositories import catalog
from iaas.drivers.interface import HostReport
from iaas.kernel.errors import InvalidInput, InvalidState, OutOfCapacity, PermissionDenied
from iaas.resources.catalog import Host
from iaas.resources.common import Principal
from iaas.resources.instances import Instance, PlacementRule, PlacementWish
from iaas.resources.jobs import EventFilter
from tests.factories import assert_consistent, create, make_cloud, open_cloud, operator, principal_in, settle, wish


def host(name: str, vcpus: int = 8, memory_mib: int = 1024, disk_gib: int = 100, **more: float) -> HostReport:
    return HostReport(name=name, zone="zone-1", vcpus=vcpus, memory_mib=memory_mib, disk_gib=disk_gib, **more)


def cloud_of(*hosts: HostReport, folder: Path | None = None, seed: int = 1) -> Cloud:
    return make_cloud(folder, zones=("zone-1",), hosts=hosts, seed=seed)


def hosts_of(cloud: Cloud) -> dict[str, Host]:
    with cloud.store.read() as connection:
        return {found.name: found for found in catalog.all_hosts(connection)}


def where(cloud: Cloud, instance: Instance) -> str:
    return next(name for name, found in hosts_of(cloud).items() if found.id == instance.host_id)


def accept(cloud: Cloud, principal: Principal | None = None, **changes: object) -> Instance:
    return cloud.instances.create(principal or operator(cloud), [wish(**changes)])[0][0]


def refused(cloud: Cloud, **changes: object) -> dict[str, list[str]]:
    """Return the codes by host of a create that finds no place."""
    with pytest.raises(OutOfCapacity) as caught:
        accept(cloud, **changes)
    found: dict[str, list[str]] = {}
    for part in caught.value.operator_errors:
        found.setdefault(part.field.removeprefix("hosts."), []).append(part.code)
        assert part.message
    return found


def apart(selector: str, *, strict: bool = True) -> PlacementWish:
    return PlacementWish(anti_affinity=PlacementRule(label_selector=selector, strict=strict))


def together(selector: str, *, strict: bool = True) -> PlacementWish:
    return PlacementWish(affinity=PlacementRule(label_selector=selector, strict=strict))


def test_machines_are_spread_by_the_share_of_memory_in_use() -> None:
    cloud = cloud_of(host("small", memory_mib=256), host("large", memory_mib=1024))
    placed = [where(cloud, accept(cloud)) for _ in range(5)]
    assert Counter(placed) == {"small": 1, "large": 4}
    cloud.close()


def test_equal_memory_is_decided_by_vcpus() -> None:
    cloud = cloud_of(host("one", vcpus=4), host("two", vcpus=8))
    ids = {name: found.id for name, found in hosts_of(cloud).items()}
    for host_id in ids.values():
        cloud.store.write(lambda tx, host_id=host_id: catalog.reserve(tx, host_id, vcpus=2, memory_mib=0, disk_gib=0))
    assert where(cloud, accept(cloud)) == "two"
    cloud.close()


def test_over_commit_multiplies_what_a_host_gives_out() -> None:
    cloud = cloud_of(host("one", vcpus=1, vcpu_overcommit=2.5, memory_overcommit=1.5, disk_overcommit=0.5))
    found = hosts_of(cloud)["one"]
    assert (found.vcpus, found.memory_mib, found.disk_gib) == (2, 1536, 50)
    accept(cloud)
    accept(cloud)
    assert refused(cloud) == {"one": ["no_vcpus"]}
    cloud.close()


def test_the_reasons_are_told_host_by_host() -> None:
    cloud = cloud_of(
        host("cores", vcpus=1),
        host("memory", memory_mib=100),
        host("disk", disk_gib=1),
        host("tired"),
        host("broken"),
    )
    admin = operator(cloud)
    cloud.catalog.update_host(admin, "tired", status="draining")
    cloud.catalog.update_host(admin, "broken", status="down")
    assert refused(cloud, flavor=None, vcpus=2, memory_mib=128, root_disk_gib=2) == {
        "cores": ["no_vcpus"],
        "memory": ["no_memory"],
        "disk": ["no_disk"],
        "tired": ["draining"],
        "broken": ["down"],
    }
    cloud.close()


def test_in_a_batch_the_reasons_name_the_wish() -> None:
    cloud = cloud_of(host("one", vcpus=1))
    with pytest.raises(OutOfCapacity) as caught:
        cloud.instances.create(operator(cloud), [wish(), wish()], is_batch=True)
    assert [part.field for part in caught.value.operator_errors] == ["instances.1.hosts.one"]
    assert hosts_of(cloud)["one"].vcpus_used == 0
    cloud.close()


def test_strict_anti_affinity_keeps_apart() -> None:
    cloud = cloud_of(host("one"), host("two"))
    placed = {
        where(cloud, accept(cloud, labels={"app": "db"}, placement=apart("app=db"))),
        where(cloud, accept(cloud, labels={"app": "db"}, placement=apart("app=db"))),
    }
    assert placed == {"one", "two"}
    assert refused(cloud, labels={"app": "db"}, placement=apart("app=db")) == {
        "one": ["anti_affinity"],
        "two": ["anti_affinity"],
    }
    settle(cloud)
    assert_consistent(cloud)
    cloud.close()


def test_within_one_batch_too() -> None:
    cloud = cloud_of(host("one"), host("two"), host("three"))
    wishes = [wish(labels={"app": "db"}, placement=apart("app=db")) for _ in range(3)]
    accepted = cloud.instances.create(operator(cloud), wishes, is_batch=True)
    assert {where(cloud, instance) for instance, _ in accepted} == {"one", "two", "three"}
    cloud.close()


def test_a_wish_to_be_apart_yields_to_room_and_prefers_the_fewest() -> None:
    cloud = cloud_of(host("one", memory_mib=1024), host("two", memory_mib=100_000))
    placed = [
        where(cloud, accept(cloud, labels={"app": "db"}, placement=apart("app=db", strict=False))) for _ in range(4)
    ]
    assert Counter(placed) == {"one": 2, "two": 2}
    cloud.close()


def test_strict_affinity_keeps_together_and_its_first_goes_anywhere() -> None:
    cloud = cloud_of(host("one", vcpus=2), host("two", vcpus=2))
    first = where(cloud, accept(cloud, labels={"app": "web"}, placement=together("app=web")))
    assert where(cloud, accept(cloud, labels={"app": "web"}, placement=together("app=web"))) == first
    other = "two" if first == "one" else "one"
    assert refused(cloud, labels={"app": "web"}, placement=together("app=web")) == {
        first: ["no_vcpus"],
        other: ["affinity"],
    }
    assert where(cloud, accept(cloud, labels={"app": "web"}, placement=together("app=web", strict=False))) == other
    cloud.close()


def test_affinity_with_nobody_there_is_refused_unless_one_is_of_the_group() -> None:
    cloud = cloud_of(host("one"))
    assert refused(cloud, placement=together("app=web")) == {"one": ["affinity"]}
    assert refused(cloud, labels={"app": "db"}, placement=together("app=web")) == {"one": ["affinity"]}
    cloud.close()


def test_rules_may_name_instances_by_id_and_name() -> None:
    cloud = cloud_of(host("one"), host("two"))
    first = accept(cloud, name="first")
    near = PlacementWish(affinity=PlacementRule(instances=("first",)))
    far = PlacementWish(anti_affinity=PlacementRule(instances=(first.id,)))
    near_one, far_one = accept(cloud, placement=near), accept(cloud, placement=far)
    assert where(cloud, near_one) == where(cloud, first) != where(cloud, far_one)
    assert far_one.placement == {
        "anti_affinity": {"instances": [first.id], "label_selector": None, "strict": True},
    }
    cloud.close()


def test_another_projects_instances_are_not_seen() -> None:
    cloud = cloud_of(host("one"))
    stranger, _ = principal_in(cloud, "others")
    accept(cloud, name="ours", labels={"app": "db"})
    accept(cloud, stranger, labels={"app": "db"}, placement=apart("app=db"))
    with pytest.raises(InvalidInput, match="no instance ours"):
        accept(cloud, stranger, placement=PlacementWish(affinity=PlacementRule(instances=("ours",))))
    cloud.close()


@pytest.mark.parametrize(
    ("placement", "field"),
    [
        (PlacementWish(affinity=PlacementRule()), "placement.affinity"),
        (PlacementWish(affinity=PlacementRule(instances=("a",), label_selector="b")), "placement.affinity"),
        (PlacementWish(anti_affinity=PlacementRule(instances=("none",))), "placement.anti_affinity.instances.0"),
        (PlacementWish(anti_affinity=PlacementRule(label_selector="a=(")), "placement.anti_affinity.label_selector"),
        (PlacementWish(anti_affinity=PlacementRule(label_selector=" ")), "placement.anti_affinity.label_selector"),
        (PlacementWish(host="none"), "placement.host"),
    ],
)
def test_rules_that_make_no_sense(placement: PlacementWish, field: str) -> None:
    with open_cloud() as cloud:
        with pytest.raises(InvalidInput) as caught:
            accept(cloud, placement=placement)
        assert [part.field for part in caught.value.errors] == [field]


def test_admins_choose_a_host_and_with_it_the_zone() -> None:
    with open_cloud() as cloud:
        chosen = accept(cloud, placement=PlacementWish(host="sim-zone-2-1"))
        assert (where(cloud, chosen), chosen.zone) == ("sim-zone-2-1", "zone-2")
        with pytest.raises(InvalidInput, match="zone-2"):
            accept(cloud, zone="zone-1", placement=PlacementWish(host="sim-zone-2-1"))
        member, _ = principal_in(cloud, "team")
        with pytest.raises(PermissionDenied):
            accept(cloud, member, placement=PlacementWish(host="sim-zone-2-1"))
        cloud.catalog.update_host(operator(cloud), "sim-zone-2-1", status="draining")
        assert refused(cloud, placement=PlacementWish(host="sim-zone-2-1")) == {"sim-zone-2-1": ["draining"]}


def test_a_draining_host_keeps_its_machines_and_they_can_be_worked_with() -> None:
    cloud = cloud_of(host("one"))
    admin = operator(cloud)
    instance = create(cloud, name="web")
    cloud.catalog.update_host(admin, "one", status="draining")
    assert refused(cloud) == {"one": ["draining"]}
    cloud.instances.stop(admin, "web")
    settle(cloud)
    cloud.instances.resize(admin, "web", vcpus=2, memory_mib=128)
    settle(cloud)
    cloud.instances.start(admin, "web")
    settle(cloud)
    assert cloud.instances.get(admin, instance.id).status == "running"
    cloud.catalog.update_host(admin, "one", status="up")
    accept(cloud)
    cloud.close()


def test_on_a_host_that_is_down_nothing_is_begun_and_reading_goes_on() -> None:
    cloud = cloud_of(host("one"))
    admin = operator(cloud)
    create(cloud, name="on")
    create(cloud, name="off")
    cloud.instances.stop(admin, "off")
    settle(cloud)
    cloud.catalog.update_host(admin, "one", status="down")
    calls = [
        lambda: cloud.instances.start(admin, "off"),
        lambda: cloud.instances.stop(admin, "on"),
        lambda: cloud.instances.restart(admin, "on"),
        lambda: cloud.instances.resize(admin, "off", vcpus=1, memory_mib=64),
        lambda: cloud.instances.rebuild(admin, "off"),
        lambda: cloud.instances.delete(admin, "on"),
        lambda: cloud.instances.execute(admin, "on", ["id"], timeout_s=1),
        lambda: cloud.instances.console(admin, "on", tail_bytes=10),
    ]
    for call in calls:
        with pytest.raises(InvalidState) as caught:
            call()
        assert caught.value.code == "host_down"
    assert cloud.instances.get(admin, "on").status == "running"
    assert cloud.instances.get(admin, "off").status == "stopped"
    assert cloud.instances.update(admin, "on", labels={"a": "b"}).labels == {"a": "b"}
    cloud.catalog.update_host(admin, "one", status="up")
    cloud.instances.start(admin, "off")
    settle(cloud)
    assert_consistent(cloud)
    cloud.close()


def test_an_admins_word_on_a_host_outlives_a_restart(tmp_path: Path) -> None:
    first = cloud_of(host("one"), host("two"), folder=tmp_path)
    first.catalog.update_host(operator(first), "one", status="draining")
    first.close()
    second = cloud_of(host("two", vcpus=99), folder=tmp_path, seed=2)
    assert {name: found.status for name, found in hosts_of(second).items()} == {"one": "down", "two": "up"}
    assert hosts_of(second)["two"].vcpus == 99
    with pytest.raises(InvalidState, match="not reported"):
        second.catalog.update_host(operator(second), "one", status="up")
    second.close()
    third = cloud_of(host("one"), host("two"), folder=tmp_path, seed=3)
    assert hosts_of(third)["one"].status == "draining"
    changes = [
        (event.type, event.data["was"], event.data["reason"])
        for event in third.events.list_after(operator(third), after=0, limit=100, only=EventFilter(type_prefix="host."))
    ]
    assert changes[-2:] == [("host.down", "draining", "not_reported"), ("host.draining", "down", "reported")]
    third.close()


def test_resize_takes_what_the_host_has_and_tells_what_it_lacks() -> None:
    cloud = cloud_of(host("one", vcpus=3, memory_mib=512))
    admin = operator(cloud)
    create(cloud, name="web")
    cloud.instances.stop(admin, "web")
    settle(cloud)
    with pytest.raises(OutOfCapacity) as caught:
        cloud.instances.resize(admin, "web", vcpus=4, memory_mib=1024)
    assert [(part.field, part.code) for part in caught.value.operator_errors] == [
        ("hosts.one", "no_memory"),
        ("hosts.one", "no_vcpus"),
    ]
    cloud.instances.resize(admin, "web", vcpus=3, memory_mib=64)
    settle(cloud)
    assert (hosts_of(cloud)["one"].vcpus_used, hosts_of(cloud)["one"].memory_mib_used) == (3, 64)
    cloud.close()


def test_a_host_that_became_smaller_gives_back_but_takes_no_more(tmp_path: Path) -> None:
    first = cloud_of(host("one", vcpus=4), folder=tmp_path)
    for name in ("a", "b", "c"):
        create(first, name=name)
    first.close()
    second = cloud_of(host("one", vcpus=2), folder=tmp_path, seed=2)
    assert refused(second) == {"one": ["no_vcpus"]}
    second.instances.delete(operator(second), "a")
    settle(second)
    assert hosts_of(second)["one"].vcpus_used == 2
    second.close()


def test_parallel_creates_never_take_more_than_there_is(tmp_path: Path) -> None:
    cloud = cloud_of(host("one", vcpus=10), host("two", vcpus=7), folder=tmp_path)
    placed: list[str] = []
    refusals: list[str] = []

    def work(number: int) -> None:
        admin = operator(cloud)
        for _ in range(5):
            try:
                [(instance, _)] = cloud.instances.create(admin, [wish()])
                placed.append(instance.id)
            except OutOfCapacity:
                refusals.append(str(number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = hosts_of(cloud)
    assert (found["one"].memory_mib_used, found["two"].vcpus_used) == (1024, 7), "the first has no memory for more"
    assert (len(placed), len(refusals)) == (15, 25)
    settle(cloud)
    assert_consistent(cloud)
    admin = operator(cloud)
    threads = [threading.Thread(target=cloud.instances.delete, args=(admin, each)) for each in placed]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    settle(cloud)
    assert {(each.vcpus_used, each.memory_mib_used, each.disk_gib_used) for each in hosts_of(cloud).values()} == {
        (0, 0, 0)
    }
    cloud.close()


def test_parallel_creates_that_must_be_apart_are(tmp_path: Path) -> None:
    cloud = cloud_of(*(host(f"host-{number}") for number in range(4)), folder=tmp_path)
    placed: list[str | None] = []

    def work() -> None:
        try:
            placed.append(accept(cloud, labels={"app": "db"}, placement=apart("app=db")).host_id)
        except OutOfCapacity:
            placed.append(None)

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(placed) == {**dict.fromkeys((found.id for found in hosts_of(cloud).values()), 1), None: 8}
    cloud.close()
