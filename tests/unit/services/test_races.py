"""Many at once, through two servers on PostgreSQL, where transactions really run side by side: exactly one wins."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from iaas.cloud import Cloud
from iaas.db.repositories.query import Listing
from iaas.kernel.errors import NotFound
from iaas.resources.common import Page
from iaas.resources.instances import PlacementRule, PlacementWish
from tests.factories import create, operator, settle, used_capacity, wish
from tests.unit.services.racing import RACERS, ROUNDS, Entry, race


def creates(name: str | None = None, **changes: object) -> Entry:
    return lambda cloud: cloud.instances.create(operator(cloud), [wish(name=name, **changes)])


def stops(target: str) -> Entry:
    return lambda cloud: cloud.instances.stop(operator(cloud), target)


def restarts(target: str) -> Entry:
    return lambda cloud: cloud.instances.restart(operator(cloud), target)


def deletes(target: str) -> Entry:
    return lambda cloud: cloud.instances.delete(operator(cloud), target)


def rebuilds(target: str) -> Entry:
    return lambda cloud: cloud.instances.rebuild(operator(cloud), target)


def test_one_name_goes_to_one(clouds: Sequence[Cloud]) -> None:
    for number in range(ROUNDS):
        outcome = race(clouds, [creates(f"web-{number}", flavor=None, vcpus=1, memory_mib=64)] * RACERS)
        assert outcome == {"won": 1, "AlreadyExists": RACERS - 1}


def test_a_new_name_goes_to_one(clouds: Sequence[Cloud]) -> None:
    ids = [create(clouds[0]).id for _ in range(4)]
    for number in range(ROUNDS):
        entries: list[Entry] = [
            lambda cloud, each=each, number=number: cloud.instances.update(operator(cloud), each, name=f"name-{number}")
            for each in ids
        ]
        assert race(clouds, entries) == {"won": 1, "AlreadyExists": len(ids) - 1}


def test_capacity_goes_to_as_many_as_fit(clouds: Sequence[Cloud]) -> None:
    outcome = race(clouds, [creates()] * 12)
    assert outcome == {"won": 6, "OutOfCapacity": 6}
    assert used_capacity(clouds[0])[0] == 6


def test_addresses_are_all_different(clouds: Sequence[Cloud]) -> None:
    assert race(clouds, [creates()] * 6) == {"won": 6}
    found, _ = clouds[0].instances.list_page(operator(clouds[0]), Listing(page=Page(limit=100)))
    assert len({nic.address for each in found for nic in each.nics}) == 6


def test_one_transition_is_taken_by_one(clouds: Sequence[Cloud]) -> None:
    for _ in range(ROUNDS):
        target = create(clouds[0]).id
        outcome = race(clouds, [stops(target), restarts(target), deletes(target), rebuilds(target)] * 2)
        assert outcome["won"] == 1
        assert set(outcome) <= {"won", "InTransition", "InvalidState"}
        for cloud in clouds:
            settle(cloud)
        with contextlib.suppress(NotFound):  # a delete may have won
            clouds[0].instances.delete(operator(clouds[0]), target)
        settle(clouds[0])


def test_strict_anti_affinity_is_never_broken(clouds: Sequence[Cloud]) -> None:
    apart = PlacementWish(anti_affinity=PlacementRule(label_selector="app=db"))
    outcome = race(clouds, [creates(labels={"app": "db"}, placement=apart)] * RACERS)
    assert outcome["won"] == 2
    found, _ = clouds[0].instances.list_page(operator(clouds[0]), Listing(page=Page(limit=100)))
    assert len({each.host_id for each in found}) == 2


def test_of_two_that_look_at_the_generation_one_wins(clouds: Sequence[Cloud]) -> None:
    instance = create(clouds[0])
    entries: list[Entry] = [
        lambda cloud, number=number: cloud.instances.update(
            operator(cloud), instance.id, labels={"by": str(number)}, if_generation=instance.generation
        )
        for number in range(RACERS)
    ]
    assert race(clouds, entries) == {"won": 1, "PreconditionFailed": RACERS - 1}


def test_a_deleted_instance_is_recovered_or_purged_by_one(clouds: Sequence[Cloud]) -> None:
    for _ in range(ROUNDS):
        target = create(clouds[0]).id
        for cloud in clouds:
            cloud.instances.retention_s = 7200
        clouds[0].instances.delete(operator(clouds[0]), target)
        settle(clouds[0])
        recoveries: list[Entry] = [
            lambda cloud, number=number, target=target: cloud.instances.recover(
                operator(cloud), target, name=f"again-{number}"
            )
            for number in range(4)
        ]
        purges: list[Entry] = [
            lambda cloud, target=target: cloud.instances.delete(operator(cloud), target, purge=True)
        ] * 4
        outcome = race(clouds, recoveries + purges)
        assert outcome["won"] == 1
        assert set(outcome) <= {"won", "InTransition", "InvalidState"}
        for cloud in clouds:
            settle(cloud)
        with contextlib.suppress(NotFound):  # a purge may have won
            clouds[0].instances.delete(operator(clouds[0]), target, purge=True)
        settle(clouds[0])
    assert used_capacity(clouds[0]) == (0, 0, 0)


def test_labels_given_at_once_are_all_kept(clouds: Sequence[Cloud]) -> None:
    """Each patch merges into what the row has when it is written, not when it was first looked at."""
    first = clouds[0]
    key_pair, _ = first.key_pairs.create(operator(first), name="laptop")
    zone = first.config.zones[0]
    patches: list[Callable[[Cloud, dict[str, str | None]], object]] = [
        lambda cloud, labels: cloud.key_pairs.update(operator(cloud), key_pair.id, labels=labels),
        lambda cloud, labels: cloud.catalog.label_zone(operator(cloud), zone, labels),
        lambda cloud, labels: cloud.identity.update_project(operator(cloud), "default", labels=labels),
    ]
    for patch in patches:
        entries: list[Entry] = [
            lambda cloud, patch=patch, number=number: patch(cloud, {f"racer-{number}": "here"})
            for number in range(RACERS)
        ]
        assert race(clouds, entries) == {"won": RACERS}
    everybody = {f"racer-{number}": "here" for number in range(RACERS)}
    assert first.key_pairs.get(operator(first), key_pair.id).labels == everybody
    assert first.catalog.get_zone(zone).labels == everybody
    assert first.identity.get_project(operator(first), "default").labels == everybody
