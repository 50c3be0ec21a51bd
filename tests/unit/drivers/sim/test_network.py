from __future__ import annotations

import socket
from dataclasses import replace
from typing import Any

import pytest

from iaas.drivers.interface import (
    AllowedPair,
    DNSRecordSpec,
    ForwarderSpec,
    MachineSpec,
    NotFoundError,
    PermanentError,
    PortSpec,
    ReservationSpec,
    RouteSpec,
    SubnetSpec,
    TransientError,
    UnsupportedError,
    VPCSpec,
)
from iaas.drivers.sim.compute import SimComputeDriver
from iaas.drivers.sim.network import SimNetworkDriver
from iaas.drivers.sim.world import SimWorld
from iaas.kernel.clock import CloudClock
from tests.unit.drivers.sim.conftest import ADDRESS, PORT, SUBNET, VM_ID, VPC

BARE = SubnetSpec(subnet_id="net-00000002")
OTHER_PORT = replace(PORT, nic_id="nic-00000002", mac="52:54:00:00:00:02", addresses=("10.0.0.11",), names=("db",))


def ask(networks: SimNetworkDriver, request: bytes) -> bytes:
    answer = b""
    with networks.dial(VPC.vpc_id, ADDRESS, 80, timeout_s=10) as connection:
        connection.sendall(request)
        while received := connection.recv(4096):
            answer += received
    return answer


def get(networks: SimNetworkDriver, path: str) -> tuple[str, bytes]:
    head, _, body = ask(networks, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()).partition(b"\r\n\r\n")
    return head.split(b"\r\n")[0].decode(), body


def ports_of(networks: SimNetworkDriver, subnet: SubnetSpec = SUBNET) -> list[str]:
    return [port.nic_id for port in networks.ports(subnet.subnet_id)]


# --- dialling ----------------------------------------------------------------------------------------------


def test_a_ready_guest_answers_http_and_says_who_it_is(ready_vm: SimComputeDriver, networks: SimNetworkDriver) -> None:
    assert get(networks, "/") == ("HTTP/1.0 200 OK", b"id=i-vm000001 host=web-1 kind=vm kernel=sim\n")
    assert get(networks, "/nothing")[0] == "HTTP/1.0 404 Not Found"


def test_the_page_serves_what_the_guest_has_written(ready_vm: SimComputeDriver, networks: SimNetworkDriver) -> None:
    ready_vm.execute(VM_ID, ["sh", "-c", "echo hello > /var/www/hello.txt"], timeout_s=5)
    assert get(networks, "/hello.txt?a=b") == ("HTTP/1.0 200 OK", b"hello\n")
    assert get(networks, "/../../etc/hostname")[0] == "HTTP/1.0 404 Not Found"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST / HTTP/1.0\r\n\r\n", b"405"),
        (b"\xff\xfe\r\n\r\n", b"405"),
        (b"GET / HTTP/1.0\r\n" + b"X: y\r\n" * 4000, b"413"),
    ],
)
def test_the_page_refuses_what_is_no_get(
    ready_vm: SimComputeDriver, networks: SimNetworkDriver, request_bytes: bytes, status: bytes
) -> None:
    try:
        answer = ask(networks, request_bytes)
    except ConnectionError:
        assert status == b"413"  # refused in the middle of the request
        return
    assert answer.split()[1] == status


def test_head_has_no_body(ready_vm: SimComputeDriver, networks: SimNetworkDriver) -> None:
    assert ask(networks, b"HEAD / HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\n")


def test_who_hangs_up_at_once_disturbs_nobody(ready_vm: SimComputeDriver, networks: SimNetworkDriver) -> None:
    networks.dial(VPC.vpc_id, ADDRESS, 80, timeout_s=1).close()
    assert get(networks, "/")[0] == "HTTP/1.0 200 OK"


