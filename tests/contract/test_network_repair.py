"""What dies is made again, what vanishes is told of, and what is removed leaves nothing."""

from __future__ import annotations

import dataclasses
import json
import queue
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from iaas.drivers.interface import (
    AllowedPair,
    BackendDownError,
    DNSRecordSpec,
    PermanentError,
    PortSpec,
    ReservationSpec,
    SubnetSpec,
    VPCSpec,
)
from iaas.drivers.linux import names
from iaas.drivers.linux.links import link_names, remove_link
from iaas.drivers.linux.namespaces import list_namespaces, namespace_exists, remove_namespace, run_inside
from iaas.drivers.linux.processes import Process, end_processes, find_processes
from iaas.drivers.linux.waiting import wait_until
from iaas.kernel.ids import suffix
from tests.contract.frames import arp, delivered
from tests.contract.network_subjects import OWNER, NetworkSubject
from tests.contract.wire_guest import plug
from tests.real_host import RealHost

GUEST_MAC = "52:54:00:00:00:99"
RESERVED = (ReservationSpec(owner=OWNER, first="10.77.0.105", last="10.77.0.120"),)
REVIVAL_TIMEOUT_S = 20
NOTICE_TIMEOUT_S = 10


def dhcp_servers(vpc: VPCSpec) -> list[Process]:
    return find_processes(lambda each: each.program == "dnsmasq" and any(vpc.vpc_id in part for part in each.argv))


def filter_rules(host: RealHost) -> str:
    return run_inside(host.fabric.namespace, ["nft", "list", "table", "bridge", names.filter_table(host.tag)])


def elements_of(host: RealHost) -> set[str]:
    """Return all elements of all sets, as texts."""
    argv = ["nft", "-j", "list", "table", "bridge", names.filter_table(host.tag)]
    found = json.loads(run_inside(host.fabric.namespace, argv))["nftables"]
    sets = [each[kind] for each in found for kind in ("set", "map") if kind in each]
    return {f"{each['name']} {json.dumps(element)}" for each in sets for element in each.get("elem", ())}


def network(wired: NetworkSubject) -> tuple[VPCSpec, SubnetSpec, PortSpec]:
    vpc = wired.vpc()
    subnet = wired.subnet(vpc)
    return vpc, subnet, wired.port(subnet, "10.77.0.10")


def destroy(host: RealHost, vpc: VPCSpec, subnet: SubnetSpec) -> None:
    """Take away all that the kernel has of a VPC, as a restart of the host does."""
    assert end_processes(dhcp_servers(vpc), grace_s=0) == []
    for name in (names.router_veth(host.tag, subnet.subnet_id), names.bridge(host.tag, subnet.subnet_id)):
        remove_link(host.fabric.namespace, name)
    remove_namespace(names.router_namespace(host.tag, vpc.vpc_id))
    run_inside(host.fabric.namespace, ["nft", "delete", "table", "bridge", names.filter_table(host.tag)])


def test_a_killed_dhcp_server_is_started_again_by_itself(wired: NetworkSubject, host: RealHost) -> None:
    vpc, _subnet, port = network(wired)
    (server,) = dhcp_servers(vpc)
    assert end_processes([server], grace_s=0) == []
    assert wait_until(lambda: bool(dhcp_servers(vpc)), timeout_s=REVIVAL_TIMEOUT_S)
    assert dhcp_servers(vpc) != [server]
    with plug(host, port) as guest:
        assert guest.lease()["ip"] == "10.77.0.10"


def test_a_killed_dhcp_server_is_mended_by_ensuring(wired: NetworkSubject, host: RealHost) -> None:
    vpc, _subnet, port = network(wired)
    wired.driver.close()  # nobody looks after it
    assert end_processes(dhcp_servers(vpc), grace_s=0) == []
    wired.driver = wired.reopen()
    wired.driver.ensure_vpc(vpc)
    assert len(dhcp_servers(vpc)) == 1
    with plug(host, port) as guest:
        assert guest.lease()["ip"] == "10.77.0.10"


def test_a_restarted_driver_looks_after_what_it_finds(wired: NetworkSubject) -> None:
    vpc, _, _ = network(wired)
    wired.driver.close()
    wired.driver = wired.reopen()
    wired.vpc()  # the first thing it is asked for is another one
    assert end_processes(dhcp_servers(vpc), grace_s=0) == []
    assert wait_until(lambda: bool(dhcp_servers(vpc)), timeout_s=REVIVAL_TIMEOUT_S)


