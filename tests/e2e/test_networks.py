"""Networks of real machines: who reaches whom, DHCP, DNS, and NICs that come and go while machines run."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from iaas.client import NIC, AddressIn, GuestUnavailable, Instance
from iaas.client.tunnel import open_tunnel
from tests.e2e.guests import (
    Traffic,
    page,
    pings,
    seen_by,
    serve_peer_page,
    shell,
    shell_succeeds,
    wait_inside,
)
from tests.e2e.network_world import BLOCKS, PLACES, NetworkWorld

pytestmark = pytest.mark.real

HERE = ("vm", "container", "across")
KINDS = ("vm", "container")
OTHER_KIND = {"vm": "container", "container": "vm"}
GATEWAY_OF_TWO = "10.20.2.1"


@pytest.fixture(params=KINDS)
def guest(request: pytest.FixtureRequest, networks: NetworkWorld) -> Instance:
    """The machine of VPC "here" and subnet "one", of either kind."""
    return networks.machines[request.param]


@contextmanager
def new_nic(networks: NetworkWorld, address: str) -> Iterator[NIC]:
    """A NIC on subnet "two" that is gone in the end."""
    nic = networks.client.nics.create(subnet="two", address=address)
    try:
        yield nic
    finally:
        if nic.refresh().instance_id is not None:
            nic.detach().wait()
        nic.delete()


@pytest.mark.parametrize(("source", "target"), list(itertools.permutations(HERE, 2)))
def test_machines_of_a_vpc_reach_each_other(networks: NetworkWorld, source: str, target: str) -> None:
    guest, address = networks.machines[source], PLACES[target].address
    assert pings(guest, address)
    assert f"id={networks.machines[target].id} " in page(guest, f"{address}/")


def test_equal_addresses_of_two_vpcs_lead_to_their_own_machines(networks: NetworkWorld) -> None:
    machines = networks.machines
    target = PLACES["vm"].address
    assert target == PLACES["vm-twin"].address
    assert f"id={machines['vm'].id} " in page(machines["container"], f"{target}/")
    assert f"id={machines['vm-twin'].id} " in page(machines["container-twin"], f"{target}/")
    # What the other VPC alone has answers there, not here.
    assert pings(machines["container"], PLACES["across"].address)
    assert not pings(machines["container-twin"], PLACES["across"].address)


@pytest.mark.parametrize("name", sorted(PLACES))
def test_dhcp_gives_exactly_the_address_of_the_nic(networks: NetworkWorld, name: str) -> None:
    guest, place = networks.machines[name], PLACES[name]
    gateway = f"{BLOCKS[place.subnet].rpartition('.')[0]}.1"
    assert guest.address == place.address
    found = json.loads(shell(guest, "/sbin/ip -json -4 addr show dev eth0"))[0]
    assert [(each["local"], each["prefixlen"]) for each in found["addr_info"]] == [(place.address, 24)]
    routes = json.loads(shell(guest, "/sbin/ip -json -4 route show default"))
    assert [(each["gateway"], each["dev"]) for each in routes] == [(gateway, "eth0")]
    mac = shell(guest, "cat /sys/class/net/eth0/address").strip()
    assert mac == guest.nics[0].mac


@pytest.mark.parametrize("form", ["vm", "vm.internal", "id"])
@pytest.mark.parametrize("source", ["container", "across", "vm"])
def test_machines_are_known_by_name_and_id(networks: NetworkWorld, source: str, form: str) -> None:
    target = networks.machines["vm"]
    name = target.id if form == "id" else form
    assert f"id={target.id} " in page(networks.machines[source], f"{name}/")


def test_names_of_a_vpc_are_unknown_in_another(networks: NetworkWorld) -> None:
    twin = networks.machines["container-twin"]
    assert shell_succeeds(twin, "nslookup vm-twin.internal.")
    assert not shell_succeeds(twin, "nslookup vm.internal.")
    assert shell_succeeds(networks.machines["container"], "nslookup vm.internal.")


@pytest.mark.parametrize("vpc", ["here", "there"])
def test_forward_leads_to_an_address_of_the_vpc_it_names(networks: NetworkWorld, vpc: str) -> None:
    target = networks.machines["vm" if vpc == "here" else "vm-twin"]
    with forwarded(networks, f"{vpc}/{PLACES['vm'].address}", "0:80") as address:
        done = subprocess.run(
            ["curl", "-sS", "-m", "10", f"http://{address}/"], capture_output=True, text=True, timeout=20, check=True
        )
    assert f"id={target.id} " in done.stdout


def test_tunnel_to_an_address_that_nobody_has_says_so(networks: NetworkWorld) -> None:
    with pytest.raises(GuestUnavailable):
        open_tunnel(networks.client, AddressIn(vpc="here", address="10.20.1.200"), 80)


@contextmanager
def forwarded(networks: NetworkWorld, *arguments: str) -> Iterator[str]:
    """Run ``iaas forward`` and yield where it listens."""
    process = networks.server.start_cli("forward", *arguments)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "->" in line, line
        yield line.split()[0]
    finally:
        process.terminate()
        process.communicate(timeout=10)


def addresses_of(nic: str) -> str:
    """Return a shell command that tells the IPv4 addresses of a link."""
    return f"/sbin/ip -4 -o addr show dev {nic}"


def has_address(guest: Instance, nic: NIC, *, after: str = ":") -> float:
    """Return how long after the command the guest's eth1 had the NIC's address by DHCP, in seconds; fails after 30."""
    condition = f"{addresses_of('eth1')} | grep -qF ' {nic.address}/24 '"
    return wait_inside(guest, condition, 30, f"{nic.address} on eth1", after=after)


def links(guest: Instance) -> dict[str, str]:
    """Return the MACs of the guest's links by their names, without the loopback's."""
    found: list[dict[str, Any]] = json.loads(shell(guest, "/sbin/ip -json link show"))
    return {each["ifname"]: each["address"] for each in found if each["ifname"] != "lo"}


def test_nic_comes_and_goes_while_the_first_one_carries_traffic(networks: NetworkWorld, guest: Instance) -> None:
    neighbour = PLACES[OTHER_KIND[guest.kind]].address
    before = links(guest)
    with new_nic(networks, "10.20.2.50") as nic:
        traffic = Traffic(guest, neighbour)
        attached = nic.attach(guest).wait()
        assert (attached.status, attached.instance_id, attached.device_index) == ("in_use", guest.id, 1)
        print(f"{guest.kind}: address {has_address(guest, nic):.2f} s after the job's end")  # noqa: T201 -- a measured value, shown with -s
        assert links(guest) == {**before, "eth1": nic.mac}
        assert pings(networks.machines["across"], "10.20.2.50")
        assert pings(guest, PLACES["across"].address, source="10.20.2.50")
        counted = nic.statistics()
        assert counted.received_packets > 0 < counted.sent_packets

        detached = nic.refresh().detach().wait()
        assert (detached.status, detached.instance_id, detached.address) == ("available", None, "10.20.2.50")
        assert links(guest) == before
        assert not pings(networks.machines["across"], "10.20.2.50")
        answered = traffic.end()
    assert answered == list(range(len(answered)))  # not one was lost


def test_nic_is_handed_on_to_a_namespace_and_survives_its_end(networks: NetworkWorld, guest: Instance) -> None:
    across = networks.machines["across"]
    serve_peer_page(across)
    serve_peer_page(guest)
    with new_nic(networks, "10.20.2.60") as nic:
        nic.attach(guest).wait()
        has_address(guest, nic)

        # The script of the guest's own DHCP client does in the namespace what it does outside.
        shell(
            guest,
            "ip netns add pod; ip link set eth1 netns pod; ip -n pod link set lo up; ip -n pod link set eth1 up\n"
            "ip netns exec pod udhcpc -q -n -t 20 -T 1 -i eth1 -s /etc/iaas/lease > /tmp/pod-dhcp 2>&1\n"
            "ip netns exec pod busybox httpd -p 80 -h /var/www",
        )
        assert " 10.20.2.60/24 " in shell(guest, f"ip netns exec pod {addresses_of('eth1')}")
        assert not shell_succeeds(guest, addresses_of("eth1"))
        # Both ways the other end sees the pod's own address: nothing translates.
        assert seen_by(across, "10.20.2.60") == PLACES["across"].address
        assert seen_by(guest, PLACES["across"].address, namespace="pod") == "10.20.2.60"
        assert pings(guest, GATEWAY_OF_TWO, namespace="pod")

        # Processes keep a namespace alive: it dies with the last of them.
        shell(guest, 'kill $(ip netns pids pod); until [ -z "$(ip netns pids pod)" ]; do usleep 20000; done')
        usable_s = has_address(guest, nic, after="ip netns del pod")
        print(f"{guest.kind}: usable {usable_s:.2f} s after the namespace's end")  # noqa: T201 -- a measured value, shown with -s
        assert links(guest)["eth1"] == nic.mac
        assert pings(across, "10.20.2.60")
        assert nic.refresh().status == "in_use"

        nic.refresh().detach().wait()
        assert "eth1" not in links(guest)
        other = networks.machines[OTHER_KIND[guest.kind]]
        nic.refresh().attach(other).wait()
        has_address(other, nic)
        assert links(other)["eth1"] == nic.mac
        assert pings(across, "10.20.2.60")
        assert seen_by(other, PLACES["across"].address) == "10.20.2.60"


def test_nic_is_detached_while_a_namespace_has_it(networks: NetworkWorld, guest: Instance) -> None:
    with new_nic(networks, "10.20.2.61") as nic:
        nic.attach(guest).wait()
        has_address(guest, nic)
        shell(guest, "ip netns add kept; ip link set eth1 netns kept")
        try:
            assert nic.refresh().detach().wait().status == "available"
            assert "eth1" not in shell(guest, "ip -n kept link show")
        finally:
            shell(guest, "ip netns del kept")
