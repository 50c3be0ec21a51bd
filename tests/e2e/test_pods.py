"""Pod networking on real machines: one NIC for fifty pods, and pod networks that the VPC routes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

import pytest

from iaas.client import NIC, NO_ADDRESS, AllowedPair, Instance, NewRoute
from tests.e2e.guests import PEER_PAGE, pings, seen_by, serve_peer_page, shell, shell_succeeds
from tests.e2e.network_world import PLACES, NetworkWorld

pytestmark = pytest.mark.real

POD_COUNT = 50
GATEWAY = "10.20.2.1"  # of subnet "two"
OUTSIDE_THE_RESERVATION = "10.20.2.77"


@dataclass(frozen=True)
class BridgedPods:
    """A machine with one NIC without address, bridged to namespaces pod0, pod1, ... with an address each."""

    machine: Instance
    nic: NIC
    addresses: list[str]


@pytest.fixture(scope="module")
def bridged_pods(networks: NetworkWorld) -> Iterator[BridgedPods]:
    client, machine = networks.client, networks.machines["container"]
    reservation = client.address_reservations.create(subnet="two", count=POD_COUNT).wait()
    nic = client.nics.create(subnet="two", address=NO_ADDRESS)
    first = IPv4Address(reservation.first)
    addresses = [str(first + index) for index in range(POD_COUNT)]
    assert addresses[-1] == reservation.last
    nic = nic.attach(machine).wait()
    assert (nic.status, nic.address) == ("in_use", None)
    shell(
        machine,
        "until [ -e /sys/class/net/eth1 ]; do usleep 20000; done\n"
        "ip link add pods type bridge\n"
        "ip link set eth1 master pods\n"
        "ip link set eth1 up\n"
        "ip link set pods up\n"
        "index=0\n"
        f"for address in {' '.join(addresses)}; do\n"
        "    pod=pod$index\n"
        "    index=$((index + 1))\n"
        "    ip netns add $pod\n"
        "    ip link add v$pod type veth peer name eth0 netns $pod\n"
        "    ip link set v$pod master pods up\n"
        "    ip -n $pod link set lo up\n"
        "    ip -n $pod link set eth0 up\n"
        "    ip -n $pod addr add $address/24 dev eth0\n"
        f"    ip -n $pod route add default via {GATEWAY}\n"
        "done",
    )
    yield BridgedPods(machine, nic, addresses)
    shell(
        machine,
        f"for index in $(seq 0 {POD_COUNT - 1}); do ip netns del pod$index; done\n"
        "ip link del pods; ip link set eth1 down",
    )
    nic.refresh().detach().wait()
    nic.delete()
    reservation.delete().wait()


@pytest.mark.parametrize("source", ["across", "vm"])
def test_fifty_pods_behind_one_nic_answer_from_outside(
    networks: NetworkWorld, bridged_pods: BridgedPods, source: str
) -> None:
    """From a machine on their subnet, and from one behind the router."""
    command = (
        f"for address in {' '.join(bridged_pods.addresses)}; do"
        " ping -c 1 -W 1 $address > /dev/null || ping -c 1 -W 2 $address > /dev/null || echo $address; done"
    )
    assert shell(networks.machines[source], command, timeout_s=200) == ""


def test_pod_with_an_address_outside_of_the_reservation_is_not_heard(
    networks: NetworkWorld, bridged_pods: BridgedPods
) -> None:
    machine, across = bridged_pods.machine, networks.machines["across"]
    reserved = bridged_pods.addresses[0]
    assert OUTSIDE_THE_RESERVATION not in bridged_pods.addresses
    shell(machine, f"ip -n pod0 addr add {OUTSIDE_THE_RESERVATION}/24 dev eth0")
    assert pings(machine, GATEWAY, namespace="pod0", source=reserved)
    assert not pings(machine, GATEWAY, namespace="pod0", source=OUTSIDE_THE_RESERVATION)
    assert not pings(across, OUTSIDE_THE_RESERVATION)
    # Nor may it take a neighbour's address.
    shell(machine, f"ip -n pod0 addr add {PLACES['across'].address}/24 dev eth0")
    assert not pings(machine, GATEWAY, namespace="pod0", source=PLACES["across"].address)
    shell(
        machine,
        f"ip -n pod0 addr del {PLACES['across'].address}/24 dev eth0\n"
        f"ip -n pod0 addr del {OUTSIDE_THE_RESERVATION}/24 dev eth0",
    )
    assert pings(across, reserved)


@dataclass(frozen=True)
class Node:
    """A machine that routes for one pod of its own network."""

    machine: Instance
    pod_network: str
    pod: str  # the pod's address


@pytest.fixture(scope="module")
def nodes(networks: NetworkWorld) -> Iterator[dict[str, Node]]:
    client, vpc = networks.client, networks.vpcs["here"]
    found = {}
    for index, name in enumerate(("vm", "container", "across"), start=1):
        machine = networks.machines[name]
        found[name] = node = Node(machine, f"10.244.{index}.0/24", f"10.244.{index}.10")
        nic = client.nics.get(machine.nics[0].id)
        nic.update(allowed_pairs=[AllowedPair(cidr=node.pod_network)]).wait()
        serve_peer_page(machine)
        shell(
            machine,
            "echo 1 > /proc/sys/net/ipv4/ip_forward\n"
            "ip netns add routed\n"
            "ip link add routed type veth peer name eth0 netns routed\n"
            f"ip addr add 10.244.{index}.1/24 dev routed\n"
            "ip link set routed up\n"
            "ip -n routed link set lo up\n"
            "ip -n routed link set eth0 up\n"
            f"ip -n routed addr add {node.pod}/24 dev eth0\n"
            f"ip -n routed route add default via 10.244.{index}.1\n"
            "ip netns exec routed busybox httpd -p 80 -h /var/www",
        )
    wishes = [NewRoute(destination=node.pod_network, instance=node.machine.id) for node in found.values()]
    routes = vpc.routes.add_many(wishes).wait()
    yield found
    for route in routes:
        route.delete().wait()
    for node in found.values():
        shell(node.machine, "kill $(ip netns pids routed); ip netns del routed; echo 0 > /proc/sys/net/ipv4/ip_forward")
        client.nics.get(node.machine.nics[0].id).update(allowed_pairs=[]).wait()


PAIRS = [("vm", "container"), ("container", "vm"), ("vm", "across"), ("across", "vm"), ("container", "across")]


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_pod_reaches_pod_of_another_node_as_itself(nodes: dict[str, Node], source: str, target: str) -> None:
    assert seen_by(nodes[source].machine, nodes[target].pod, namespace="routed") == nodes[source].pod


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_node_reaches_pod_of_another_node_and_back(nodes: dict[str, Node], source: str, target: str) -> None:
    assert seen_by(nodes[source].machine, nodes[target].pod) == PLACES[source].address
    assert seen_by(nodes[target].machine, PLACES[source].address, namespace="routed") == nodes[target].pod


@pytest.mark.parametrize("name", ["vm", "container"])
def test_node_reaches_its_own_pod(nodes: dict[str, Node], name: str) -> None:
    assert seen_by(nodes[name].machine, nodes[name].pod).startswith("10.244.")


@pytest.mark.parametrize("name", ["vm", "container"])
def test_node_cannot_speak_for_pods_that_are_not_allowed_to_it(nodes: dict[str, Node], name: str) -> None:
    node = nodes[name]
    shell(node.machine, "ip -n routed addr add 10.244.99.9/32 dev lo; ip route add 10.244.99.9/32 dev routed")
    assert pings(node.machine, PLACES["across"].address, namespace="routed", source=node.pod)
    assert not pings(node.machine, PLACES["across"].address, namespace="routed", source="10.244.99.9")
    shell(node.machine, "ip -n routed addr del 10.244.99.9/32 dev lo; ip route del 10.244.99.9/32")


def test_pods_of_another_vpc_do_not_exist(networks: NetworkWorld, nodes: dict[str, Node]) -> None:
    assert not shell_succeeds(
        networks.machines["vm-twin"], f"timeout 3 wget -q -O - http://{nodes['container'].pod}{PEER_PAGE}"
    )
