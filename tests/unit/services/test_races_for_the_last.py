"""One slot of a quota, one address, one idempotency key, one state to leave: as many get it as there are."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from sqlalchemy import update

from iaas.api.app import create_app
from iaas.cloud import Cloud
from iaas.db.models import SubnetRow
from iaas.db.repositories.query import Listing
from iaas.kernel.errors import CloudError, InTransition, NotFound
from iaas.resources.common import Page
from iaas.resources.instances import Instance
from iaas.services.quotas import recount
from tests.api.calling import NEW, Caller
from tests.factories import TOKEN, create, operator, settle, used_capacity, wish
from tests.unit.services.racing import RACERS, ROUNDS, Entry, race

ADDRESSES = 5  # of a /28, from the tenth on


def everything(cloud: Cloud, *, deleted: bool = False) -> list[Instance]:
    return cloud.instances.list_page(operator(cloud), Listing(page=Page(limit=100)), deleted=deleted)[0]


def creates(cloud: Cloud) -> object:
    return cloud.instances.create(operator(cloud), [wish()])


def assert_right(clouds: Sequence[Cloud]) -> None:
    """Counters are what the rows hold, once all is at rest."""
    for cloud in clouds:
        settle(cloud)
    first = clouds[0]
    with first.store.read() as connection:
        assert recount(connection) == []
    assert first.doctor.check().findings == ()
    assert used_capacity(first)[0] == sum(each.vcpus for each in everything(first))


def test_the_last_of_a_quota_goes_to_one(clouds: Sequence[Cloud]) -> None:
    first = clouds[0]
    for number in range(1, ROUNDS + 1):
        first.quotas.update(operator(first), "default", {"instances": number})
        assert race(clouds, [creates] * RACERS) == {"won": 1, "QuotaExceeded": RACERS - 1}
    assert_right(clouds)


def test_what_a_resize_would_grow_by_is_taken_by_one(clouds: Sequence[Cloud]) -> None:
    first = clouds[0]
    targets = []
    for _ in range(2):
        made = create(first)
        first.instances.stop(operator(first), made.id, force=True)
        settle(first)
        targets.append(made.id)
    first.quotas.update(operator(first), "default", {"vcpus": 3})
    entries: list[Entry] = [
        lambda cloud, target=target: cloud.instances.resize(operator(cloud), target, vcpus=2, memory_mib=128)
        for target in targets
    ] * 4
    outcome = race(clouds, entries)
    assert outcome["won"] == 1
    assert set(outcome) <= {"won", "QuotaExceeded", "InTransition"}
    assert_right(clouds)


def make_small(cloud: Cloud) -> None:
    """Leave the basic subnets room for a handful of addresses."""
    few = {"cidr": "10.64.0.0/28", "dhcp_last": "10.64.0.14"}
    cloud.store.write(lambda tx: tx.connection.execute(update(SubnetRow).values(few)))


def test_the_last_addresses_go_to_as_many_as_there_are(clouds: Sequence[Cloud]) -> None:
    first = clouds[0]
    make_small(first)
    assert race(clouds, [creates] * RACERS) == {"won": ADDRESSES, "OutOfCapacity": RACERS - ADDRESSES}
    assert len({nic.address for each in everything(first) for nic in each.nics}) == ADDRESSES
    assert_right(clouds)


def test_an_address_that_comes_back_is_held_by_one(clouds: Sequence[Cloud]) -> None:
    """A recovered machine wants the address that it had; new ones may get it first."""
    first = clouds[0]
    make_small(first)
    for cloud in clouds:
        cloud.instances.retention_s = 7200
    for _ in range(ROUNDS):
        target = create(first).id
        first.instances.delete(operator(first), target)
        settle(first)
        recovers: list[Entry] = [lambda cloud, target=target: cloud.instances.recover(operator(cloud), target)]
        outcome = race(clouds, recovers + [creates] * 5)
        assert set(outcome) <= {"won", "OutOfCapacity"}
        addresses = [nic.address for each in everything(first) for nic in each.nics]
        assert len(addresses) == len(set(addresses)) == outcome["won"] == ADDRESSES
        assert_right(clouds)
        for each in everything(first):
            first.instances.delete(operator(first), each.id, purge=True)
        settle(first)
        for each in everything(first, deleted=True):
            with contextlib.suppress(NotFound):  # it came back, and is purged by now
                first.instances.delete(operator(first), each.id, purge=True)
        settle(first)


def test_a_stopped_one_is_started_changed_or_deleted_by_one(clouds: Sequence[Cloud]) -> None:
    first = clouds[0]
    for _ in range(ROUNDS):
        made = create(first)
        first.instances.stop(operator(first), made.id, force=True)
        settle(first)
        entries: list[Entry] = [
            lambda cloud, target=made.id: cloud.instances.start(operator(cloud), target),
            lambda cloud, target=made.id: cloud.instances.resize(operator(cloud), target, vcpus=2, memory_mib=256),
            lambda cloud, target=made.id: cloud.instances.rebuild(operator(cloud), target),
            lambda cloud, target=made.id: cloud.instances.delete(operator(cloud), target),
        ]
        outcome = race(clouds, entries * 2)
        assert outcome["won"] == 1
        assert set(outcome) <= {"won", "InTransition"}
        assert_right(clouds)
        with contextlib.suppress(NotFound):  # a delete may have won
            first.instances.delete(operator(first), made.id)
        settle(first)
    assert used_capacity(first) == (0, 0, 0)


def test_one_key_is_one_instance(clouds: Sequence[Cloud]) -> None:
    """Servers of one database share no memory: the record's key decides, and the loser answers as the winner did."""
    callers = {id(cloud): Caller(create_app(cloud), TOKEN) for cloud in clouds}
    answers: list[str] = []

    def posts(cloud: Cloud, key: str) -> None:
        answer = callers[id(cloud)].call("POST", "/v1/instances", json=NEW, headers={"Idempotency-Key": key})
        if answer.status_code != 202:
            raise _KNOWN[str(answer.json and answer.json["code"])]("still under way")
        answers.append(answer.text)

    for number in range(ROUNDS):
        answers.clear()
        entries: list[Entry] = [lambda cloud, number=number: posts(cloud, f"key-{number}")] * RACERS
        outcome = race(clouds, entries)
        assert set(outcome) <= {"won", "InTransition"}
        assert len(set(answers)) == 1
        assert len(everything(clouds[0])) == number + 1
    assert_right(clouds)


_KNOWN: dict[str, type[CloudError]] = {"idempotency_in_progress": InTransition}
