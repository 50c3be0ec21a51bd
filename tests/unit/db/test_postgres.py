"""What PostgreSQL does differently: transactions that really run side by side."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from iaas.db.postgres import WRITE_TRIES, take_lock
from iaas.db.repositories import events
from iaas.db.schema import upgrade
from iaas.db.store import Store, Tx
from iaas.kernel.clock import CloudClock
from iaas.kernel.errors import ResourceRef
from iaas.resources.jobs import Event
from tests.postgres import Cluster

WAIT_S = 20.0


@pytest.fixture
def store(postgres_url: str) -> Iterator[Store]:
    opened = Store(postgres_url, CloudClock())
    opened.write(lambda tx: tx.connection.execute(text("CREATE TABLE numbers (n INTEGER PRIMARY KEY, v INTEGER)")))
    opened.write(lambda tx: tx.connection.execute(text("INSERT INTO numbers VALUES (1, 0), (2, 0)")))
    yield opened
    opened.close()


def add_one(tx: Tx, number: int) -> None:
    tx.connection.execute(text("UPDATE numbers SET v = v + 1 WHERE n = :n"), {"n": number})


def values(store: Store) -> list[int]:
    with store.read() as connection:
        return list(connection.execute(text("SELECT v FROM numbers ORDER BY n")).scalars())


def tell(tx: Tx, kind: str) -> None:
    events.add(tx, type=kind, project_id="proj-1", resource=ResourceRef("instance", "i-1"))


def events_after(store: Store, after: int) -> list[Event]:
    with store.read() as connection:
        return events.list_after(connection, project_id="proj-1", after=after, limit=10_000)


def test_a_deadlock_is_resolved_by_running_one_of_the_two_again(store: Store) -> None:
    both_hold_one = threading.Barrier(2)
    tries: list[int] = []

    def cross(first: int, second: int) -> None:
        has_met = False

        def work(tx: Tx) -> None:
            nonlocal has_met
            tries.append(first)
            add_one(tx, first)
            if not has_met:
                has_met = True
                both_hold_one.wait(WAIT_S)
            add_one(tx, second)

        store.write(work)

    with ThreadPoolExecutor(2) as pool:
        for done in (pool.submit(cross, 1, 2), pool.submit(cross, 2, 1)):
            done.result(WAIT_S)
    assert values(store) == [2, 2]
    assert len(tries) == 3


def test_what_never_passes_comes_out_in_the_end(store: Store) -> None:
    tries: list[int] = []

    def work(tx: Tx) -> None:
        tries.append(1)
        tx.connection.execute(text("DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '40001'; END $$"))

    with pytest.raises(Exception, match="no"):
        store.write(work)
    assert len(tries) == WRITE_TRIES


def test_other_errors_are_not_tried_again(store: Store) -> None:
    tries: list[int] = []

    def work(tx: Tx) -> None:
        tries.append(1)
        tx.connection.execute(text("INSERT INTO numbers VALUES (1, 0)"))

    with pytest.raises(IntegrityError):
        store.write(work)
    assert tries == [1]


def test_actions_after_the_commit_are_those_of_the_try_that_succeeded(store: Store) -> None:
    tries: list[int] = []
    told: list[int] = []

    def work(tx: Tx) -> None:
        tries.append(1)
        number = len(tries)
        tx.on_commit(lambda: told.append(number))
        if number == 1:
            tx.connection.execute(text("DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '40P01'; END $$"))

    store.write(work)
    assert told == [2]


def test_a_reader_sees_one_state(store: Store) -> None:
    def total(connection: Connection) -> int:
        return int(connection.execute(text("SELECT sum(v) FROM numbers")).scalar_one())

    with store.read() as connection:
        assert total(connection) == 0
        store.write(lambda tx: add_one(tx, 1))
        assert total(connection) == 0
    assert values(store) == [1, 0]


def test_a_named_lock_is_held_until_the_commit(store: Store) -> None:
    inside: list[str] = []
    first_is_in, second_has_begun = threading.Event(), threading.Event()

    def first(tx: Tx) -> None:
        take_lock(tx.connection, "door")
        first_is_in.set()
        assert second_has_begun.wait(WAIT_S)
        inside.append("first")

    def second(tx: Tx) -> None:
        second_has_begun.set()
        take_lock(tx.connection, "door")
        inside.append("second")

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(store.write, first)
        assert first_is_in.wait(WAIT_S)
        two = pool.submit(store.write, second)
        one.result(WAIT_S)
        two.result(WAIT_S)
    assert inside == ["first", "second"]


def test_an_event_told_early_and_committed_late_has_the_greater_id(store: Store) -> None:
    """Otherwise a reader that has seen the greater id, and resumes after it, never sees the smaller one."""
    told, overtaken = threading.Event(), threading.Event()

    def slow(tx: Tx) -> None:
        tell(tx, "slow")
        told.set()
        assert overtaken.wait(WAIT_S)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(store.write, slow)
        assert told.wait(WAIT_S)
        store.write(lambda tx: tell(tx, "quick"))
        seen = events_after(store, 0)
        overtaken.set()
        writing.result(WAIT_S)
    assert [event.type for event in seen] == ["quick"]
    assert [event.type for event in events_after(store, seen[-1].id)] == ["slow"]


def test_a_resuming_reader_misses_nothing_of_many_writers(store: Store) -> None:
    writers, each = 8, 40

    def write(name: int) -> None:
        for number in range(each):
            store.write(lambda tx, number=number: [tell(tx, f"{name}.{number}.{part}") for part in "ab"] and None)

    seen: list[Event] = []
    with ThreadPoolExecutor(writers) as pool:
        writing = [pool.submit(write, name) for name in range(writers)]
        while not all(done.done() for done in writing):
            seen += events_after(store, seen[-1].id if seen else 0)
        for done in writing:
            done.result(WAIT_S)
    seen += events_after(store, seen[-1].id if seen else 0)
    ids = [event.id for event in seen]
    assert ids == sorted(set(ids))
    assert len(seen) == writers * each * 2


def test_a_fleet_that_starts_on_an_empty_database_makes_its_tables_once(postgres: Cluster) -> None:
    with postgres.database(empty=True) as url:
        stores = [Store(url, CloudClock()) for _ in range(4)]
        with ThreadPoolExecutor(len(stores)) as pool:
            list(pool.map(upgrade, stores, timeout=60))
        for store in stores:
            store.close()