def test_a_dhcp_server_that_runs_is_left_alone(wired: NetworkSubject) -> None:
    vpc, subnet, port = network(wired)
    before = dhcp_servers(vpc)
    wired.driver.ensure_vpc(vpc)
    wired.driver.ensure_subnet(subnet)
    wired.driver.ensure_port(port)
    wired.port(subnet, "10.77.0.11")
    assert dhcp_servers(vpc) == before


def test_a_vpc_without_subnets_needs_no_dhcp_server(wired: NetworkSubject) -> None:
    vpc = wired.vpc()
    assert dhcp_servers(vpc) == []
    subnet = wired.subnet(vpc)
    assert len(dhcp_servers(vpc)) == 1
    wired.driver.remove_subnet(subnet.subnet_id)
    assert dhcp_servers(vpc) == []


@pytest.mark.parametrize("what", ["vpc", "subnet", "port"])
def test_ensuring_any_of_it_makes_all_of_it_again(wired: NetworkSubject, host: RealHost, what: str) -> None:
    vpc, subnet, port = network(wired)
    far = wired.subnet(vpc, cidr="10.77.1.0/24")
    destroy(host, vpc, subnet)
    remove_link(host.fabric.namespace, names.bridge(host.tag, far.subnet_id))
    if what == "vpc":
        wired.driver.ensure_vpc(vpc)
    elif what == "subnet":
        wired.driver.ensure_subnet(subnet)
    else:
        wired.driver.ensure_port(port)
    server = wired.port(far, "10.77.1.10")
    assert suffix(port.nic_id) in filter_rules(host)
    with plug(host, port) as guest, plug(host, server, subnet=far) as across, across.listen("10.77.1.10", 80):
        assert guest.lease()["ip"] == "10.77.0.10"
        guest.connect("10.77.1.10", 80).close()


def test_a_lost_rule_set_is_mended(wired: NetworkSubject, host: RealHost) -> None:
    vpc, subnet, port = network(wired)
    observer = wired.port(subnet, "10.77.0.20")
    run_inside(host.fabric.namespace, ["nft", "delete", "table", "bridge", names.filter_table(host.tag)])
    wired.driver.ensure_vpc(vpc)
    with plug(host, port, subnet=subnet) as guest, plug(host, observer, subnet=subnet) as beside:
        lie = {"lie": arp(port.mac, "10.77.0.1")}
        assert delivered(guest, beside, lie, last=arp(port.mac, "10.77.0.10")) == set()


def test_rules_that_were_changed_by_somebody_else_are_mended(wired: NetworkSubject, host: RealHost) -> None:
    _, subnet, port = network(wired)
    other = wired.port(subnet, "10.77.0.11")
    table, link = names.filter_table(host.tag), names.tap(host.tag, port.nic_id)
    delete = f'delete element bridge {table} sources {{ "{link}" . 10.77.0.10 }}\n'
    run_inside(host.fabric.namespace, ["nft", "-f", "-"], input_text=delete)
    # It cannot be taken out again: so everything is written anew.
    wired.driver.ensure_port(dataclasses.replace(port, addresses=("10.77.0.12",), revision=1))
    rules = filter_rules(host)
    assert f'"{link}" . 10.77.0.12' in rules
    assert f'"{link}" . 10.77.0.10' not in rules
    assert f'"{names.tap(host.tag, other.nic_id)}" . 10.77.0.11' in rules


def test_rules_changed_in_parts_are_those_written_in_one_go(wired: NetworkSubject, host: RealHost) -> None:
    chance = random.Random(4)  # noqa: S311 - repeatable, no secret
    subnets = [wired.subnet(wired.vpc()) for _ in range(2)]
    ports = [wired.port_spec(subnet, f"10.77.0.{10 + number}") for subnet in subnets for number in range(8)]
    pairs = [
        AllowedPair(cidr=cidr, mac=mac) for cidr in ("10.244.0.0/23", "10.244.1.0/24") for mac in (None, GUEST_MAC)
    ]

    def churn(port: PortSpec, rounds: list[int]) -> None:
        for revision, kind in enumerate(rounds):
            if kind == 0:
                wired.driver.remove_port(port.subnet_id, port.nic_id)
            else:
                changed = dataclasses.replace(port, allowed_pairs=tuple(pairs[:kind]), revision=revision)
                wired.driver.ensure_port(changed)

    def reserve(subnet: SubnetSpec) -> None:
        for revision in range(1, 6):
            reserved = RESERVED if revision % 2 else ()
            wired.driver.ensure_subnet(dataclasses.replace(subnet, reservations=reserved, revision=revision))

    with ThreadPoolExecutor(6) as pool:
        work = [pool.submit(churn, port, chance.choices(range(5), k=5)) for port in ports]
        work += [pool.submit(reserve, subnet) for subnet in subnets]
        for each in work:
            each.result()
    in_parts = elements_of(host)
    run_inside(host.fabric.namespace, ["nft", "delete", "table", "bridge", names.filter_table(host.tag)])
    wired.driver.ensure_subnet(dataclasses.replace(subnets[0], reservations=RESERVED, revision=6))
    in_one_go = elements_of(host)
    assert in_parts == in_one_go
    assert len(in_parts) > len(ports)


