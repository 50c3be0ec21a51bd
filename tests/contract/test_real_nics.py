"""NICs of real guests beyond the contract: what our own image makes of them, and links that died badly."""

from __future__ import annotations

import pytest

from iaas.drivers.interface import DriverError, MachineKind, NICSpec, PowerState, TransientError
from iaas.drivers.linux import names
from iaas.drivers.linux.namespaces import netlink
from tests.contract.shared_machine import SharedMachine
from tests.contract.subjects import ComputeSubject
from tests.contract.test_machine_nics import NIC_TIMEOUT_S, attach, detach, hotplug, link_of, wait_until_usable
from tests.real_host import RealHost

__all__ = ["hotplug"]  # the fixture

on_both = pytest.mark.parametrize("subject", ["libvirt", "lxd"], indirect=True, scope="session")
on_libvirt = pytest.mark.parametrize("subject", ["libvirt"], indirect=True, scope="session")
on_lxd = pytest.mark.parametrize("subject", ["lxd"], indirect=True, scope="session")
pytestmark = pytest.mark.real

UNASKED_NIC = "nic-unasked0"
UNKNOWN_SUBNET = "net-unknown0"


def kill_link(host: RealHost, nic: NICSpec) -> None:
    """Delete a container NIC's link, both ends of it, as the death of a namespace does."""
    with netlink(host.fabric.namespace) as handle:
        [index] = handle.link_lookup(ifname=names.container_veth(host.tag, nic.nic_id))
        handle.link("del", index=index)


def client_of(machine: SharedMachine, link: str) -> str:
    """Return what the guest notes of the link's DHCP client: pid, interface index, pace; empty when there is none."""
    return machine.run("cat", f"/run/nics/{link}").stdout.decode()


# --- our own image -----------------------------------------------------------------------------------------


@on_both
def test_a_link_is_called_by_its_device_index_and_the_first_keeps_the_default_route(hotplug: SharedMachine) -> None:
    nics = [hotplug.subject.new_nic(device_index=index) for index in (5, 2)]
    for nic in nics:
        attach(hotplug, nic)
    for nic in nics:
        wait_until_usable(hotplug, nic)
        shown = hotplug.output_of(["cat", f"/sys/class/net/eth{nic.device_index}/address"])
        assert shown.strip() == nic.mac
    assert " dev eth0 " in hotplug.output_of(["ip", "route", "get", "169.254.169.254"])
    for nic in nics:
        detach(hotplug, nic.nic_id)
    routes = hotplug.output_of(["ip", "route"])
    assert "eth2" not in routes
    assert "eth5" not in routes


@on_both
def test_a_nic_that_is_given_no_address_is_up_and_asks_seldom(hotplug: SharedMachine) -> None:
    subject = hotplug.subject
    nic = subject.new_nic(device_index=3)
    subject.forget_address(nic)
    attach(hotplug, nic)
    subject.wait_for(lambda: "slow" in client_of(hotplug, "eth3"), NIC_TIMEOUT_S, "the guest to become patient")
    shown = hotplug.output_of(["ip", "addr", "show", "eth3"])
    assert "LOWER_UP" in shown
    assert "inet " not in shown
    # Once part of a bridge it is none of the client's business, addresses or not.
    hotplug.output_of(["sh", "-c", "ip link add br0 type bridge && ip link set br0 up && ip link set eth3 master br0"])
    subject.wait_for(lambda: client_of(hotplug, "eth3") == "", NIC_TIMEOUT_S, "the client to end")
    hotplug.output_of(["ip", "link", "del", "br0"])
    subject.wait_for(lambda: client_of(hotplug, "eth3") != "", NIC_TIMEOUT_S, "another client")
    detach(hotplug, nic.nic_id)


@on_both
def test_pods_behind_a_bridge_in_the_guest_reach_each_other(hotplug: SharedMachine) -> None:
    script = """set -e
        ip link add br7 type bridge
        ip link set br7 up
        for pod in 1 2; do
            ip netns add pod$pod
            ip link add v$pod type veth peer name eth0 netns pod$pod
            ip link set v$pod master br7 up
            ip -n pod$pod addr add 10.99.0.$pod/24 dev eth0
            ip -n pod$pod link set eth0 up
        done
        ip netns exec pod1 ping -c 1 -W 5 10.99.0.2
        nsenter --net=/run/netns/pod2 ping -c 1 -W 5 10.99.0.1"""
    try:
        assert hotplug.output_of(["sh", "-c", script]).count("1 packets received") == 2
    finally:
        hotplug.run("sh", "-c", "ip netns del pod1; ip netns del pod2; ip link del br7")


