"""Simulated guests that talk to each other, and what is counted of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from iaas.drivers.interface import (
    BLACKHOLE,
    AllowedPair,
    DNSRecordSpec,
    ForwarderSpec,
    MachineSpec,
    NICSpec,
    PortSpec,
    ReservationSpec,
    RouteSpec,
    SubnetSpec,
    VPCSpec,
)
from iaas.drivers.sim.compute import SimComputeDriver
from iaas.drivers.sim.latency import LatencyModel
from iaas.drivers.sim.network import SimNetworkDriver
from iaas.drivers.sim.world import SimWorld
from iaas.kernel.clock import CloudClock
from tests.unit.drivers.sim.conftest import ADDRESS, PORT, SUBNET, VM_ID, VPC

OTHER = "i-vm000002"
OTHER_SUBNET = SubnetSpec(subnet_id="net-00000002", vpc_id=VPC.vpc_id, cidr="10.0.1.0/24", gateway="10.0.1.1")
TWIN_VPC = VPCSpec(vpc_id="vpc-00000002", cidr=VPC.cidr)
TWIN_SUBNET = replace(SUBNET, subnet_id="net-00000003", vpc_id=TWIN_VPC.vpc_id)
PING_BYTES = 98

Boot = Callable[..., None]


@pytest.fixture
def boot(world: SimWorld, vms: SimComputeDriver, networks: SimNetworkDriver, spec: MachineSpec) -> Boot:
    """Make a machine with NICs on these ports, running and ready, in a world in which nothing takes time."""
    world.latency = LatencyModel.instant()

    def made(machine_id: str, *ports: PortSpec) -> None:
        for port in ports:
            networks.ensure_port(port)
        nics = tuple(
            NICSpec(nic_id=port.nic_id, subnet_id=port.subnet_id, mac=port.mac, device_index=index)
            for index, port in enumerate(ports)
        )
        vms.ensure_machine(replace(spec, machine_id=machine_id, hostname="other", nics=nics))
        vms.start_machine(machine_id)

    return made


def port_of(number: int, *addresses: str, subnet: SubnetSpec = SUBNET, **more: object) -> PortSpec:
    mac = f"52:54:00:00:00:{number:02x}"
    port = replace(PORT, nic_id=f"nic-{number:08d}", mac=mac, subnet_id=subnet.subnet_id, addresses=addresses, names=())
    return replace(port, **more)  # type: ignore[arg-type] # fields by name, checked by the class at once


def sh(driver: SimComputeDriver, script: str, machine_id: str = VM_ID) -> tuple[int, str]:
    result = driver.execute(machine_id, ["sh", "-c", script], timeout_s=100)
    return result.exit_code, (result.stdout + result.stderr).decode()


def reaches(driver: SimComputeDriver, address: str, machine_id: str = VM_ID) -> bool:
    """Return whether ping and HTTP both get through, or both do not."""
    pinged = sh(driver, f"ping -c 1 -W 1 {address}", machine_id)[0]
    got = sh(driver, f"curl -s -m 2 http://{address}/", machine_id)[0]
    assert (pinged == 0) == (got == 0), (pinged, got)
    return pinged == 0


# --- who reaches whom --------------------------------------------------------------------------------------


def test_guests_of_one_subnet_reach_each_other(ready_vm: SimComputeDriver, boot: Boot) -> None:
    boot(OTHER, port_of(2, "10.0.0.11"))
    assert reaches(ready_vm, "10.0.0.11")
    assert reaches(ready_vm, ADDRESS, OTHER)
    assert sh(ready_vm, "wget -qO- http://10.0.0.11/") == (0, "id=i-vm000002 host=other kind=vm kernel=sim\n")
    assert "ttl=64" in sh(ready_vm, "ping -c 1 10.0.0.11")[1]


def test_guests_of_two_subnets_reach_each_other_by_the_router(
    ready_vm: SimComputeDriver, networks: SimNetworkDriver, boot: Boot
) -> None:
    networks.ensure_subnet(OTHER_SUBNET)
    boot(OTHER, port_of(2, "10.0.1.10", subnet=OTHER_SUBNET))
    assert reaches(ready_vm, "10.0.1.10")
    assert reaches(ready_vm, ADDRESS, OTHER)
    assert "ttl=63" in sh(ready_vm, "ping -c 1 10.0.1.10")[1]
    networks.ensure_subnet(SubnetSpec(subnet_id=OTHER_SUBNET.subnet_id))  # it leaves the VPC
    assert not reaches(ready_vm, "10.0.1.10")


def test_equal_addresses_in_two_vpcs_are_strangers(
    ready_vm: SimComputeDriver, networks: SimNetworkDriver, boot: Boot
) -> None:
    networks.ensure_vpc(TWIN_VPC)
    networks.ensure_subnet(TWIN_SUBNET)
    boot("i-twin0001", port_of(2, ADDRESS, subnet=TWIN_SUBNET))
    boot("i-twin0002", port_of(3, "10.0.0.11", subnet=TWIN_SUBNET))
    assert not reaches(ready_vm, "10.0.0.11")
    assert sh(ready_vm, "curl -s 10.0.0.10", "i-twin0002")[1].startswith("id=i-twin0001 ")
    assert sh(ready_vm, f"curl -s {ADDRESS}")[1].startswith(f"id={VM_ID} ")


def test_a_guest_that_does_not_run_or_still_boots_does_not_answer(
    world: SimWorld, ready_vm: SimComputeDriver, boot: Boot, clock: CloudClock
) -> None:
    boot(OTHER, port_of(2, "10.0.0.11"))
    ready_vm.stop_machine(OTHER, force=True)
    assert not reaches(ready_vm, "10.0.0.11")
    world.latency = LatencyModel()
    ready_vm.start_machine(OTHER)
    clock.advance(2)
    assert not reaches(ready_vm, "10.0.0.11")
    clock.advance(10)
    assert reaches(ready_vm, "10.0.0.11")


def test_the_router_answers_pings_and_listens_on_nothing(ready_vm: SimComputeDriver) -> None:
    for address in ("10.0.0.1", "169.254.169.254", "169.254.169.250"):
        assert sh(ready_vm, f"ping -c 1 {address}")[0] == 0
        assert "refused" in sh(ready_vm, f"nc -z {address} 80")[1]


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ("nc -z 10.0.0.11 80", 0, ""),
        ("nc -zv db 80", 0, "open"),
        ("nc -z 10.0.0.11 22", 1, "refused"),
        ("nc -z -w 3 10.0.0.77 80", 1, "timed out"),
        ("nc -z 10.0.9.9 80", 1, "No route to host"),
        ("nc -z 8.8.8.8 80", 1, "No route to host"),
        ("nc -z 10.0.0.11", 1, "usage"),
        ("nc -z 10.0.0.11 99999", 1, "usage"),
        ("printf 'GET / HTTP/1.0\\n\\n' | nc 10.0.0.11 80", 0, "id=i-vm000002"),
        ("ping -c 2 10.0.0.77", 1, "2 packets transmitted, 0 packets received, 100% packet loss"),
        ("ping -q -c 3 10.0.0.11", 0, "3 packets transmitted, 3 packets received, 0% packet loss"),
        ("ping -c 1 10.0.0.10", 0, "ttl=64"),
        ("ping -c 1 127.0.0.1", 0, "ttl=64"),
        ("ping -c 1 localhost", 0, "127.0.0.1"),
        ("ping -c x 10.0.0.11", 2, "invalid number"),
        ("ping -Z 10.0.0.11", 2, "not simulated"),
        ("ping", 2, "usage"),
        ("ping -c 1 nobody", 1, "bad address"),
        ("ping 10.0.0.11", 124, ""),
        ("wget -q -O /tmp/page http://db/ && cat /tmp/page", 0, "id=i-vm000002"),
        ("wget http://10.0.0.11/nothing", 1, "404"),
        ("wget -T 2 http://10.0.0.77/", 1, "timed out"),
        ("wget https://10.0.0.11/", 1, "only http://"),
        ("wget", 1, "one URL"),
        ("curl -s 10.0.0.11/nothing", 0, "not found"),
        ("curl -fsS http://10.0.0.11/nothing", 22, "404"),
        ("curl -s http://10.0.0.11:81/", 7, ""),
        ("curl -sS --max-time 2 http://10.0.0.77/", 28, "timed out"),
        ("curl -sS --max-time=2 http://nobody.internal/", 6, "bad address"),
        ("curl -o /tmp/page http://db.internal:80/ && cat /tmp/page", 0, "id=i-vm000002"),
        ("curl http://[::1", 2, "bad URL"),
        ("curl --proxy x http://db/", 2, "not simulated"),
    ],
)
def test_programs_say_what_became_of_it(
    ready_vm: SimComputeDriver, boot: Boot, script: str, code: int, said: str
) -> None:
    boot(OTHER, port_of(2, "10.0.0.11", names=("db", OTHER)))
    exit_code, output = sh(ready_vm, script)
    assert (exit_code, said in output) == (code, True), output


# --- routes, reservations, pairs ---------------------------------------------------------------------------


def test_routes_lead_to_what_is_behind_a_guest(
    ready_vm: SimComputeDriver, networks: SimNetworkDriver, boot: Boot
) -> None:
    pair = AllowedPair(cidr="10.244.1.0/24")
    boot(OTHER, port_of(2, "10.0.0.11", allowed_pairs=(pair,)))
    assert sh(ready_vm, "ip addr add 10.244.1.5/32 dev eth0", OTHER)[0] == 0
    assert not reaches(ready_vm, "10.244.1.5")

    def route(*routes: tuple[str, str]) -> None:
        specs = tuple(RouteSpec(destination=destination, next_hop=next_hop) for destination, next_hop in routes)
        networks.ensure_vpc(replace(VPC, routes=specs))

    route(("10.244.1.0/24", "10.0.0.11"))
    assert reaches(ready_vm, "10.244.1.5")
    assert not reaches(ready_vm, "10.244.1.6")
    with networks.dial(VPC.vpc_id, "10.244.1.5", 80, timeout_s=1):
        pass
    route(("10.244.1.0/24", "10.0.0.11"), ("10.244.1.5/32", BLACKHOLE))
    assert "No route to host" in sh(ready_vm, "nc -z 10.244.1.5 80")[1]
    route(("10.0.0.0/8", "10.0.0.77"), ("10.244.0.0/16", "10.0.0.11"), ("0.0.0.0/0", "10.77.0.1"))
    assert reaches(ready_vm, "10.244.1.5")
    assert not reaches(ready_vm, "8.8.8.8")


def test_a_reserved_address_is_for_ports_of_its_owner(
    ready_vm: SimComputeDriver, networks: SimNetworkDriver, boot: Boot
) -> None:
    reserved = ReservationSpec(owner=PORT.owner, first="10.0.0.50", last="10.0.0.59")
    networks.ensure_subnet(replace(SUBNET, reservations=(reserved,)))
    boot(OTHER, port_of(2, "10.0.0.11"))
    boot("i-stranger", port_of(3, "10.0.0.12", owner="prj-00000002"))
    for machine_id, number in ((OTHER, 50), (OTHER, 60), ("i-stranger", 51)):
        assert sh(ready_vm, f"ip addr add 10.0.0.{number}/24 dev eth0", machine_id)[0] == 0
    assert reaches(ready_vm, "10.0.0.50")
    assert not reaches(ready_vm, "10.0.0.60")
    assert not reaches(ready_vm, "10.0.0.51")
    assert sh(ready_vm, "ip addr del 10.0.0.50/24 dev eth0", OTHER)[0] == 0
    assert not reaches(ready_vm, "10.0.0.50")


def test_of_several_addresses_dhcp_gives_the_first_and_the_guest_adds_the_others(
    ready_vm: SimComputeDriver, boot: Boot
) -> None:
    boot(OTHER, port_of(2, "10.0.0.11", "10.0.0.12"))
    assert not reaches(ready_vm, "10.0.0.12")
    sh(ready_vm, "ip addr add 10.0.0.12/24 dev eth0", OTHER)
    assert reaches(ready_vm, "10.0.0.12")
    ready_vm.stop_machine(OTHER, force=True)
    ready_vm.start_machine(OTHER)
    assert not reaches(ready_vm, "10.0.0.12")
    assert reaches(ready_vm, "10.0.0.11")


def test_guests_on_a_bare_segment_use_what_addresses_they_like(
    ready_vm: SimComputeDriver, networks: SimNetworkDriver, boot: Boot
) -> None:
    bare = SubnetSpec(subnet_id="net-00000009")
    networks.ensure_subnet(bare)
    for number in (2, 3):
        boot(f"i-bare000{number}", port_of(number, subnet=bare))
    assert "inet 1" not in sh(ready_vm, "ip addr show eth0", "i-bare0002")[1]
    for number in (2, 3):
        sh(ready_vm, f"ip addr add 192.168.7.{number}/24 dev eth0", f"i-bare000{number}")
    assert reaches(ready_vm, "192.168.7.3", "i-bare0002")
    assert not reaches(ready_vm, ADDRESS, "i-bare0002")


# --- names -------------------------------------------------------------------------------------------------


def test_guests_know_each_other_by_host_name_and_id(ready_vm: SimComputeDriver, boot: Boot) -> None:
    boot(OTHER, port_of(2, "10.0.0.11", names=("db", OTHER)), port_of(3, "10.0.0.12", names=("db",)))
    assert sh(ready_vm, "cat /etc/resolv.conf") == (0, "search internal\nnameserver 10.0.0.1\n")
    assert sh(ready_vm, "getent hosts db") == (0, "10.0.0.11       db.internal\n10.0.0.12       db.internal\n")
    assert sh(ready_vm, f"getent hosts {OTHER}.internal")[1].startswith("10.0.0.11 ")
    assert sh(ready_vm, "getent hosts DB")[0] == 0
    for unknown in ("cache", "db.example", "db.internal.internal"):
        assert sh(ready_vm, f"getent hosts {unknown}") == (2, "")
    assert sh(ready_vm, "nslookup db")[1].endswith(
        "Name:\tdb.internal\nAddress: 10.0.0.11\nName:\tdb.internal\nAddress: 10.0.0.12\n"
    )
    assert sh(ready_vm, "nslookup cache.internal")[0] == 1


def test_names_follow_their_ports(ready_vm: SimComputeDriver, networks: SimNetworkDriver, boot: Boot) -> None:
    port = port_of(2, "10.0.0.11", names=("db",))
    boot(OTHER, port)
    networks.ensure_port(replace(port, addresses=("10.0.0.12",), names=("cache",)))
    assert sh(ready_vm, "getent hosts db")[0] == 2
    assert sh(ready_vm, "getent hosts cache")[1].startswith("10.0.0.12 ")
    networks.remove_port(port.subnet_id, port.nic_id)
    assert sh(ready_vm, "getent hosts cache")[0] == 2


def test_records_of_the_vpc_are_answered(ready_vm: SimComputeDriver, networks: SimNetworkDriver) -> None:
    records = (
        DNSRecordSpec(name="api.internal", type="A", values=("10.0.0.50", "10.0.0.51")),
        DNSRecordSpec(name="www.example.org", type="CNAME", values=("api.internal",)),
        DNSRecordSpec(name="loop.internal", type="CNAME", values=("loop.internal",)),
        DNSRecordSpec(name="me.internal", type="CNAME", values=("web-1.internal",)),
        DNSRecordSpec(name="api.internal", type="TXT", values=("v=1",)),
    )
    networks.ensure_vpc(replace(VPC, records=records))
    assert sh(ready_vm, "getent hosts api")[1].split() == ["10.0.0.50", "api.internal", "10.0.0.51", "api.internal"]
    assert sh(ready_vm, "getent hosts www.example.org")[1].startswith("10.0.0.50 ")
    assert sh(ready_vm, "getent hosts me")[1].startswith(ADDRESS)
    assert sh(ready_vm, "getent hosts loop")[0] == 2
    assert 'text = "v=1"' in sh(ready_vm, "nslookup -type=TXT api")[1]
    assert "canonical name = api.internal" in sh(ready_vm, "nslookup -type=cname www.example.org")[1]


def test_servers_inside_the_vpc_are_not_simulated_and_it_shows(
    ready_vm: SimComputeDriver, networks: SimNetworkDriver
) -> None:
    forwarder = ForwarderSpec(domain="cluster.local", servers=("10.0.0.53",))
    networks.ensure_vpc(replace(VPC, forwarders=(forwarder,)))
    assert "timed out" in sh(ready_vm, "nslookup svc.cluster.local")[1]
    assert "NXDOMAIN" in sh(ready_vm, "nslookup svc.mycluster.local")[1]
    networks.ensure_vpc(replace(VPC, dns_servers=("10.0.0.53",)))
    assert "nameserver 10.0.0.53" in sh(ready_vm, "cat /etc/resolv.conf")[1]
    assert "timed out" in sh(ready_vm, "nslookup web-1")[1]
    assert sh(ready_vm, "getent hosts web-1.internal")[0] == 2
    assert sh(ready_vm, "getent hosts web-1")[1].startswith("127.0.1.1 ")  # of its own file


# --- what is counted ---------------------------------------------------------------------------------------


def test_links_count_what_guests_send_and_receive(
    ready_vm: SimComputeDriver, networks: SimNetworkDriver, boot: Boot
) -> None:
    def counted(nic_id: str) -> tuple[int, int, int, int]:
        found = networks.statistics(SUBNET.subnet_id, nic_id)
        assert found is not None
        assert found.received_dropped == 0
        return found.received_packets, found.received_bytes, found.sent_packets, found.sent_bytes

    boot(OTHER, port_of(2, "10.0.0.11"))
    assert counted(PORT.nic_id) == (0, 0, 0, 0)
    sh(ready_vm, "ping -c 3 10.0.0.11")
    assert counted(PORT.nic_id) == (3, 3 * PING_BYTES, 3, 3 * PING_BYTES)
    assert counted("nic-00000002") == (3, 3 * PING_BYTES, 3, 3 * PING_BYTES)
    sh(ready_vm, "ping -c 2 -W 1 10.0.0.77")
    assert counted(PORT.nic_id) == (3, 3 * PING_BYTES, 5, 5 * PING_BYTES)
    assert counted("nic-00000002")[0] == 3
    sh(ready_vm, "head -c 100000 /dev/zero > /var/www/much", OTHER)
    before = counted(PORT.nic_id)
    sh(ready_vm, "wget -q -O /dev/null http://10.0.0.11/much")
    after = counted(PORT.nic_id)
    assert 100_000 < after[1] - before[1] < 110_000
    assert 60 < after[0] - before[0] < 90
    assert 0 < after[3] - before[3] < 1000
    assert counted("nic-00000002")[3] > 100_000


def test_what_the_port_does_not_let_in_is_counted_as_dropped(
    ready_vm: SimComputeDriver, boot: Boot, networks: SimNetworkDriver
) -> None:
    boot(OTHER, port_of(2))
    sh(ready_vm, "ip addr add 10.0.0.66/24 dev eth0; ping -c 2 -W 1 10.0.0.10", OTHER)
    found = networks.statistics(SUBNET.subnet_id, "nic-00000002")
    assert found is not None
    assert (found.sent_packets, found.sent_dropped, found.received_packets) == (2, 2, 0)


def test_only_a_plugged_nic_counts_and_a_start_begins_anew(
    ready_vm: SimComputeDriver, networks: SimNetworkDriver, boot: Boot
) -> None:
    boot(OTHER, port_of(2, "10.0.0.11"))
    sh(ready_vm, "ping -c 1 10.0.0.11")
    assert networks.statistics(SUBNET.subnet_id, "nic-unknown0") is None
    assert networks.statistics("net-unknown0", PORT.nic_id) is None
    ready_vm.execute(VM_ID, ["reboot"], timeout_s=1)
    rebooted = networks.statistics(SUBNET.subnet_id, PORT.nic_id)
    assert rebooted is not None
    assert rebooted.sent_packets == 1
    ready_vm.stop_machine(VM_ID, force=True)
    assert networks.statistics(SUBNET.subnet_id, PORT.nic_id) is None
    ready_vm.start_machine(VM_ID)
    started = networks.statistics(SUBNET.subnet_id, PORT.nic_id)
    assert started is not None
    assert started.sent_packets == 0