def test_only_a_running_guest_that_is_ready_can_be_reached(
    vms: SimComputeDriver, networks: SimNetworkDriver, spec: MachineSpec, clock: CloudClock
) -> None:
    def dial(port: int = 80) -> socket.socket:
        return networks.dial(VPC.vpc_id, ADDRESS, port, timeout_s=1)

    with pytest.raises(TransientError, match="no machine"):
        dial()
    vms.ensure_machine(spec)
    with pytest.raises(TransientError, match="does not run"):
        dial()
    vms.start_machine(VM_ID)
    with pytest.raises(TransientError, match="does not run"):
        dial()
    clock.advance(2)
    with pytest.raises(TransientError, match="refused"):
        dial()
    clock.advance(10)
    dial().close()
    with pytest.raises(TransientError, match="refused"):
        dial(port=22)
    vms.stop_machine(VM_ID, force=True)
    with pytest.raises(TransientError, match="does not run"):
        dial()


def test_what_cannot_be_dialled_is_told_apart(networks: SimNetworkDriver) -> None:
    with pytest.raises(NotFoundError):
        networks.dial("vpc-absent00", ADDRESS, 80, timeout_s=1)
    for address in ("10.0.0.1", "192.0.2.1", "nonsense", "::1"):
        with pytest.raises(PermanentError, match="no guest address"):
            networks.dial(VPC.vpc_id, address, 80, timeout_s=1)
    for address in ("10.0.0.77", "10.0.9.9"):  # nobody has it; no subnet has it
        with pytest.raises(TransientError, match="does not answer"):
            networks.dial(VPC.vpc_id, address, 80, timeout_s=1)
    networks.ensure_vpc(replace(VPC, routes=(RouteSpec(destination="192.0.2.0/24", next_hop=ADDRESS),)))
    with pytest.raises(TransientError, match="does not answer"):
        networks.dial(VPC.vpc_id, "192.0.2.1", 80, timeout_s=1)


def test_nothing_can_listen_in_a_simulated_vpc(networks: SimNetworkDriver) -> None:
    with pytest.raises(UnsupportedError):
        networks.listen(VPC.vpc_id, "169.254.169.254", 80)


# --- VPCs --------------------------------------------------------------------------------------------------


def test_a_vpc_changes_all_but_its_cidr(networks: SimNetworkDriver) -> None:
    networks.ensure_vpc(replace(VPC, dns_domain="corp", lease_s=60))
    with pytest.raises(PermanentError, match="with the addresses"):
        networks.ensure_vpc(replace(VPC, cidr="10.1.0.0/16"))
    networks.ensure_vpc(VPCSpec(vpc_id="vpc-00000002", cidr=VPC.cidr))
    assert [vpc.vpc_id for vpc in networks.vpcs()] == ["vpc-00000001", "vpc-00000002"]


def test_a_vpc_goes_after_its_subnets(networks: SimNetworkDriver) -> None:
    with pytest.raises(PermanentError, match="still has the subnet"):
        networks.remove_vpc(VPC.vpc_id)
    networks.remove_subnet(SUBNET.subnet_id)
    for _ in range(2):
        networks.remove_vpc(VPC.vpc_id)
    assert (networks.vpcs(), networks.subnets(), ports_of(networks)) == ([], [], [])


@pytest.mark.parametrize(
    "change",
    [
        {"cidr": "x"},
        {"cidr": "10.0.0.1/16"},
        {"cidr": "fd00::/64"},
        {"dns_servers": ("ns",)},
        {"ntp_servers": ("10.0.0.256",)},
        {"routes": (RouteSpec(destination="10.9.0.1/16", next_hop=ADDRESS),)},
        {"routes": (RouteSpec(destination="10.9.0.0/16", next_hop="node-1"),)},
        {"routes": (RouteSpec(destination="10.9.0.0/16", next_hop=ADDRESS),) * 2},
        {"records": (DNSRecordSpec(name="a.internal", type="MX", values=("b",)),)},
        {"records": (DNSRecordSpec(name="a.internal", type="A", values=("b",)),)},
        {"records": (DNSRecordSpec(name="a.internal", type="A", values=()),)},
        {"forwarders": (ForwarderSpec(domain="cluster.local", servers=()),)},
        {"forwarders": (ForwarderSpec(domain="cluster.local", servers=("dns",)),)},
    ],
)
def test_a_vpc_that_makes_no_sense_is_refused(networks: SimNetworkDriver, change: dict[str, Any]) -> None:
    with pytest.raises(PermanentError):
        networks.ensure_vpc(replace(VPC, vpc_id="vpc-other000", **change))
    assert [vpc.vpc_id for vpc in networks.vpcs()] == [VPC.vpc_id]