# --- the drivers -------------------------------------------------------------------------------------------


@on_both
def test_a_nic_is_detached_wherever_in_the_guest_it_was_handed_on_to(hotplug: SharedMachine) -> None:
    nic = hotplug.subject.new_nic()
    attach(hotplug, nic)
    wait_until_usable(hotplug, nic)
    hotplug.output_of(["sh", "-c", "ip netns add pod && ip link set eth1 netns pod name inner"])
    try:
        assert nic.mac in hotplug.output_of(["ip", "-n", "pod", "link"])
        detach(hotplug, nic.nic_id)
        assert nic.nic_id not in hotplug.state().nic_ids
        assert nic.mac not in hotplug.output_of(["ip", "-n", "pod", "link"])
    finally:
        hotplug.run("ip", "netns", "del", "pod")


@on_both
def test_an_attach_that_fails_leaves_the_running_machine_as_it_was(hotplug: SharedMachine) -> None:
    before = hotplug.state()
    nic = NICSpec(nic_id=UNASKED_NIC, subnet_id=UNKNOWN_SUBNET, mac="52:54:00:12:34:56", device_index=1)
    with pytest.raises(DriverError):
        hotplug.driver.attach_nic(hotplug.machine_id, nic)
    assert hotplug.state() == before
    assert link_of(hotplug, nic) is None


@on_libvirt
def test_nics_come_and_go_while_a_guest_boots(stopped: SharedMachine) -> None:
    subject, going, coming = stopped.subject, stopped.subject.new_nic(), stopped.subject.new_nic(device_index=2)
    stopped.driver.attach_nic(stopped.machine_id, going)
    stopped.driver.start_machine(stopped.machine_id)
    stopped.driver.attach_nic(stopped.machine_id, coming)
    refusals: list[str] = []

    def is_detached() -> bool:
        try:
            stopped.driver.detach_nic(stopped.machine_id, going.nic_id)
        except TransientError as exc:  # the firmware does not hear, nor does the kernel at first
            refusals.append(str(exc))
            return False
        return True

    subject.wait_for(is_detached, subject.boot_timeout_s, "the booting guest to let go")
    assert stopped.state().nic_ids == (stopped.spec.nics[0].nic_id, coming.nic_id), refusals
    stopped.wait_until_ready()
    wait_until_usable(stopped, coming)
    assert link_of(stopped, going) is None
    detach(stopped, coming.nic_id)


@on_lxd
def test_a_machine_whose_links_died_is_stopped_started_and_relieved_of_them(
    hotplug: SharedMachine, real_host: RealHost
) -> None:
    kept, dropped = hotplug.subject.new_nic(), hotplug.subject.new_nic(device_index=2)
    for nic in (kept, dropped):
        attach(hotplug, nic)
        wait_until_usable(hotplug, nic)
        kill_link(real_host, nic)
    detach(hotplug, dropped.nic_id)
    hotplug.bring_down()
    hotplug.bring_up()
    assert hotplug.state().nic_ids == (hotplug.spec.nics[0].nic_id, kept.nic_id)
    wait_until_usable(hotplug, kept)
    detach(hotplug, kept.nic_id)


@on_lxd
def test_a_link_that_a_dead_container_left_is_in_nobodys_way(subject: ComputeSubject, real_host: RealHost) -> None:
    nic = subject.new_nic()
    spec = subject.new_spec()
    subject.driver.ensure_machine(spec)

    def leave_link(nic_id: str) -> None:
        with netlink(real_host.fabric.namespace) as handle:
            handle.link("add", ifname=names.container_veth(real_host.tag, nic_id), kind="veth", peer={"ifname": "left"})

    leave_link(spec.nics[0].nic_id)
    assert subject.driver.start_machine(spec.machine_id).power is PowerState.RUNNING
    leave_link(nic.nic_id)
    subject.driver.attach_nic(spec.machine_id, nic)
    assert subject.kind is MachineKind.CONTAINER
    shown = subject.driver.execute(spec.machine_id, ["cat", "/sys/class/net/eth1/address"], timeout_s=20)
    assert shown.stdout.decode().strip() == nic.mac
    subject.driver.remove_machine(spec.machine_id)
