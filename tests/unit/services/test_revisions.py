"""Staged and applied configurations, on a sample resource: a firewall with rules that exists in this test only."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import Connection, MetaData, delete, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from iaas.db.models.base import ID, Base, Identified, Revised
from iaas.db.store import Store, Tx
from iaas.kernel.clock import CloudClock
from iaas.kernel.errors import NotFound, PreconditionFailed
from iaas.services.revisions import Revisions


class SampleBase(DeclarativeBase):
    metadata = MetaData()
    type_annotation_map = Base.type_annotation_map


class FirewallRow(Identified, Revised, SampleBase):
    __tablename__ = "sample_firewalls"


class RuleRow(SampleBase):
    __tablename__ = "sample_rules"

    firewall_id: Mapped[str] = mapped_column(ID, primary_key=True)
    port: Mapped[int] = mapped_column(primary_key=True)


FIREWALLS, RULES = FirewallRow.__table__, RuleRow.__table__


def configuration_of(connection: Connection, firewall_id: str) -> dict[str, Any]:
    query = select(RULES.c.port).where(RULES.c.firewall_id == firewall_id).order_by(RULES.c.port)
    return {"ports": list(connection.execute(query).scalars())}


SAMPLE = Revisions("firewall", FIREWALLS, configuration_of)


def make_store(url: str = "sqlite://") -> Store:
    store = Store(url, CloudClock(scale=0))
    SampleBase.metadata.create_all(store.engine)
    return store


def add_firewall(store: Store, firewall_id: str) -> None:
    values = {"id": firewall_id, "revision": 0, "applied_revision": 0, "applied": {"ports": []}}
    store.write(lambda tx: tx.connection.execute(insert(FirewallRow).values(values)))


def open_port(tx: Tx, firewall_id: str, port: int, *, apply: bool) -> int:
    with SAMPLE.change(tx, firewall_id, apply=apply) as revision:
        tx.connection.execute(delete(RuleRow).where(RULES.c.firewall_id == firewall_id, RULES.c.port == port))
        tx.connection.execute(insert(RuleRow).values(firewall_id=firewall_id, port=port))
    return revision


@pytest.fixture
def store() -> Iterator[Store]:
    made = make_store()
    add_firewall(made, "fw-1")
    add_firewall(made, "fw-2")
    yield made
    made.close()


def applied(store: Store, firewall_id: str = "fw-1") -> tuple[int, list[int]]:
    with store.read() as connection:
        found = SAMPLE.applied(connection, firewall_id)
    return found.revision, found.configuration["ports"]


def pending(store: Store) -> list[str]:
    with store.read() as connection:
        return SAMPLE.pending(connection)


def test_a_native_change_is_applied_in_its_own_commit(store: Store) -> None:
    assert store.write(lambda tx: open_port(tx, "fw-1", 80, apply=True)) == 1
    assert applied(store) == (1, [80])
    assert applied(store, "fw-2") == (0, [])
    assert pending(store) == []


def test_a_staged_change_waits(store: Store) -> None:
    store.write(lambda tx: open_port(tx, "fw-1", 80, apply=False))
    store.write(lambda tx: open_port(tx, "fw-1", 443, apply=False))
    assert applied(store) == (0, [])
    assert pending(store) == ["fw-1"]
    done = store.write(lambda tx: SAMPLE.apply(tx, "fw-1"))
    assert (done.revision, done.configuration) == (2, {"ports": [80, 443]})
    assert applied(store) == (2, [80, 443])
    assert pending(store) == []
    assert store.write(lambda tx: SAMPLE.apply(tx, "fw-1")) == done


def test_a_native_change_takes_what_was_staged_along(store: Store) -> None:
    store.write(lambda tx: open_port(tx, "fw-1", 80, apply=False))
    store.write(lambda tx: open_port(tx, "fw-1", 443, apply=True))
    assert applied(store) == (2, [80, 443])


def test_what_others_staged_since_is_not_applied_unseen(store: Store) -> None:
    seen = store.write(lambda tx: open_port(tx, "fw-1", 80, apply=False))
    store.write(lambda tx: open_port(tx, "fw-1", 443, apply=False))
    with pytest.raises(PreconditionFailed, match="fw-1"):
        store.write(lambda tx: SAMPLE.apply(tx, "fw-1", revision=seen))
    assert applied(store) == (0, [])
    store.write(lambda tx: SAMPLE.apply(tx, "fw-1", revision=seen + 1))
    assert applied(store) == (2, [80, 443])


def test_a_change_that_breaks_leaves_nothing(store: Store) -> None:
    def broken(tx: Tx) -> None:
        with SAMPLE.change(tx, "fw-1"):
            tx.connection.execute(insert(RuleRow).values(firewall_id="fw-1", port=80))
            raise RuntimeError("it broke")

    with pytest.raises(RuntimeError):
        store.write(broken)
    assert applied(store) == (0, [])
    assert store.write(lambda tx: open_port(tx, "fw-1", 22, apply=True)) == 1
    assert applied(store) == (1, [22])


def test_a_resource_that_is_not_there(store: Store) -> None:
    with pytest.raises(NotFound):
        store.write(lambda tx: open_port(tx, "fw-9", 80, apply=True))
    with pytest.raises(NotFound):
        store.write(lambda tx: SAMPLE.apply(tx, "fw-9"))
    with pytest.raises(NotFound):
        applied(store, "fw-9")


def test_everything_that_is_applied_at_once(store: Store) -> None:
    store.write(lambda tx: open_port(tx, "fw-2", 80, apply=True))
    with store.read() as connection:
        found = SAMPLE.all_applied(connection)
    assert {key: each.configuration["ports"] for key, each in found.items()} == {"fw-1": [], "fw-2": [80]}


def test_parallel_changes_lose_nothing(tmp_path: Path) -> None:
    store = make_store(f"sqlite:///{tmp_path / 'sample.db'}")
    add_firewall(store, "fw-1")

    def work(number: int) -> None:
        for port in range(number * 100, number * 100 + 10):
            store.write(lambda tx, port=port: open_port(tx, "fw-1", port, apply=port % 2 == 0))  # type: ignore[misc]  # a default is how a loop's value is kept

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = store.write(lambda tx: SAMPLE.apply(tx, "fw-1"))
    assert done.revision == 60
    assert len(done.configuration["ports"]) == 60
    store.close()


class Firewalls(RuleBasedStateMachine):
    """Any order of changes, staged or not, broken or not: the applied document is the rows of its revision."""

    ports = st.integers(1, 5)
    ids = st.sampled_from(["fw-1", "fw-2"])

    @initialize()
    def begin(self) -> None:
        self.store = make_store()
        self.wanted: dict[str, set[int]] = {"fw-1": set(), "fw-2": set()}
        self.revision = {"fw-1": 0, "fw-2": 0}
        self.applied: dict[str, tuple[int, list[int]]] = {"fw-1": (0, []), "fw-2": (0, [])}
        for firewall_id in self.wanted:
            add_firewall(self.store, firewall_id)

    @rule(firewall_id=ids, port=ports, apply=st.booleans())
    def open(self, firewall_id: str, port: int, apply: bool) -> None:
        self.store.write(lambda tx: open_port(tx, firewall_id, port, apply=apply))
        self.wanted[firewall_id].add(port)
        self._changed(firewall_id, apply=apply)

    @rule(firewall_id=ids, port=ports, apply=st.booleans())
    def close(self, firewall_id: str, port: int, apply: bool) -> None:
        def work(tx: Tx) -> None:
            with SAMPLE.change(tx, firewall_id, apply=apply):
                tx.connection.execute(delete(RuleRow).where(RULES.c.firewall_id == firewall_id, RULES.c.port == port))

        self.store.write(work)
        self.wanted[firewall_id].discard(port)
        self._changed(firewall_id, apply=apply)

    @rule(firewall_id=ids, port=ports, apply=st.booleans())
    def break_down(self, firewall_id: str, port: int, apply: bool) -> None:
        def work(tx: Tx) -> None:
            open_port(tx, firewall_id, port, apply=apply)
            raise RuntimeError("it broke after all")

        with suppress(RuntimeError):
            self.store.write(work)

    @rule(firewall_id=ids, behind=st.integers(0, 2))
    def apply_seen(self, firewall_id: str, behind: int) -> None:
        seen = self.revision[firewall_id] - behind
        if behind == 0:
            self.store.write(lambda tx: SAMPLE.apply(tx, firewall_id, revision=seen))
            self._applied(firewall_id)
        else:
            with pytest.raises(PreconditionFailed):
                self.store.write(lambda tx: SAMPLE.apply(tx, firewall_id, revision=seen))

    def _changed(self, firewall_id: str, *, apply: bool) -> None:
        self.revision[firewall_id] += 1
        if apply:
            self._applied(firewall_id)

    def _applied(self, firewall_id: str) -> None:
        self.applied[firewall_id] = (self.revision[firewall_id], sorted(self.wanted[firewall_id]))

    @invariant()
    def only_what_was_applied_is_applied(self) -> None:
        with self.store.read() as connection:
            found = SAMPLE.all_applied(connection)
            wanted = {each: configuration_of(connection, each)["ports"] for each in self.wanted}
            waiting = SAMPLE.pending(connection)
        assert {key: (each.revision, each.configuration["ports"]) for key, each in found.items()} == self.applied
        assert wanted == {key: sorted(ports) for key, ports in self.wanted.items()}
        assert waiting == sorted(key for key, number in self.revision.items() if self.applied[key][0] < number)

    def teardown(self) -> None:
        self.store.close()


TestFirewalls = Firewalls.TestCase
TestFirewalls.settings = settings(
    max_examples=30, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
