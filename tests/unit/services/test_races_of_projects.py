"""A project is deleted while others work in it: what they put in keeps it, or they are refused; nothing outlives it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from sqlalchemy import func, select

from iaas.cloud import Cloud
from iaas.db.models import AccessKeyRow, AllocationRow, APITokenRow, InstanceRow, KeyPairRow, LabelRow, QuotaRow
from iaas.db.repositories.query import Listing
from iaas.kernel.errors import NotFound, Unauthenticated
from iaas.resources.common import Page, Principal, Role
from iaas.services.quotas import recount
from tests.factories import operator, settle, wish
from tests.unit.services.racing import RACERS, Entry, outcomes

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIH2Bw1A0Y7yHeeXYJvQPQ4yTn8mXgC5Vb1kY7mZ3pS9d"
LABELS = {"app": "race"}
ROUNDS = 3

Work = Callable[[Cloud, Principal, int], object]

RESOURCES: dict[str, Work] = {
    "instance": lambda cloud, member, number: cloud.instances.create(member, [wish(labels=LABELS)]),
    "key_pair": lambda cloud, member, number: cloud.key_pairs.create(
        member, name=f"key-{number}", public_key=KEY, labels=LABELS
    ),
}
CREDENTIALS: dict[str, Work] = {
    "token": lambda cloud, member, number: cloud.identity.create_token(member, name=f"t-{number}", labels=LABELS),
    "access_key": lambda cloud, member, number: cloud.identity.create_access_key(
        member, name=f"k-{number}", labels=LABELS
    ),
    "token_by_admin": lambda cloud, member, number: cloud.identity.create_token(
        operator(cloud), name=f"t-{number}", project=member.project_id
    ),
}


def open_project(cloud: Cloud, name: str) -> Principal:
    admin = operator(cloud)
    cloud.identity.create_project(admin, name=name)
    _, token = cloud.identity.create_token(admin, name="first", role=Role.MEMBER, project=name, labels=LABELS)
    return cloud.identity.authenticate(token)


def deletes_project(project_id: str) -> Entry:
    return lambda cloud: cloud.identity.delete_project(operator(cloud), project_id)


def rows_of(cloud: Cloud, project_id: str) -> dict[str, int]:
    """Return how many rows there are for the project, by table; tables without any are left out."""
    found: dict[str, int] = {}
    with cloud.store.read() as connection:
        for model in (InstanceRow, KeyPairRow, APITokenRow, AccessKeyRow, QuotaRow):
            table = model.__table__
            query = select(func.count()).select_from(table).where(table.c.project_id == project_id)
            if count := connection.execute(query).scalar():
                found[table.name] = count
    return found


def orphans(cloud: Cloud) -> set[str]:
    """Return ids that have labels or claims, but no row."""
    with cloud.store.read() as connection:
        holders = set(connection.execute(select(LabelRow.resource_id)).scalars())
        scope = AllocationRow.scope
        names = select(AllocationRow.resource_id).where(scope.like("name:key_pair:%") | scope.like("name:project%"))
        holders |= set(connection.execute(names).scalars())
        for model in (InstanceRow, KeyPairRow, APITokenRow, AccessKeyRow):
            holders -= set(connection.execute(select(model.__table__.c.id)).scalars())
        holders -= set(connection.execute(select(QuotaRow.project_id)).scalars())
    return holders


@pytest.mark.parametrize("what", RESOURCES)
def test_a_project_goes_or_what_is_put_into_it_stays(clouds: Sequence[Cloud], what: str) -> None:
    first = clouds[0]
    ends = set()
    for number in range(ROUNDS):
        member = open_project(first, f"team-{number}")
        creators: list[Entry] = [
            lambda cloud, member=member, racer=racer: RESOURCES[what](cloud, member, racer) for racer in range(2)
        ]
        deleted, *created = outcomes(clouds, [deletes_project(member.project_id), *creators])
        ends.add(deleted)
        if deleted == "won":
            assert set(created) == {"Unauthenticated"}
            assert rows_of(first, member.project_id) == {}
        else:
            assert deleted == "InUse"
            assert "won" in created
            assert rows_of(first, member.project_id)["quotas"] > 0
            for cloud in clouds:
                settle(cloud)
        for found in first.instances.list_page(member, Listing(page=Page(limit=100)))[0]:
            first.instances.delete(member, found.id, purge=True)
        for cloud in clouds:
            settle(cloud)
        assert orphans(first) == set()
        with first.store.read() as connection:
            assert recount(connection) == []
    assert ends <= {"won", "InUse"}


@pytest.mark.parametrize("what", CREDENTIALS)
def test_no_credential_outlives_its_project(clouds: Sequence[Cloud], what: str) -> None:
    first = clouds[0]
    for number in range(ROUNDS):
        member = open_project(first, f"team-{number}")
        creators: list[Entry] = [
            lambda cloud, member=member, racer=racer: CREDENTIALS[what](cloud, member, racer)
            for racer in range(RACERS - 1)
        ]
        deleted, *created = outcomes(clouds, [deletes_project(member.project_id), *creators])
        assert deleted == "won"
        assert set(created) <= {"won", "Unauthenticated", "NotFound"}
        assert rows_of(first, member.project_id) == {}
        assert orphans(first) == set()


def test_a_project_is_deleted_by_one(clouds: Sequence[Cloud]) -> None:
    for number in range(ROUNDS):
        member = open_project(clouds[0], f"team-{number}")
        found = outcomes(clouds, [deletes_project(member.project_id)] * RACERS)
        assert sorted(found) == ["NotFound"] * (RACERS - 1) + ["won"]


def test_a_project_that_is_renamed_while_it_is_deleted_holds_no_name(clouds: Sequence[Cloud]) -> None:
    for number in range(ROUNDS):
        member = open_project(clouds[0], f"team-{number}")
        renames: list[Entry] = [
            lambda cloud, member=member, new=f"new-{number}-{racer}": cloud.identity.update_project(
                operator(cloud), member.project_id, name=new, labels={"by": new}
            )
            for racer in range(4)
        ]
        deleted, *_ = outcomes(clouds, [deletes_project(member.project_id), *renames])
        assert deleted == "won"
        assert orphans(clouds[0]) == set()
        clouds[0].identity.create_project(operator(clouds[0]), name=f"new-{number}-0")


def test_a_key_pair_that_is_renamed_while_it_is_deleted_holds_no_name(clouds: Sequence[Cloud]) -> None:
    first = clouds[0]
    member = open_project(first, "team")
    for number in range(ROUNDS):
        made, _ = first.key_pairs.create(member, name=f"old-{number}", public_key=KEY)
        renames: list[Entry] = [
            lambda cloud, made=made, new=f"new-{number}-{racer}": cloud.key_pairs.update(
                member, made.id, name=new, labels={"by": new}
            )
            for racer in range(4)
        ]
        deletes: list[Entry] = [lambda cloud, made=made: cloud.key_pairs.delete(member, made.id)]
        deleted, *renamed = outcomes(clouds, deletes + renames)
        assert deleted == "won"
        assert set(renamed) <= {"won", "NotFound"}
        assert orphans(first) == set()
        assert rows_of(first, member.project_id).keys() == {"api_tokens", "quotas"}


def test_a_key_pair_deleted_on_the_way_is_not_renamed(clouds: Sequence[Cloud], monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = clouds[-1]
    member = open_project(cloud, "team")
    made, _ = cloud.key_pairs.create(member, name="old", public_key=KEY)
    write = cloud.store.write

    def late(work: Callable[..., object]) -> object:
        monkeypatch.undo()
        clouds[0].key_pairs.delete(member, made.id)
        return write(work)

    monkeypatch.setattr(cloud.store, "write", late)
    with pytest.raises(NotFound):
        cloud.key_pairs.update(member, made.id, name="new")
    assert orphans(cloud) == set()


@pytest.mark.parametrize("what", {**RESOURCES, **CREDENTIALS})
def test_a_project_deleted_on_the_way_refuses(
    clouds: Sequence[Cloud], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The narrowest place, every time: the project goes after the request was let in and before it is written."""
    cloud = clouds[-1]
    member = open_project(cloud, "team")
    write = cloud.store.write

    def late(work: Callable[..., object]) -> object:
        monkeypatch.undo()
        clouds[0].identity.delete_project(operator(clouds[0]), member.project_id)
        return write(work)

    monkeypatch.setattr(cloud.store, "write", late)
    with pytest.raises(NotFound if what == "token_by_admin" else Unauthenticated):
        {**RESOURCES, **CREDENTIALS}[what](cloud, member, 1)
    assert rows_of(cloud, member.project_id) == {}
    assert orphans(cloud) == set()