# --- subnets -----------------------------------------------------------------------------------------------


def test_a_subnet_joins_and_leaves_and_joins_another_vpc(networks: SimNetworkDriver) -> None:
    networks.ensure_subnet(BARE)
    joined = replace(BARE, vpc_id=VPC.vpc_id, cidr="10.0.1.0/24", gateway="10.0.1.1")
    assert networks.ensure_subnet(joined).vpc_id == VPC.vpc_id
    assert [(each.subnet_id, each.vpc_id) for each in networks.subnets()] == [
        (SUBNET.subnet_id, VPC.vpc_id),
        (BARE.subnet_id, VPC.vpc_id),
    ]
    networks.ensure_vpc(VPCSpec(vpc_id="vpc-00000002", cidr="172.16.0.0/16"))
    elsewhere = replace(BARE, vpc_id="vpc-00000002", cidr="172.16.5.0/24", gateway="172.16.5.254")
    networks.ensure_subnet(elsewhere)
    assert networks.ensure_subnet(BARE).vpc_id is None
    networks.remove_vpc("vpc-00000002")


@pytest.mark.parametrize(
    "change",
    [
        {"cidr": "10.0.0.0/23"},  # around the other one
        {"cidr": "10.0.0.128/25", "gateway": "10.0.0.129"},  # inside it
        {"cidr": "10.0.0.0/16"},
        {"cidr": "10.1.0.0/24", "gateway": "10.1.0.1"},  # outside the VPC
        {"cidr": "nonsense"},
        {"cidr": None},
        {"gateway": None},
        {"gateway": "10.0.1.0"},
        {"gateway": "10.0.1.255"},
        {"gateway": "10.0.2.1"},
        {"gateway": "x"},
        {"vpc_id": None},
        {"mtu": 20},
        {"reservations": (ReservationSpec(owner="p", first="10.0.1.9", last="10.0.1.8"),)},
        {"reservations": (ReservationSpec(owner="p", first="10.0.1.9", last="10.0.2.8"),)},
        {"reservations": (ReservationSpec(owner="p", first="x", last="y"),)},
    ],
)
def test_a_subnet_that_makes_no_sense_is_refused(networks: SimNetworkDriver, change: dict[str, Any]) -> None:
    good = SubnetSpec(subnet_id="net-other000", vpc_id=VPC.vpc_id, cidr="10.0.1.0/24", gateway="10.0.1.1")
    with pytest.raises(PermanentError):
        networks.ensure_subnet(replace(good, **change))
    assert [each.subnet_id for each in networks.subnets()] == [SUBNET.subnet_id]
    networks.ensure_subnet(good)


def test_a_subnet_keeps_its_block_while_it_is_in_the_vpc(networks: SimNetworkDriver) -> None:
    networks.ensure_subnet(replace(SUBNET, mtu=1400, gateway="10.0.0.254"))
    with pytest.raises(PermanentError, match="with the addresses"):
        networks.ensure_subnet(replace(SUBNET, cidr="10.0.3.0/24", gateway="10.0.3.1"))
    with pytest.raises(PermanentError, match="that of NIC"):
        networks.ensure_subnet(replace(SUBNET, gateway=ADDRESS))
    with pytest.raises(NotFoundError):
        networks.ensure_subnet(replace(SUBNET, vpc_id="vpc-absent00"))


