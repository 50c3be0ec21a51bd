from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from iaas.db.store import Store, Tx
from iaas.kernel.clock import CloudClock
from tests.factories import START, wait_for


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = "sqlite://" if request.param == "memory" else f"sqlite:///{tmp_path / 'store.db'}"
    opened = Store(url, CloudClock(start=START, scale=0))
    opened.write(lambda tx: tx.connection.execute(text("CREATE TABLE numbers (n INTEGER PRIMARY KEY)")) and None)
    yield opened
    opened.close()


def add(tx: Tx, number: int) -> int:
    tx.connection.execute(text("INSERT INTO numbers VALUES (:n)"), {"n": number})
    return number


def numbers(store: Store) -> set[int]:
    with store.read() as connection:
        return set(connection.execute(text("SELECT n FROM numbers")).scalars())


def queue_behind_one(store: Store, works: list[object]) -> list[object]:
    """Run all ``works`` in one group: they queue while the first write is held; return results or exceptions."""
    gate, holding = threading.Event(), threading.Event()

    def hold(_tx: Tx) -> None:
        holding.set()
        assert gate.wait(20)

    def write(work: object) -> object:
        try:
            return store.write(work)  # type: ignore[arg-type]  # a list of works of different types
        except Exception as error:  # noqa: BLE001 - what came out is what the test looks at
            return error

    with ThreadPoolExecutor(len(works) + 1) as pool:
        first = pool.submit(store.write, hold)
        assert holding.wait(20)
        waiting = [pool.submit(write, work) for work in works]
        wait_for(lambda: len(store._queue) == len(works), what="all writes in the queue")
        gate.set()
        first.result(20)
        return [future.result(20) for future in waiting]


def test_many_threads_lose_nothing(store: Store) -> None:
    told: list[int] = []

    def write(number: int) -> int:
        def work(tx: Tx) -> int:
            tx.on_commit(lambda: told.append(number))
            return add(tx, number)

        return store.write(work)

    with ThreadPoolExecutor(24) as pool:
        assert list(pool.map(write, range(400), timeout=60)) == list(range(400))
    assert numbers(store) == set(range(400))
    assert sorted(told) == list(range(400))


def test_more_writers_than_a_group_takes_are_all_served(store: Store) -> None:
    results = queue_behind_one(store, [lambda tx, n=n: add(tx, n) for n in range(150)])
    assert results == list(range(150))
    assert numbers(store) == set(range(150))


def test_a_failing_write_hurts_no_other_of_its_group(store: Store) -> None:
    told: list[str] = []

    def failing(tx: Tx) -> None:
        tx.on_commit(lambda: told.append("failing"))
        add(tx, 100)
        raise LookupError("no")

    def good(tx: Tx) -> int:
        tx.on_commit(lambda: told.append("good"))
        return add(tx, 1)

    results = queue_behind_one(store, [good, failing, lambda tx: add(tx, 1), lambda tx: add(tx, 2)])
    assert results[0] == 1
    assert isinstance(results[1], LookupError)
    assert isinstance(results[2], IntegrityError)
    assert results[3] == 2
    assert numbers(store) == {1, 2}
    assert told == ["good"]


def test_a_failing_write_leaves_nothing(store: Store) -> None:
    told: list[str] = []

    def work(tx: Tx) -> None:
        tx.on_commit(lambda: told.append("said"))
        add(tx, 1)
        raise LookupError("no")

    with pytest.raises(LookupError):
        store.write(work)
    assert numbers(store) == set()
    assert told == []
    assert store.write(lambda tx: add(tx, 1)) == 1


def test_a_failing_commit_reaches_every_writer_of_the_group(store: Store) -> None:
    def breaks_the_transaction(tx: Tx) -> None:
        add(tx, 5)
        tx.connection.exec_driver_sql("ROLLBACK")  # as a full disk does: SQLite rolls all back by itself

    told: list[str] = []

    def good(tx: Tx) -> int:
        tx.on_commit(lambda: told.append("good"))
        return add(tx, 1)

    results = queue_behind_one(store, [good, breaks_the_transaction])
    assert all(isinstance(result, Exception) for result in results)
    assert told == []
    assert numbers(store) == set()
    assert store.write(lambda tx: add(tx, 9)) == 9


def test_a_fault_after_the_commit_leaves_nobody_waiting(store: Store) -> None:
    def careless(tx: Tx) -> int:
        def fail() -> None:
            raise LookupError("after the commit")

        tx.on_commit(fail)
        return add(tx, 1)

    assert queue_behind_one(store, [careless, lambda tx: add(tx, 2)]) == [1, 2]
    assert numbers(store) == {1, 2}


def test_writes_have_the_time_of_the_cloud(store: Store) -> None:
    assert store.write(lambda tx: tx.now) == START


def test_a_reader_sees_one_state(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'store.db'}", CloudClock(scale=0))
    store.write(lambda tx: tx.connection.execute(text("CREATE TABLE numbers (n INTEGER)")) and None)

    def count(connection: Connection) -> int:
        return int(connection.execute(text("SELECT count(*) FROM numbers")).scalar_one())

    with store.read() as connection:
        assert count(connection) == 0
        store.write(lambda tx: add(tx, 1))
        assert count(connection) == 0
    assert numbers(store) == {1}
    store.close()


def test_the_database_stays_when_the_store_is_closed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    store = Store(url, CloudClock(scale=0))
    store.write(lambda tx: tx.connection.execute(text("CREATE TABLE numbers (n INTEGER)")) and None)
    store.write(lambda tx: add(tx, 1))
    store.close()
    again = Store(url, CloudClock(scale=0))
    assert numbers(again) == {1}
    again.close()
