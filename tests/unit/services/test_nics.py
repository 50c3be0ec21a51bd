"""NICs: made, changed, attached and detached, at the level of the service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from iaas.cloud import Cloud
from iaas.drivers.interface import MachineKind, PermanentError
from iaas.kernel.errors import (
    AlreadyExists,
    CloudError,
    InTransition,
    InUse,
    InvalidInput,
    InvalidState,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    QuotaExceeded,
)
from iaas.resources.common import Role
from iaas.resources.instances import Instance
from iaas.resources.jobs import EventFilter, JobStatus
from iaas.resources.networks import NIC, NewNIC, Pair
from tests.factories import assert_consistent, create, job_of, open_cloud, operator, principal_in, settle, wish, world


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with open_cloud() as opened:
        yield opened
        settle(opened)
        assert_consistent(opened)


def make(cloud: Cloud, **wanted: Any) -> NIC:
    return cloud.nics.create(operator(cloud), NewNIC(**{"subnet": "basic", **wanted}))


def attach(cloud: Cloud, nic: str, instance: str) -> NIC:
    _, job = cloud.nics.attach(operator(cloud), nic, instance=instance)
    settle(cloud)
    assert job_of(cloud, job.id).status == JobStatus.SUCCEEDED, job_of(cloud, job.id).error
    return cloud.nics.get(operator(cloud), nic)


def detach(cloud: Cloud, nic: str) -> NIC:
    _, job = cloud.nics.detach(operator(cloud), nic)
    settle(cloud)
    assert job_of(cloud, job.id).status == JobStatus.SUCCEEDED, job_of(cloud, job.id).error
    return cloud.nics.get(operator(cloud), nic)


def field_of(refused: pytest.ExceptionInfo[CloudError]) -> tuple[str, str]:
    [error] = refused.value.errors
    return error.field, error.code


def test_a_nic_has_an_address_of_its_subnet_and_a_mac(cloud: Cloud) -> None:
    nic = make(cloud, name="spare")
    assert (nic.name, nic.status, nic.transition, nic.instance_id) == ("spare", "available", None, None)
    assert nic.address is not None
    assert nic.address.startswith("10.64.")
    assert nic.mac.startswith("52:54:")
    assert cloud.nics.get(operator(cloud), "spare") == cloud.nics.get(operator(cloud), nic.mac.upper()) == nic


@pytest.mark.parametrize("kind", ["vm", "container"])
@pytest.mark.parametrize("state", ["running", "stopped"])
def test_a_nic_moves_from_one_instance_to_another_with_address_and_mac(cloud: Cloud, kind: str, state: str) -> None:
    first, second = create(cloud, name="first", kind=kind), create(cloud, name="second")
    if state == "stopped":
        cloud.instances.stop(operator(cloud), "first", force=True)
        settle(cloud)
    nic = make(cloud, name="moves", address="10.64.7.7", mac="52:54:00:aa:bb:cc")
    there = attach(cloud, "moves", "first")
    assert (there.status, there.instance_id, there.device_index) == ("in_use", first.id, 1)
    assert machine_nics(cloud, first) == (first.nics[0].id, nic.id)
    assert detach(cloud, "moves").status == "available"
    assert machine_nics(cloud, first) == (first.nics[0].id,)
    moved = attach(cloud, "moves", "second")
    assert (moved.instance_id, moved.address, moved.mac) == (second.id, nic.address, nic.mac)
    assert machine_nics(cloud, second) == (second.nics[0].id, nic.id)


def machine_nics(cloud: Cloud, instance: Instance) -> tuple[str, ...]:
    state = cloud.backend.compute[MachineKind(instance.kind)].inspect_machine(instance.id)
    assert state is not None
    return state.nic_ids


def test_a_nic_of_its_own_outlives_its_instance(cloud: Cloud) -> None:
    instance = create(cloud, name="short")
    make(cloud, name="long")
    attach(cloud, "long", "short")
    own = instance.nics[0].id
    cloud.instances.delete(operator(cloud), "short", purge=True)
    settle(cloud)
    free = cloud.nics.get(operator(cloud), "long")
    assert (free.status, free.instance_id, free.device_index) == ("available", None, None)
    with pytest.raises(NotFound):
        cloud.nics.get(operator(cloud), own)


def test_a_detached_nic_is_kept_though_it_came_with_the_instance(cloud: Cloud) -> None:
    instance = create(cloud, name="web")
    detach(cloud, instance.nics[0].id)
    cloud.instances.delete(operator(cloud), "web", purge=True)
    settle(cloud)
    kept = instance.nics[0].id
    assert cloud.nics.get(operator(cloud), kept).status == "available"
    create(cloud, name="next")  # and it does not go with the next one either
    attach(cloud, kept, "next")
    cloud.instances.delete(operator(cloud), "next", purge=True)
    settle(cloud)
    assert cloud.nics.get(operator(cloud), kept).status == "available"


def test_a_retained_instance_lets_nics_of_others_go(cloud: Cloud) -> None:
    cloud.instances.retention_s = 3600
    instance = create(cloud, name="web")
    nic = make(cloud, name="kept")
    attach(cloud, "kept", "web")
    cloud.instances.delete(operator(cloud), "web")
    settle(cloud)
    assert cloud.nics.get(operator(cloud), "kept").instance_id is None
    create(cloud, name="other", nics=(NewNIC(nic="kept"),))
    cloud.instances.recover(operator(cloud), instance.id)
    settle(cloud)
    back = cloud.instances.get(operator(cloud), instance.id)
    assert [each.id for each in back.nics] == [instance.nics[0].id]
    assert cloud.nics.get(operator(cloud), "kept").id == nic.id


def test_an_instance_is_created_with_the_nics_that_are_wished_for(cloud: Cloud) -> None:
    make(cloud, name="mine", address="10.64.9.9")
    wished = (NewNIC(nic="mine"), NewNIC(address="10.64.9.10", mac="52:54:00:00:00:77"), NewNIC(address="none"))
    instance = create(cloud, nics=wished)
    assert [nic.address for nic in instance.nics] == ["10.64.9.9", "10.64.9.10", None]
    assert [nic.device_index for nic in instance.nics] == [0, 1, 2]
    assert [nic.delete_with_instance for nic in instance.nics] == [False, True, True]
    assert instance.nics[1].mac == "52:54:00:00:00:77"
    assert create(cloud, nics=()).nics == ()


def test_a_create_that_fails_gives_its_nics_back(cloud: Cloud) -> None:
    make(cloud, name="mine")
    world(cloud).faults.fail_next("start_machine", PermanentError("no"))
    failed = create(cloud, nics=(NewNIC(nic="mine"), NewNIC()))
    assert failed.status == "failed"
    assert failed.nics == ()
    assert cloud.nics.get(operator(cloud), "mine").status == "available"


@pytest.mark.parametrize(
    ("wanted", "field", "code"),
    [
        ({"address": "10.99.0.1"}, "address", "outside"),
        ({"address": "10.64.0.0"}, "address", "reserved"),
        ({"address": "10.64.255.255"}, "address", "reserved"),
        ({"address": "10.64.0.1"}, "address", "reserved"),
        ({"address": "ten"}, "address", "invalid"),
        ({"address": "fd00::1"}, "address", "not_supported"),
        ({"mac": "01:00:5e:00:00:01"}, "mac", "multicast"),
        ({"mac": "52:54"}, "mac", "invalid"),
        ({"mac": "00:00:00:00:00:00"}, "mac", "invalid"),
        ({"secondary_addresses": ("10.64.5.5", "10.64.5.5")}, "secondary_addresses.1", "twice"),
        ({"address": "10.64.5.5", "secondary_addresses": ("10.64.5.5",)}, "secondary_addresses.0", "twice"),
        ({"secondary_addresses": ("10.70.0.1",)}, "secondary_addresses.0", "outside"),
        ({"allowed_pairs": (Pair(cidr="10.1.2.3/8"),)}, "allowed_pairs.0.cidr", "invalid"),
        ({"allowed_pairs": (Pair(cidr="127.0.0.0/8"),)}, "allowed_pairs.0.cidr", "reserved"),
        ({"allowed_pairs": (Pair(cidr="10.64.0.1/32"),)}, "allowed_pairs.0.cidr", "shared"),
        ({"allowed_pairs": (Pair(cidr="0.0.0.0/0"),)}, "allowed_pairs.0.cidr", "shared"),
        ({"allowed_pairs": (Pair(cidr="10.1.0.0/16", mac="x"),)}, "allowed_pairs.0.mac", "invalid"),
        ({"subnet": "nowhere"}, "subnet", "not_found"),
        ({"nic": "nothing"}, "nic", "not_found"),
    ],
)
def test_bad_wishes_name_their_field_and_leave_nothing(
    cloud: Cloud, wanted: dict[str, Any], field: str, code: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        cloud.nics.create(operator(cloud), NewNIC(**(({} if "nic" in wanted else {"subnet": "basic"}) | wanted)))
    assert field_of(refused) == (field, code)
    with pytest.raises(InvalidInput) as refused:
        cloud.instances.create(operator(cloud), [wish(nics=(NewNIC(), NewNIC(**wanted)))])
    assert field_of(refused) == (f"nics.1.{field}", code)


def test_addresses_macs_and_names_are_taken_once(cloud: Cloud) -> None:
    make(cloud, name="one", address="10.64.3.3", mac="52:54:00:00:00:01", secondary_addresses=("10.64.3.4",))
    for wanted, field in (
        ({"name": "one"}, "name"),
        ({"address": "10.64.3.3"}, "address"),
        ({"address": "10.64.3.4"}, "address"),
        ({"secondary_addresses": ("10.64.3.3",)}, "secondary_addresses.0"),
        ({"mac": "52:54:00:00:00:01"}, "mac"),
    ):
        with pytest.raises(AlreadyExists) as refused:
            make(cloud, **wanted)
        assert field_of(refused) == (field, "taken")
        assert_consistent(cloud)


def test_a_nic_in_use_is_not_attached_again_nor_deleted(cloud: Cloud) -> None:
    instance = create(cloud, name="web")
    create(cloud, name="db")
    make(cloud, name="busy")
    attach(cloud, "busy", "web")
    for refuse in (
        lambda: cloud.nics.attach(operator(cloud), "busy", instance="db"),
        lambda: cloud.nics.delete(operator(cloud), "busy"),
        lambda: create(cloud, nics=(NewNIC(nic="busy"),)),
    ):
        with pytest.raises(InUse) as refused:
            refuse()
        assert [(each.type, each.id) for each in refused.value.blockers] == [("instance", instance.id)]
    with pytest.raises(InvalidState):
        cloud.nics.update(operator(cloud), "busy", address="10.64.1.1")


def test_no_two_transitions_meet(cloud: Cloud) -> None:
    instance = create(cloud, name="web")
    make(cloud, name="comes")
    cloud.nics.attach(operator(cloud), "comes", instance="web")
    with pytest.raises(InTransition):
        cloud.instances.stop(operator(cloud), "web")
    with pytest.raises(InTransition):
        cloud.nics.detach(operator(cloud), "comes")
    with pytest.raises(InTransition):
        cloud.nics.update(operator(cloud), "comes", secondary_addresses=["10.64.1.2"])
    settle(cloud)
    cloud.instances.stop(operator(cloud), "web")
    with pytest.raises(InTransition):
        cloud.nics.detach(operator(cloud), "comes")
    settle(cloud)
    assert cloud.instances.get(operator(cloud), instance.id).status == "stopped"


def test_an_instance_has_as_many_nics_as_its_flavor_allows(cloud: Cloud) -> None:
    limit = cloud.catalog.get_flavor("nano").max_nics
    with pytest.raises(InvalidInput) as refused:
        create(cloud, nics=tuple(NewNIC() for _ in range(limit + 1)))
    assert field_of(refused) == ("nics", "too_many")
    create(cloud, name="full", nics=tuple(NewNIC() for _ in range(limit)))
    make(cloud, name="more")
    with pytest.raises(InvalidInput) as refused:
        cloud.nics.attach(operator(cloud), "more", instance="full")
    assert field_of(refused) == ("instance", "too_many")


def test_zones_are_kept_apart(cloud: Cloud) -> None:
    create(cloud, name="here", zone="zone-1")
    make(cloud, name="there", subnet="basic-zone-2")
    with pytest.raises(InvalidInput) as refused:
        cloud.nics.attach(operator(cloud), "there", instance="here")
    assert field_of(refused) == ("instance", "other_zone")
    with pytest.raises(InvalidInput) as refused:
        create(cloud, zone="zone-1", nics=(NewNIC(nic="there"),))
    assert field_of(refused) == ("nics.0.nic", "other_zone")
    assert create(cloud, nics=(NewNIC(nic="there"),)).zone == "zone-2"


def test_secondary_addresses_and_pairs_change_while_it_runs(cloud: Cloud) -> None:
    create(cloud, name="web")
    make(cloud, name="many", secondary_addresses=("10.64.2.1", "10.64.2.2"))
    attach(cloud, "many", "web")
    changed, job = cloud.nics.update(
        operator(cloud),
        "many",
        secondary_addresses=["10.64.2.2", "10.64.2.3"],
        allowed_pairs=[Pair(cidr="10.244.1.0/24")],
    )
    assert job is not None
    settle(cloud)
    assert job_of(cloud, job.id).status == JobStatus.SUCCEEDED
    assert changed.secondary_addresses == ("10.64.2.2", "10.64.2.3")
    assert changed.allowed_pairs == (Pair(cidr="10.244.1.0/24"),)
    assert make(cloud, address="10.64.2.1").address == "10.64.2.1"  # free again
    same, job = cloud.nics.update(operator(cloud), "many", allowed_pairs=[Pair(cidr="10.244.1.0/24")])
    assert job is None
    assert same.allowed_pairs == changed.allowed_pairs


def test_the_first_address_of_a_free_nic_changes(cloud: Cloud) -> None:
    make(cloud, name="free", address="10.64.4.1", secondary_addresses=("10.64.4.2",))
    changed, job = cloud.nics.update(operator(cloud), "free", address="10.64.4.2")
    assert (changed.address, changed.secondary_addresses, job) == ("10.64.4.2", (), None)
    assert make(cloud, address="10.64.4.1").address == "10.64.4.1"


def test_another_project_never_finds_it(cloud: Cloud) -> None:
    make(cloud, name="mine")
    stranger, _ = principal_in(cloud, "strangers")
    for wanted in ("mine", cloud.nics.get(operator(cloud), "mine").id):
        with pytest.raises(NotFound):
            cloud.nics.get(stranger, wanted)
    with pytest.raises(InvalidInput):
        cloud.instances.create(stranger, [wish(nics=(NewNIC(nic="mine"),))])
    reader, _ = principal_in(cloud, "strangers", Role.READER)
    with pytest.raises(PermissionDenied):
        cloud.nics.create(reader, NewNIC(subnet="basic"))


def test_the_quota_of_nics_counts_all_of_them(cloud: Cloud) -> None:
    create(cloud)
    cloud.quotas.update(operator(cloud), "default", {"nics": 2})
    make(cloud, name="last")
    with pytest.raises(QuotaExceeded):
        make(cloud)
    with pytest.raises(QuotaExceeded):
        cloud.instances.create(operator(cloud), [wish()])
    cloud.nics.delete(operator(cloud), "last")
    create(cloud)


def test_if_match_names_a_generation(cloud: Cloud) -> None:
    nic = make(cloud, name="one")
    cloud.nics.update(operator(cloud), "one", name="two", if_generation=nic.generation)
    with pytest.raises(PreconditionFailed):
        cloud.nics.update(operator(cloud), "two", name="three", if_generation=nic.generation)


def test_an_attach_that_fails_leaves_the_nic_free(cloud: Cloud) -> None:
    create(cloud, name="web")
    make(cloud, name="nic")
    world(cloud).faults.fail_next("attach_nic", PermanentError("no slot"))
    _, job = cloud.nics.attach(operator(cloud), "nic", instance="web")
    settle(cloud)
    assert job_of(cloud, job.id).status == JobStatus.FAILED
    free = cloud.nics.get(operator(cloud), "nic")
    assert (free.status, free.instance_id, free.transition) == ("available", None, None)
    attach(cloud, "nic", "web")


def test_a_nic_that_died_with_a_namespace_is_plugged_again(cloud: Cloud) -> None:
    instance = create(cloud, name="node", kind="container")
    nic = make(cloud, name="pod")
    attach(cloud, "pod", "node")
    command = "ip netns add pod; ip link set eth1 netns pod; ip netns del pod"
    cloud.instances.execute(operator(cloud), "node", ["sh", "-c", command], timeout_s=5)
    settle(cloud)
    shown = cloud.instances.execute(operator(cloud), "node", ["ip", "link"], timeout_s=5).stdout
    assert nic.mac in shown
    assert machine_nics(cloud, instance) == (instance.nics[0].id, nic.id)
    types = [event.type for event in cloud.events.list_after(operator(cloud), after=0, limit=100, only=EventFilter())]
    assert "nic.replugged" in types


def test_a_network_that_was_lost_meanwhile_is_made_for_the_next_instance(cloud: Cloud) -> None:
    first = create(cloud)
    cloud.backend.networks.remove_subnet(first.nics[0].subnet_id)
    cloud.backend.networks.remove_vpc(str(first.nics[0].vpc_id))
    assert create(cloud).status == "running"
    cloud.doctor.repair()
    cloud.doctor.repair()
