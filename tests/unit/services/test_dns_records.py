"""DNS records of VPCs, at the level of the service."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from iaas.cloud import Cloud
from iaas.drivers.interface import DNSRecordSpec
from iaas.kernel.errors import AlreadyExists, InvalidInput, NotFound, PermissionDenied, QuotaExceeded
from iaas.resources.common import Role
from iaas.resources.networks import VPC, DNSRecord
from iaas.services import vpc_entries
from tests.factories import assert_consistent, open_cloud, operator, principal_in, settle
from tests.unit.services.networks import ALL, done, events_of, field_of, make_vpc, spec_of, used


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with open_cloud() as opened:
        yield opened
        settle(opened)
        assert_consistent(opened)


@pytest.fixture
def vpc(cloud: Cloud) -> VPC:
    return make_vpc(cloud, name="prod", dns_domain="corp.internal")


def add(cloud: Cloud, name: str, values: Sequence[str] = ("10.0.1.5",), type: str = "A", ttl_s: int = 60) -> DNSRecord:
    record, job = cloud.vpc_entries.add_record(
        operator(cloud), "prod", name=name, type=type, values=values, ttl_s=ttl_s
    )
    done(cloud, job)
    return record


def specs(cloud: Cloud, vpc: VPC) -> set[DNSRecordSpec]:
    return set(spec_of(cloud, vpc.id).records)


def test_names_are_relative_unless_a_dot_ends_them(cloud: Cloud, vpc: VPC) -> None:
    record, job = cloud.vpc_entries.add_record(
        operator(cloud), "prod", name="DB", type="a", values=["10.0.1.5", "10.0.1.6"], ttl_s=300
    )
    assert (record.name, record.type, record.values, record.ttl_s) == ("db", "A", ("10.0.1.5", "10.0.1.6"), 300)
    assert job.action == "vpc.apply"
    done(cloud, job)
    add(cloud, "api.example.com.", ["10.0.1.7"])
    add(cloud, "www", ["db"], "CNAME")
    add(cloud, "out", ["Example.com."], "CNAME")
    add(cloud, "_acme-challenge", ["token=1", "second"], "TXT")
    assert specs(cloud, vpc) == {
        DNSRecordSpec(name="db.corp.internal", type="A", values=("10.0.1.5", "10.0.1.6"), ttl_s=300),
        DNSRecordSpec(name="api.example.com", type="A", values=("10.0.1.7",)),
        DNSRecordSpec(name="www.corp.internal", type="CNAME", values=("db.corp.internal",)),
        DNSRecordSpec(name="out.corp.internal", type="CNAME", values=("example.com",)),
        DNSRecordSpec(name="_acme-challenge.corp.internal", type="TXT", values=("token=1", "second")),
    }
    assert cloud.vpc_entries.get_record(operator(cloud), vpc.id, record.id) == record
    assert len(cloud.vpc_entries.list_records(operator(cloud), "prod", ALL)[0]) == 5
    assert used(cloud, "dns_records") == 5
    assert events_of(cloud, vpc.id)[-2:] == ["vpc.updated", "vpc.applied"]


@pytest.mark.parametrize(
    ("name", "type", "values", "ttl_s", "field", "code"),
    [
        ("a b", "A", ["10.0.1.5"], 60, "name", "invalid"),
        ("_db", "A", ["10.0.1.5"], 60, "name", "invalid"),
        ("x" * 63 + "." + "y" * 63 + "." + "z" * 63 + "." + "w" * 50, "A", ["10.0.1.5"], 60, "name", "invalid"),
        ("db", "AAAA", ["fd00::1"], 60, "type", "not_supported"),
        ("db", "MX", ["mail"], 60, "type", "invalid"),
        ("db", "A", ["fd00::1"], 60, "values.0", "not_supported"),
        ("db", "A", [], 60, "values", "required"),
        ("db", "CNAME", ["a", "b"], 60, "values", "too_many"),
        ("db", "CNAME", ["db"], 60, "values.0", "loop"),
        ("db", "TXT", ["x" * 256], 60, "values.0", "too_long"),
        ("db", "A", ["10.0.1.5"], 0, "ttl_s", "out_of_range"),
    ],
)
def test_each_wrong_field_is_named(
    cloud: Cloud, vpc: VPC, name: str, type: str, values: list[str], ttl_s: int, field: str, code: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        add(cloud, name, values, type, ttl_s)
    assert field_of(refused) == (field, code)
    assert used(cloud, "dns_records") == 0
    assert cloud.vpcs.get(operator(cloud), "prod") == vpc


def test_an_alias_is_alone_with_its_name(cloud: Cloud, vpc: VPC) -> None:
    add(cloud, "db")
    add(cloud, "db", ["x"], "TXT")
    add(cloud, "www", ["db"], "CNAME")
    for name, values, type in (
        ("db", ["10.0.1.6"], "A"),
        ("db.corp.internal.", ["10.0.1.6"], "A"),
        ("db", ["www"], "CNAME"),
        ("www", ["10.0.1.6"], "A"),
        ("www", ["other"], "CNAME"),
        ("www.corp.internal.", ["x"], "TXT"),
    ):
        with pytest.raises(AlreadyExists) as refused:
            add(cloud, name, values, type)
        assert field_of(refused) == ("name", "taken")
    assert used(cloud, "dns_records") == 3


def test_aliases_do_not_lead_in_a_circle(cloud: Cloud, vpc: VPC) -> None:
    add(cloud, "a", ["b"], "CNAME")
    add(cloud, "b", ["c.corp.internal."], "CNAME")
    with pytest.raises(InvalidInput) as refused:
        add(cloud, "c", ["a"], "CNAME")
    assert field_of(refused) == ("values.0", "loop")
    add(cloud, "c")


def test_records_follow_the_domain(cloud: Cloud, vpc: VPC) -> None:
    add(cloud, "db")
    add(cloud, "db.example.", ["10.0.1.9"])
    with pytest.raises(InvalidInput) as refused:
        cloud.vpcs.update(operator(cloud), "prod", dns_domain="example")
    assert field_of(refused) == ("dns_domain", "clash")
    done(cloud, cloud.vpcs.update(operator(cloud), "prod", dns_domain="other")[1])
    assert {record.name for record in specs(cloud, vpc)} == {"db.other", "db.example"}


def test_a_record_is_removed(cloud: Cloud, vpc: VPC) -> None:
    record = add(cloud, "db")
    done(cloud, cloud.vpc_entries.delete_record(operator(cloud), "prod", record.id))
    assert specs(cloud, vpc) == set()
    assert used(cloud, "dns_records") == 0
    with pytest.raises(NotFound):
        cloud.vpc_entries.delete_record(operator(cloud), "prod", record.id)
    add(cloud, "db")


def test_long_names_are_claimed_as_well(cloud: Cloud, vpc: VPC) -> None:
    long = ".".join(["x" * 60] * 3)
    add(cloud, long)
    with pytest.raises(AlreadyExists):
        add(cloud, long)
    add(cloud, long, ["x"], "TXT")


def test_a_vpc_has_a_limited_number(cloud: Cloud, vpc: VPC, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vpc_entries, "MAX_RECORDS", 1)
    add(cloud, "a")
    with pytest.raises(QuotaExceeded) as refused:
        add(cloud, "b")
    assert field_of(refused) == ("dns_records", "quota_exceeded")


def test_the_quota(cloud: Cloud, vpc: VPC) -> None:
    cloud.quotas.update(operator(cloud), "default", {"dns_records": 1})
    add(cloud, "a")
    with pytest.raises(QuotaExceeded):
        add(cloud, "b")


def test_records_are_their_vpcs_and_projects(cloud: Cloud, vpc: VPC) -> None:
    record = add(cloud, "db")
    make_vpc(cloud, name="other")
    with pytest.raises(NotFound):
        cloud.vpc_entries.get_record(operator(cloud), "other", record.id)
    stranger, _ = principal_in(cloud, "stranger")
    attempts: list[Callable[[], object]] = [
        lambda: cloud.vpc_entries.get_record(stranger, vpc.id, record.id),
        lambda: cloud.vpc_entries.list_records(stranger, vpc.id, ALL),
        lambda: cloud.vpc_entries.add_record(stranger, vpc.id, name="a", type="A", values=["10.0.1.5"]),
        lambda: cloud.vpc_entries.delete_record(stranger, vpc.id, record.id),
    ]
    for attempt in attempts:
        with pytest.raises(NotFound):
            attempt()
    reader, _ = principal_in(cloud, "default", Role.READER)
    assert cloud.vpc_entries.get_record(reader, vpc.id, record.id) == record
    with pytest.raises(PermissionDenied):
        cloud.vpc_entries.delete_record(reader, vpc.id, record.id)
