"""One event per change, in the order of the commits; and what is kept of them."""

from __future__ import annotations

import random
import threading
from dataclasses import replace
from itertools import pairwise

import pytest
from sqlalchemy import select

from iaas.cloud import Cloud
from iaas.config import EventRetention
from iaas.db.models import InstanceRow
from iaas.drivers.interface import PermanentError
from iaas.kernel.errors import CloudError, EventsExpired, RateLimited
from iaas.resources.jobs import Event, EventFilter
from iaas.services.events import EventService
from tests.factories import create, make_cloud, open_cloud, operator, principal_in, settle, wish, world

EVERYTHING = EventFilter()
ACTS = ("create", "start", "stop", "restart", "resize", "rebuild", "delete", "rename", "poweroff")


def all_events(cloud: Cloud, *, after: int = 0, only: EventFilter = EVERYTHING) -> list[Event]:
    return cloud.events.list_after(operator(cloud), after=after, limit=100_000, only=only)


@pytest.mark.parametrize("seed", range(3))
def test_every_change_has_its_event_and_every_event_its_change(seed: int) -> None:
    """A random walk: the events of an instance tell exactly its generations 1, 2, 3 ... and end at the row's own."""
    rng = random.Random(seed)  # noqa: S311 - a walk that can be repeated, no secret
    with open_cloud() as cloud:
        who = operator(cloud)
        known: list[str] = []
        names = 0
        for _ in range(40):
            act = rng.choice(
                ["create", "start", "stop", "restart", "resize", "rebuild", "delete", "rename", "poweroff"]
            )
            if not known or act == "create":
                known.append(cloud.instances.create(who, [wish()])[0][0].id)
                continue
            target = rng.choice(known)
            if rng.random() < 0.2:
                world(cloud).faults.fail_next(
                    rng.choice(["start_machine", "ensure_machine"]), PermanentError("on purpose")
                )
            try:
                match act:
                    case "rename":
                        names += 1
                        cloud.instances.update(who, target, name=f"name-{names}")
                    case "resize":
                        cloud.instances.resize(who, target, flavor=rng.choice(["nano", "small"]))
                    case "poweroff":
                        cloud.instances.execute(who, target, ["poweroff"], timeout_s=5)
                    case _:
                        getattr(cloud.instances, act)(who, target)
            except CloudError:
                pass  # not allowed now: then nothing may have happened either
            if rng.random() < 0.6:
                cloud.executor.run_due()
                cloud.clock.advance(rng.choice([0.1, 1.0, 20.0]))
            else:
                settle(cloud)
        settle(cloud)
        with cloud.store.read() as connection:
            rows = {
                row.id: row.generation for row in connection.execute(select(InstanceRow.id, InstanceRow.generation))
            }
        told: dict[str, list[int | None]] = {}
        for event in all_events(cloud, only=EventFilter(resource_type="instance")):
            told.setdefault(event.resource.id, []).append(event.generation)
        assert told == {name: list(range(1, generation + 1)) for name, generation in rows.items()}


def test_ids_and_times_grow_together() -> None:
    with open_cloud() as cloud:
        for _ in range(3):
            create(cloud)
        found = all_events(cloud)
        assert len(found) >= 9
        for earlier, later in pairwise(found):
            assert earlier.id < later.id
            assert earlier.created_at <= later.created_at


def test_filters_choose() -> None:
    with open_cloud() as cloud:
        first, second = create(cloud), create(cloud)
        assert {e.resource.id for e in all_events(cloud, only=EventFilter(resource_id=first.id))} == {first.id}
        prefixed = all_events(cloud, only=EventFilter(type_prefix="instance.creat"))
        assert {e.type for e in prefixed} == {"instance.creating", "instance.created"}
        assert {e.resource.id for e in prefixed} == {first.id, second.id}
        assert all_events(cloud, only=EventFilter(type_prefix="instance%")) == []
        assert all_events(cloud, only=EventFilter(resource_type="volume")) == []


# -- retention ------------------------------------------------------------------------------------------------


def service(cloud: Cloud, **retention: float) -> EventService:
    return EventService(cloud.store, cloud.clock, cloud.event_feed, replace(EventRetention(), **retention))  # type: ignore[arg-type]  # count is a float here, which compares as well


