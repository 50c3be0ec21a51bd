"""The contract of NetworkDriver, as far as it can be seen without sending a packet."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from iaas.drivers.interface import (
    BLACKHOLE,
    AllowedPair,
    DNSRecordSpec,
    NetworkCapability,
    NotFoundError,
    PermanentError,
    ReservationSpec,
    RouteSpec,
    SubnetState,
)
from tests.contract.network_subjects import NETWORK_SUBJECTS, OWNER, NetworkSubject, subject_params


@pytest.fixture(params=subject_params(NETWORK_SUBJECTS))
def subject(request: pytest.FixtureRequest) -> Iterator[NetworkSubject]:
    made = NETWORK_SUBJECTS[request.param](request)
    yield made
    made.close()


def vpc_ids(subject: NetworkSubject) -> list[str]:
    return [state.vpc_id for state in subject.driver.vpcs()]


def port_ids(subject: NetworkSubject, subnet_id: str) -> list[str]:
    return [state.nic_id for state in subject.driver.ports(subnet_id)]


def test_ensuring_again_changes_nothing(subject: NetworkSubject) -> None:
    vpc = subject.vpc_spec()
    assert subject.driver.ensure_vpc(vpc) == subject.driver.ensure_vpc(vpc)
    assert vpc_ids(subject).count(vpc.vpc_id) == 1
    subnet = subject.subnet_spec(vpc)
    assert subject.driver.ensure_subnet(subnet) == subject.driver.ensure_subnet(subnet)
    assert subject.driver.subnets().count(SubnetState(subnet_id=subnet.subnet_id, vpc_id=vpc.vpc_id)) == 1
    port = subject.port_spec(subnet, "10.77.0.10")
    first = subject.driver.ensure_port(port)
    assert subject.driver.ensure_port(port) == first
    assert subject.driver.ports(subnet.subnet_id) == [first]


def test_removing_what_is_absent_succeeds(subject: NetworkSubject) -> None:
    vpc = subject.vpc_spec()
    subnet = subject.subnet_spec(vpc)
    subject.driver.remove_port(subnet.subnet_id, "nic-absent00")
    subject.driver.remove_subnet(subnet.subnet_id)
    subject.driver.remove_vpc(vpc.vpc_id)
    subject.driver.ensure_vpc(vpc)
    subject.driver.ensure_subnet(subnet)
    subject.driver.remove_port(subnet.subnet_id, "nic-absent00")
    for _ in range(2):
        subject.driver.remove_subnet(subnet.subnet_id)
    for _ in range(2):
        subject.driver.remove_vpc(vpc.vpc_id)
    assert vpc.vpc_id not in vpc_ids(subject)
    assert subnet.subnet_id not in [state.subnet_id for state in subject.driver.subnets()]


def test_a_vpc_keeps_its_cidr(subject: NetworkSubject) -> None:
    vpc = subject.vpc()
    with pytest.raises(PermanentError):
        subject.driver.ensure_vpc(dataclasses.replace(vpc, cidr="10.78.0.0/16", revision=1))


def test_a_vpc_with_subnets_stays(subject: NetworkSubject) -> None:
    vpc = subject.vpc()
    subnet = subject.subnet(vpc)
    with pytest.raises(PermanentError):
        subject.driver.remove_vpc(vpc.vpc_id)
    assert vpc.vpc_id in vpc_ids(subject)
    subject.driver.remove_subnet(subnet.subnet_id)
    subject.driver.remove_vpc(vpc.vpc_id)
    assert vpc.vpc_id not in vpc_ids(subject)


def test_a_subnet_needs_its_vpc_and_a_port_its_subnet(subject: NetworkSubject) -> None:
    subnet = subject.subnet_spec(subject.vpc_spec())
    with pytest.raises(NotFoundError):
        subject.driver.ensure_subnet(subnet)
    with pytest.raises(NotFoundError):
        subject.driver.ensure_port(subject.port_spec(subnet, "10.77.0.10"))
    assert subject.driver.ports(subnet.subnet_id) == []


def test_a_subnet_keeps_its_block_in_a_vpc(subject: NetworkSubject) -> None:
    subnet = subject.subnet(subject.vpc())
    other = dataclasses.replace(subnet, cidr="10.77.1.0/24", gateway="10.77.1.1", revision=1)
    with pytest.raises(PermanentError):
        subject.driver.ensure_subnet(other)


def test_a_subnet_joins_a_vpc_and_leaves_it(subject: NetworkSubject) -> None:
    first, second = subject.vpc(), subject.vpc(cidr="10.78.0.0/16")
    subnet = subject.subnet(None)
    blocks = {first.vpc_id: "10.77.3", second.vpc_id: "10.78.3", None: None}
    for vpc_id in (first.vpc_id, second.vpc_id, None, second.vpc_id):
        block = blocks[vpc_id]
        subnet = dataclasses.replace(
            subnet,
            vpc_id=vpc_id,
            cidr=block and f"{block}.0/24",
            gateway=block and f"{block}.1",
            revision=subnet.revision + 1,
        )
        assert subject.driver.ensure_subnet(subnet) == SubnetState(subnet_id=subnet.subnet_id, vpc_id=vpc_id)
        assert SubnetState(subnet_id=subnet.subnet_id, vpc_id=vpc_id) in subject.driver.subnets()
    subject.driver.remove_vpc(first.vpc_id)
    with pytest.raises(PermanentError):
        subject.driver.remove_vpc(second.vpc_id)


@pytest.mark.parametrize("what", ["vpc", "subnet", "port"])
def test_what_is_older_than_what_is_there_has_no_effect(subject: NetworkSubject, what: str) -> None:
    vpc = subject.vpc(revision=5)
    subnet = subject.subnet(vpc, revision=5)
    port = subject.port(subnet, "10.77.0.10", revision=5)
    # Each would be refused were it not old.
    if what == "vpc":
        subject.driver.ensure_vpc(dataclasses.replace(vpc, cidr="10.99.0.0/16", revision=4))
    elif what == "subnet":
        old = dataclasses.replace(subnet, vpc_id=None, cidr=None, gateway=None, revision=4)
        assert subject.driver.ensure_subnet(old) == SubnetState(subnet_id=subnet.subnet_id, vpc_id=vpc.vpc_id)
    else:
        subject.driver.ensure_port(dataclasses.replace(port, mac=subject.ids.mac(), revision=4))
    subject.driver.ensure_vpc(dataclasses.replace(vpc, revision=6))
    subject.driver.ensure_subnet(dataclasses.replace(subnet, revision=6))
    subject.driver.ensure_port(dataclasses.replace(port, revision=6))


def test_mac_and_addresses_have_one_owner_per_subnet(subject: NetworkSubject) -> None:
    vpc = subject.vpc()
    subnet = subject.subnet(vpc)
    first = subject.port(subnet, "10.77.0.10", "10.77.0.11")
    for refused in (subject.port_spec(subnet, "10.77.0.12", "10.77.0.11"), subject.port_spec(subnet, mac=first.mac)):
        with pytest.raises(PermanentError):
            subject.driver.ensure_port(refused)
    assert port_ids(subject, subnet.subnet_id) == [first.nic_id]
    subject.port(subject.subnet(vpc, cidr="10.77.1.0/24"), mac=first.mac)  # another segment is another matter
    subject.driver.remove_port(subnet.subnet_id, first.nic_id)
    subject.port(subnet, "10.77.0.11", mac=first.mac)


def test_a_port_gets_other_addresses_and_keeps_its_mac(subject: NetworkSubject) -> None:
    subnet = subject.subnet(subject.vpc())
    port = subject.port(subnet, "10.77.0.10")
    subject.driver.ensure_port(dataclasses.replace(port, addresses=("10.77.0.20", "10.77.0.21"), revision=1))
    subject.port(subnet, "10.77.0.10")
    with pytest.raises(PermanentError):
        subject.port(subnet, "10.77.0.21")
    with pytest.raises(PermanentError):
        subject.driver.ensure_port(dataclasses.replace(port, mac=subject.ids.mac(), revision=2))


def test_a_removed_subnet_has_no_ports(subject: NetworkSubject) -> None:
    subnet = subject.subnet(subject.vpc())
    port = subject.port(subnet, "10.77.0.10")
    subject.driver.remove_subnet(subnet.subnet_id)
    assert subject.driver.ports(subnet.subnet_id) == []
    subject.driver.ensure_subnet(subnet)
    assert subject.driver.ports(subnet.subnet_id) == []
    subject.port(subnet, "10.77.0.10", mac=port.mac)


def test_an_absent_vpc_cannot_be_dialled(subject: NetworkSubject) -> None:
    if NetworkCapability.DIAL not in subject.driver.capabilities:
        pytest.skip("this driver cannot dial")
    vpc = subject.vpc()
    subject.driver.remove_vpc(vpc.vpc_id)
    with pytest.raises(NotFoundError):
        subject.driver.dial(vpc.vpc_id, "10.77.0.10", 80, timeout_s=1)


def test_two_vpcs_may_have_the_same_addresses(subject: NetworkSubject) -> None:
    subnets = [subject.subnet(subject.vpc()) for _ in range(2)]
    for subnet in subnets:
        subject.port(subnet, "10.77.0.10")
    assert all(len(subject.driver.ports(subnet.subnet_id)) == 1 for subnet in subnets)


def test_everything_survives_a_restart_of_the_driver(subject: NetworkSubject) -> None:
    vpc = subject.vpc(
        revision=3,
        dns_servers=("10.77.0.53",),
        records=(DNSRecordSpec(name="db.example.test", type="A", values=("10.77.0.10", "10.77.0.11")),),
        routes=(
            RouteSpec(destination="10.244.1.0/24", next_hop="10.77.0.10"),
            RouteSpec(destination="10.244.2.0/24", next_hop=BLACKHOLE),
        ),
    )
    subnet = subject.subnet(
        vpc, revision=3, reservations=(ReservationSpec(owner=OWNER, first="10.77.0.100", last="10.77.0.120"),)
    )
    port = subject.port(
        subnet, "10.77.0.10", names=("web",), allowed_pairs=(AllowedPair(cidr="10.244.1.0/24"),), revision=3
    )
    subject.driver.close()
    subject.driver = subject.reopen()
    assert vpc.vpc_id in vpc_ids(subject)
    assert SubnetState(subnet_id=subnet.subnet_id, vpc_id=vpc.vpc_id) in subject.driver.subnets()
    assert port_ids(subject, subnet.subnet_id) == [port.nic_id]
    # What is older than what it knew is still older.
    subject.driver.ensure_vpc(dataclasses.replace(vpc, cidr="10.99.0.0/16", revision=2))
    subject.driver.ensure_port(dataclasses.replace(port, mac=subject.ids.mac(), revision=2))
    subject.driver.ensure_vpc(vpc)
    subject.driver.ensure_subnet(subnet)
    subject.driver.ensure_port(port)


def test_ports_can_be_had_in_parts(subject: NetworkSubject) -> None:
    subnet = subject.subnet(subject.vpc())
    for number in range(3):
        subject.port(subnet, f"10.77.0.{10 + number}")
    everything = subject.driver.ports(subnet.subnet_id)
    made = [state.nic_id for state in everything]
    assert made == sorted(made)
    assert subject.driver.ports(subnet.subnet_id, limit=2) == everything[:2]
    assert subject.driver.ports(subnet.subnet_id, after=made[1], limit=2) == everything[2:]
    assert subject.driver.ports(subnet.subnet_id, only={made[2], "nic-zzzz9999"}) == everything[2:]


def test_listings_are_in_the_order_of_ids(subject: NetworkSubject) -> None:
    vpcs = [subject.vpc() for _ in range(3)]
    subnets = [subject.subnet(vpc) for vpc in vpcs]
    assert vpc_ids(subject) == sorted(vpc_ids(subject))
    assert {vpc.vpc_id for vpc in vpcs} <= set(vpc_ids(subject))
    listed = [state.subnet_id for state in subject.driver.subnets()]
    assert listed == sorted(listed)
    assert {subnet.subnet_id for subnet in subnets} <= set(listed)


def test_calls_may_come_from_many_threads(subject: NetworkSubject) -> None:
    vpcs = [subject.vpc_spec() for _ in range(3)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(subject.driver.ensure_vpc, vpcs * 2))
        subnets = [subject.subnet_spec(vpc, cidr=f"10.77.{number}.0/24") for vpc in vpcs for number in range(2)]
        list(pool.map(subject.driver.ensure_subnet, subnets * 2))
        ports = [
            subject.port_spec(subnet, f"{str(subnet.gateway).rpartition('.')[0]}.{10 + number}")
            for subnet in subnets
            for number in range(4)
        ]
        list(pool.map(subject.driver.ensure_port, ports))
        # Subnets change sides while their VPCs and ports are worked on.
        moved = [
            dataclasses.replace(subnet, vpc_id=None, cidr=None, gateway=None, revision=1) for subnet in subnets[::2]
        ]
        changed = [dataclasses.replace(vpc, lease_s=600, revision=1) for vpc in vpcs]
        work: list[Future[Any]] = [pool.submit(subject.driver.ensure_subnet, subnet) for subnet in moved]
        work += [pool.submit(subject.driver.ensure_vpc, vpc) for vpc in changed]
        work += [pool.submit(subject.driver.ensure_port, port) for port in ports]
        for each in work:
            each.result()
    for subnet in subnets:
        expected = sorted(port.nic_id for port in ports if port.subnet_id == subnet.subnet_id)
        assert port_ids(subject, subnet.subnet_id) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        {"cidr": "10.77.0.1/16"},
        {"cidr": "fd00::/64"},
        {"routes": (RouteSpec(destination="10.244.0.1/24", next_hop="10.77.0.10"),)},
        {"routes": (RouteSpec(destination="10.244.0.0/24", next_hop="node-1"),)},
        {"routes": (RouteSpec(destination="10.244.0.0/24", next_hop=BLACKHOLE),) * 2},
        {"records": (DNSRecordSpec(name="db.example.test", type="A", values=("nowhere",)),)},
    ],
)
def test_a_vpc_that_makes_no_sense_is_refused(subject: NetworkSubject, wrong: dict[str, Any]) -> None:
    spec = dataclasses.replace(subject.vpc_spec(), **wrong)
    with pytest.raises(PermanentError):
        subject.driver.ensure_vpc(spec)
    assert spec.vpc_id not in vpc_ids(subject)


@pytest.mark.parametrize(
    "wrong",
    [
        {"cidr": None},
        {"gateway": None},
        {"cidr": "10.99.0.0/24", "gateway": "10.99.0.1"},
        {"gateway": "10.77.1.1"},
        {"gateway": "10.77.0.0"},
        {"vpc_id": None},
        {"cidr": "10.77.9.0/25", "gateway": "10.77.9.1"},
        {"reservations": (ReservationSpec(owner=OWNER, first="10.77.0.9", last="10.77.0.8"),)},
    ],
)
def test_a_subnet_that_makes_no_sense_is_refused(subject: NetworkSubject, wrong: dict[str, Any]) -> None:
    vpc = subject.vpc()
    subject.subnet(vpc, cidr="10.77.9.0/24")  # so that the last but one overlaps
    spec = dataclasses.replace(subject.subnet_spec(vpc), **wrong)
    with pytest.raises(PermanentError):
        subject.driver.ensure_subnet(spec)
    assert spec.subnet_id not in [state.subnet_id for state in subject.driver.subnets()]


@pytest.mark.parametrize(
    "wrong",
    [
        {"addresses": ("10.99.0.10",)},
        {"addresses": ("10.77.0.1",)},
        {"addresses": ("10.77.0.0",)},
        {"addresses": ("10.77.0.255",)},
        {"allowed_pairs": (AllowedPair(cidr="10.244.0.0/24 accept"),)},
    ],
)
def test_a_port_that_makes_no_sense_is_refused(subject: NetworkSubject, wrong: dict[str, Any]) -> None:
    subnet = subject.subnet(subject.vpc())
    with pytest.raises(PermanentError):
        subject.driver.ensure_port(dataclasses.replace(subject.port_spec(subnet, "10.77.0.10"), **wrong))
    assert subject.driver.ports(subnet.subnet_id) == []


def test_a_nic_that_is_not_plugged_has_counted_nothing(subject: NetworkSubject) -> None:
    if NetworkCapability.STATISTICS not in subject.driver.capabilities:
        pytest.skip("this driver does not count")
    subnet = subject.subnet(subject.vpc())
    assert subject.driver.statistics(subnet.subnet_id, subject.port(subnet, "10.77.0.10").nic_id) is None