def test_a_call_that_fails_leaves_what_was_there(wired: NetworkSubject, host: RealHost) -> None:
    vpc, _subnet, port = network(wired)
    # Refused only by dnsmasq itself: an alias that leads to itself by way of another.
    circle = (
        DNSRecordSpec(name="a.example.test", type="CNAME", values=("b.example.test",)),
        DNSRecordSpec(name="b.example.test", type="CNAME", values=("a.example.test",)),
    )
    with pytest.raises(PermanentError):
        wired.driver.ensure_vpc(dataclasses.replace(vpc, records=circle, revision=1))
    fresh = wired.vpc()
    with pytest.raises(PermanentError):
        wired.driver.ensure_vpc(dataclasses.replace(fresh, cidr="10.0.0.1/8", revision=1))
    assert len(dhcp_servers(vpc)) == 1
    with plug(host, port) as guest:
        assert guest.lease()["ip"] == "10.77.0.10"
    wired.driver.ensure_vpc(dataclasses.replace(vpc, revision=0))  # the failed one has left no revision


def test_the_loss_of_a_containers_link_is_told(wired: NetworkSubject, host: RealHost) -> None:
    lost: queue.Queue[str] = queue.Queue()
    wired.driver.on_link_lost(lost.put)
    _, subnet, port = network(wired)
    unknown, vm = wired.port_spec(subnet, "10.77.0.11"), wired.port(subnet, "10.77.0.12")
    for nobodys in (unknown, vm):  # nobody asked to hear of these
        plug(host, nobodys, as_vm=nobodys is vm).close()
    for _ in range(2):
        guest = plug(host, port)
        remove_namespace(guest.namespace)  # as a namespace inside a container dies, with the link in it
        try:
            assert lost.get(timeout=NOTICE_TIMEOUT_S) == port.nic_id
        finally:
            guest.close()
    assert lost.empty()


def test_closing_ends_all_threads(wired: NetworkSubject) -> None:
    before = set(threading.enumerate())
    driver = wired.reopen()
    vpc = wired.vpc_spec()
    driver.on_link_lost(lambda nic_id: None)
    driver.ensure_vpc(vpc)
    assert set(threading.enumerate()) > before
    driver.close()
    assert set(threading.enumerate()) == before


def test_what_is_removed_leaves_nothing(wired: NetworkSubject, host: RealHost) -> None:
    links, namespaces = link_names(host.fabric.namespace), list_namespaces(host.fabric.namespace)
    vpc, subnet, port = network(wired)
    bare = wired.subnet(None)
    wired.port(bare)
    with wired.driver.listen(vpc.vpc_id, "169.254.169.254", 80):
        for each in (subnet, bare):
            wired.driver.remove_subnet(each.subnet_id)
        wired.driver.remove_vpc(vpc.vpc_id)
        assert link_names(host.fabric.namespace) == links
    assert list_namespaces(host.fabric.namespace) == namespaces
    assert dhcp_servers(vpc) == []
    assert not namespace_exists(names.router_namespace(host.tag, vpc.vpc_id))
    assert suffix(port.nic_id) not in filter_rules(host)
    left = [path for path in (host.state_dir / "networks").rglob("*") if vpc.vpc_id in str(path)]
    left += [path for path in (host.state_dir / "networks").rglob("*") if subnet.subnet_id in str(path)]
    assert left == []


def test_without_the_fabric_nothing_can_be_made(wired: NetworkSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    vpc, subnet, port = network(wired)
    assert wired.host is not None
    monkeypatch.setattr(type(wired.host.fabric), "is_up", False)
    for ensure in (
        lambda: wired.driver.ensure_vpc(vpc),
        lambda: wired.driver.ensure_subnet(subnet),
        lambda: wired.driver.ensure_port(port),
    ):
        with pytest.raises(BackendDownError):
            ensure()