# --- ports -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "port",
    [
        replace(OTHER_PORT, mac=PORT.mac),
        replace(OTHER_PORT, addresses=("10.0.0.11", ADDRESS)),
        replace(OTHER_PORT, addresses=("10.0.0.11", "10.0.0.11")),
        replace(OTHER_PORT, addresses=("10.0.0.1",)),
        replace(OTHER_PORT, addresses=("10.0.0.255",)),
        replace(OTHER_PORT, addresses=("10.9.0.1",)),
        replace(OTHER_PORT, addresses=("nonsense",)),
        replace(OTHER_PORT, allowed_pairs=(AllowedPair(cidr="10.0.0.1/8"),)),
        replace(PORT, mac=OTHER_PORT.mac),
    ],
)
def test_a_port_that_cannot_be_is_refused_and_leaves_nothing(networks: SimNetworkDriver, port: PortSpec) -> None:
    with pytest.raises(PermanentError):
        networks.ensure_port(port)
    assert ports_of(networks) == [PORT.nic_id]
    networks.ensure_port(OTHER_PORT)


def test_a_port_of_an_absent_subnet_is_not_found(networks: SimNetworkDriver) -> None:
    with pytest.raises(NotFoundError):
        networks.ensure_port(replace(PORT, subnet_id="net-absent00"))


def test_a_port_gives_back_the_addresses_that_it_has_no_more(networks: SimNetworkDriver) -> None:
    networks.ensure_port(replace(PORT, addresses=("10.0.0.12", "10.0.0.13")))
    networks.ensure_port(replace(OTHER_PORT, addresses=(ADDRESS,)))
    with pytest.raises(PermanentError):
        networks.ensure_port(PORT)
    networks.ensure_port(replace(PORT, addresses=()))
    networks.ensure_port(replace(OTHER_PORT, addresses=("10.0.0.12", ADDRESS, "10.0.0.13")))
    for _ in range(2):
        networks.remove_port(SUBNET.subnet_id, OTHER_PORT.nic_id)
    networks.ensure_port(PORT)
    assert ports_of(networks) == [PORT.nic_id]


def test_ports_of_two_subnets_know_nothing_of_each_other(networks: SimNetworkDriver) -> None:
    networks.ensure_subnet(BARE)
    networks.ensure_port(replace(PORT, subnet_id=BARE.subnet_id))
    networks.remove_subnet(BARE.subnet_id)
    assert ports_of(networks, BARE) == []
    assert ports_of(networks) == [PORT.nic_id]


# --- revisions, and what costs nothing ---------------------------------------------------------------------


def test_an_older_revision_is_taken_as_done(networks: SimNetworkDriver) -> None:
    networks.ensure_vpc(replace(VPC, revision=5, dns_domain="new"))
    networks.ensure_vpc(replace(VPC, revision=4, cidr="10.9.0.0/16"))
    networks.ensure_subnet(replace(SUBNET, revision=5))
    assert networks.ensure_subnet(SubnetSpec(subnet_id=SUBNET.subnet_id, revision=4)).vpc_id == VPC.vpc_id
    networks.ensure_port(replace(PORT, revision=5))
    networks.ensure_port(replace(PORT, revision=4, addresses=("10.0.0.20",), mac="52:54:00:00:00:99"))
    networks.ensure_port(replace(OTHER_PORT, addresses=("10.0.0.20",)))
    with pytest.raises(PermanentError):  # the same revision is not older
        networks.ensure_port(replace(PORT, revision=5, mac="52:54:00:00:00:99"))
    networks.ensure_subnet(SubnetSpec(subnet_id=SUBNET.subnet_id, revision=6))
    networks.remove_vpc(VPC.vpc_id)


def test_what_is_there_already_costs_one_look(world: SimWorld, networks: SimNetworkDriver) -> None:
    statements: list[str] = []
    with world.lock:
        world.connection().set_trace_callback(statements.append)
    networks.ensure_vpc(VPC)
    networks.ensure_subnet(SUBNET)
    networks.ensure_port(PORT)
    with world.lock:
        world.connection().set_trace_callback(None)
    assert [statement.split()[0] for statement in statements] == ["SELECT", "SELECT", "SELECT"]