def test_old_events_are_purged_by_the_clock_and_their_readers_are_told() -> None:
    with open_cloud() as cloud:
        create(cloud)
        old = all_events(cloud)
        cloud.clock.advance(cloud.config.event_retention.age_s + 60)
        instance = create(cloud)
        settle(cloud)
        cloud.executor.periodic.run_now("purge_events")
        left = all_events(cloud)
        assert {event.resource.id for event in left} == {instance.id}
        with pytest.raises(EventsExpired):
            all_events(cloud, after=old[0].id)
        with pytest.raises(EventsExpired):
            cloud.events.follow(operator(cloud), after=old[0].id, only=EVERYTHING)
        assert all_events(cloud, after=old[-1].id) == left, "who has read everything that was purged misses nothing"


def test_only_so_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iaas.services.events.PURGE_AT_ONCE", 2)
    with open_cloud() as cloud:
        for _ in range(4):
            create(cloud)
        before = all_events(cloud)
        assert service(cloud, count=5).purge() == len(before) - 5
        assert all_events(cloud) == before[-5:]
        assert service(cloud, count=5).purge() == 0


def test_ids_are_not_used_again_after_a_purge() -> None:
    with open_cloud() as cloud:
        create(cloud)
        last = all_events(cloud)[-1].id
        service(cloud, count=0).purge()
        assert all_events(cloud) == []
        create(cloud)
        assert all_events(cloud, after=last)[0].id == last + 1


# -- followers ------------------------------------------------------------------------------------------------


def test_a_follower_gets_what_was_and_what_comes() -> None:
    with open_cloud() as cloud:
        create(cloud)
        stream = cloud.events.follow(operator(cloud), after=0, only=EVERYTHING)
        before = all_events(cloud)
        assert stream.next(timeout_s=0) == before
        assert stream.next(timeout_s=0) == []
        create(cloud)
        assert stream.next(timeout_s=0) == all_events(cloud, after=before[-1].id)
        stream.close()


def test_a_commit_wakes_a_follower() -> None:
    with open_cloud() as cloud:
        stream = cloud.events.follow(operator(cloud), after=0, only=EVERYTHING)
        assert stream.next(timeout_s=0) == []
        heard: list[Event] = []
        thread = threading.Thread(target=lambda: heard.extend(stream.next(timeout_s=20) or ()))
        thread.start()
        cloud.instances.create(operator(cloud), [wish()])
        thread.join(10)
        assert [event.type for event in heard] == ["instance.creating"]
        stream.close()


def test_a_follower_that_has_fallen_behind_the_purge_is_ended() -> None:
    with open_cloud() as cloud:
        create(cloud)
        stream = cloud.events.follow(operator(cloud), after=1, only=EVERYTHING)
        service(cloud, count=0).purge()
        assert stream.next(timeout_s=0) is None
        stream.close()


def test_followers_see_their_own_project_only() -> None:
    with open_cloud() as cloud:
        other, _ = principal_in(cloud, "others")
        stream = cloud.events.follow(other, after=0, only=EVERYTHING)
        create(cloud)
        assert {event.project_id for event in stream.next(timeout_s=0) or ()} <= {other.project_id}
        stream.close()


def test_streams_leave_places_to_long_polls_and_both_are_bounded() -> None:
    with open_cloud(max_waiters=4) as cloud:
        who = operator(cloud)
        streams = [cloud.events.follow(who, after=0, only=EVERYTHING) for _ in range(2)]
        with pytest.raises(RateLimited):
            cloud.events.follow(who, after=0, only=EVERYTHING)
        polls = [cloud.signals.subscribe("job-00000001") for _ in range(3)]
        assert [poll is not None for poll in polls] == [True, True, False]
        streams[0].close()
        streams[0].close()
        assert cloud.wait_slots.used == {"long_poll": 2, "stream": 1}
        cloud.events.follow(who, after=0, only=EVERYTHING).close()


def test_the_stop_of_a_server_ends_followers_and_takes_no_new_ones() -> None:
    cloud = make_cloud()
    try:
        stream = cloud.events.follow(operator(cloud), after=0, only=EVERYTHING)
        stream.next(timeout_s=0)
        ended: list[object] = []
        thread = threading.Thread(target=lambda: ended.append(stream.next(timeout_s=60)))
        thread.start()
        cloud.end_waits()
        thread.join(10)
        assert ended == [None]
        with pytest.raises(RateLimited):
            cloud.events.follow(operator(cloud), after=0, only=EVERYTHING)
    finally:
        cloud.close()
