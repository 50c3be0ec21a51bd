from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from iaas.drivers.interface import MachineKind, MachineSpec, NICSpec, PermanentError, TransientError
from iaas.drivers.sim.compute import SimComputeDriver
from iaas.drivers.sim.latency import LatencyModel
from iaas.drivers.sim.network import SimNetworkDriver
from iaas.drivers.sim.world import SimWorld
from iaas.kernel.clock import CloudClock
from tests.unit.drivers.sim.conftest import ADDRESS, PORT, SUBNET, VM_ID

CONTAINER_ID = "i-box00001"
SECOND = NICSpec(nic_id="nic-00000002", subnet_id=SUBNET.subnet_id, mac="52:54:00:00:00:02", device_index=1)
SECOND_PORT = replace(PORT, nic_id=SECOND.nic_id, mac=SECOND.mac, addresses=("10.0.0.22",), names=())


@pytest.fixture
def ready_box(world: SimWorld, networks: SimNetworkDriver, spec: MachineSpec) -> SimComputeDriver:
    """The driver of a world whose container machine runs with two NICs; nothing takes time at first."""
    latency, world.latency = world.latency, LatencyModel.instant()
    driver = SimComputeDriver(MachineKind.CONTAINER, world)
    networks.ensure_port(SECOND_PORT)
    driver.ensure_machine(replace(spec, machine_id=CONTAINER_ID, kind=MachineKind.CONTAINER))
    driver.attach_nic(CONTAINER_ID, SECOND)
    driver.start_machine(CONTAINER_ID)
    world.latency = latency
    return driver


def sh(driver: SimComputeDriver, script: str) -> tuple[int, str]:
    machine_id = VM_ID if driver.kind is MachineKind.VM else CONTAINER_ID
    result = driver.execute(machine_id, ["sh", "-c", script], timeout_s=100)
    return result.exit_code, (result.stdout + result.stderr).decode()


# --- coming and going --------------------------------------------------------------------------------------


def test_a_guest_sees_a_new_nic_at_once_and_brings_it_up_a_little_later(
    ready_vm: SimComputeDriver, networks: SimNetworkDriver, clock: CloudClock
) -> None:
    networks.ensure_port(SECOND_PORT)
    ready_vm.attach_nic(VM_ID, SECOND)
    assert sh(ready_vm, "cat /sys/class/net/eth1/address") == (0, f"{SECOND.mac}\n")
    assert "10.0.0.22" not in sh(ready_vm, "ip addr")[1]
    clock.advance(0.499999)
    assert "10.0.0.22" not in sh(ready_vm, "ip addr")[1]
    clock.advance(0.000001)
    assert "inet 10.0.0.22/24 scope global eth1" in sh(ready_vm, "ip addr")[1]


def test_others_reach_a_new_nic_when_its_guest_has_brought_it_up(
    ready_vm: SimComputeDriver, ready_box: SimComputeDriver, networks: SimNetworkDriver, clock: CloudClock
) -> None:
    networks.ensure_port(replace(SECOND_PORT, nic_id="nic-00000003", mac="52:54:00:00:00:03", addresses=("10.0.0.33",)))
    third = replace(SECOND, nic_id="nic-00000003", mac="52:54:00:00:00:03")
    ready_vm.attach_nic(VM_ID, third)
    assert sh(ready_box, "ping -c 1 -W 1 10.0.0.33")[0] == 1
    clock.advance(0.5)
    assert sh(ready_box, "ping -c 1 -W 1 10.0.0.33")[0] == 0


def test_a_nic_that_comes_back_knows_nothing_of_before(
    ready_box: SimComputeDriver, networks: SimNetworkDriver, clock: CloudClock
) -> None:
    sh(ready_box, f"{HAND_ON}; ip netns exec pod ping -c 1 10.0.0.1")
    ready_box.detach_nic(CONTAINER_ID, SECOND.nic_id)
    ready_box.attach_nic(CONTAINER_ID, SECOND)
    clock.advance(1)
    assert sh(ready_box, "ip netns exec pod ls /sys/class/net")[1].split() == ["lo"]
    assert "inet 10.0.0.22/24 scope global eth1" in sh(ready_box, "ip addr")[1]
    found = networks.statistics(SUBNET.subnet_id, SECOND.nic_id)
    assert found is not None
    assert found.sent_packets == 0


def test_a_guest_may_need_time_to_let_go_of_a_nic(
    world: SimWorld, ready_vm: SimComputeDriver, clock: CloudClock
) -> None:
    world.latency = LatencyModel().with_kind(MachineKind.VM, nic_gone_s=1.0)
    for _ in range(2):
        with pytest.raises(TransientError, match="not let go"):
            ready_vm.detach_nic(VM_ID, PORT.nic_id)
        clock.advance(0.5)
    ready_vm.detach_nic(VM_ID, PORT.nic_id)
    state = ready_vm.inspect_machine(VM_ID)
    assert state is not None
    assert state.nic_ids == ()


def test_a_vm_that_boots_does_not_let_go_of_its_nics(
    vms: SimComputeDriver, spec: MachineSpec, clock: CloudClock
) -> None:
    vms.ensure_machine(spec)
    vms.start_machine(VM_ID)
    for _ in range(2):  # while it starts, and while its guest boots
        with pytest.raises(TransientError, match="does not answer"):
            vms.detach_nic(VM_ID, PORT.nic_id)
        clock.advance(1.5)
    clock.advance(10)
    vms.detach_nic(VM_ID, PORT.nic_id)


def test_a_nic_is_in_one_machine_and_one_place(ready_vm: SimComputeDriver, spec: MachineSpec) -> None:
    ready_vm.ensure_machine(replace(spec, machine_id="i-vm000002", nics=()))
    with pytest.raises(PermanentError, match="still plugged into"):
        ready_vm.attach_nic("i-vm000002", replace(SECOND, nic_id=PORT.nic_id))
    for other in (replace(SECOND, nic_id=PORT.nic_id), NICSpec(nic_id=PORT.nic_id, subnet_id="x", mac=PORT.mac)):
        with pytest.raises(PermanentError, match="otherwise"):
            ready_vm.attach_nic(VM_ID, other)


# --- what the guest sees -----------------------------------------------------------------------------------


def test_a_guest_has_all_its_nics(ready_box: SimComputeDriver, networks: SimNetworkDriver) -> None:
    networks.ensure_subnet(replace(SUBNET, mtu=1400))
    assert sh(ready_box, "ls /sys/class/net")[1].split() == ["eth0", "eth1", "lo"]
    assert sh(ready_box, "cat /sys/class/net/eth1/mtu")[1] == "1400\n"
    assert sh(ready_box, "cat /sys/class/net/eth0/operstate")[1] == "up\n"
    links = sh(ready_box, "ip link")[1]
    assert "2: eth0: " in links
    assert "3: eth1: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1400" in links
    assert "inet" not in links
    shown = sh(ready_box, "ip -4 addr show dev eth1")[1]
    assert "10.0.0.22/24" in shown
    assert ADDRESS not in shown
    assert sh(ready_box, "ip route")[1].splitlines() == [
        "default via 10.0.0.1 dev eth0",
        "10.0.0.0/24 dev eth0 scope link src 10.0.0.10",
        "10.0.0.0/24 dev eth1 scope link src 10.0.0.22",
    ]


@pytest.mark.parametrize(
    "script",
    [
        "ip addr show eth9",
        "ip addr add 10.0.0.9/24 dev eth9",
        "ip addr add nonsense dev eth0",
        "ip addr add 10.0.0.10/24 dev eth0",
        "ip addr del 10.0.0.99/24 dev eth0",
        "ip link set eth9 up",
        "ip link set eth0 down",
        "ip link set eth0 netns none",
        "ip link set eth9 netns 1",
        "ip netns del none",
        "ip netns exec none true",
        "ip -n none addr",
        "ip netns add a; ip netns add a",
        "ip netns add a/b",
        "ip route add default via 10.0.0.254",
        "ip route add 10.9.0.0/16 via 10.0.0.1",
        "ip netns add a; ip -n a route add default via 10.0.0.1",
        "ip netns add a; ip -n a route add default via nonsense",
        "ip",
    ],
)
def test_what_ip_cannot_do_it_says(ready_box: SimComputeDriver, script: str) -> None:
    code, said = sh(ready_box, script)
    assert code in {1, 2}
    assert said != ""


# --- handed on ---------------------------------------------------------------------------------------------

HAND_ON = (
    "ip netns add pod && ip link set eth1 netns pod && ip -n pod addr add 10.0.0.22/24 dev eth1"
    " && ip -n pod link set eth1 up && ip -n pod route add default via 10.0.0.1"
)


def test_a_nic_in_a_namespace_works_there_and_only_there(
    ready_box: SimComputeDriver, ready_vm: SimComputeDriver, networks: SimNetworkDriver
) -> None:
    networks.ensure_subnet(replace(SUBNET, subnet_id="net-00000002", cidr="10.0.1.0/24", gateway="10.0.1.1"))
    assert sh(ready_box, HAND_ON) == (0, "")
    assert sh(ready_box, "ls /sys/class/net")[1].split() == ["eth0", "lo"]
    assert sh(ready_box, "ip netns") == (0, "pod\n")
    sh(ready_box, "ip -n pod addr del 10.0.0.22/24 dev eth1")
    assert sh(ready_vm, "ping -c 1 -W 1 10.0.0.22")[0] == 1
    sh(ready_box, "ip -n pod addr add 10.0.0.22/24 dev eth1")
    assert "eth0" not in sh(ready_box, "ip netns exec pod ip link")[1]
    assert "eth0" in sh(ready_box, "ip netns exec pod true; ip link")[1]
    for address in ("10.0.0.1", "10.0.1.1"):  # on the segment, and by the gateway
        assert sh(ready_box, f"ip netns exec pod ping -c 1 {address}")[0] == 0
    assert sh(ready_vm, "curl -s 10.0.0.22")[1].startswith(f"id={CONTAINER_ID} ")
    assert sh(ready_box, "ip link set eth0 netns pod; ping -c 1 10.0.0.1")[0] == 1
    assert sh(ready_box, "ip -n pod link set eth0 netns 1; ping -c 1 10.0.0.1")[0] == 0


def test_in_a_container_the_link_dies_with_its_namespace_until_it_is_plugged_again(
    ready_box: SimComputeDriver, networks: SimNetworkDriver, clock: CloudClock
) -> None:
    lost: list[str] = []
    networks.on_link_lost(lost.append)
    assert sh(ready_box, f"{HAND_ON}; ip netns del pod") == (0, "")
    assert lost == [SECOND.nic_id]
    assert SECOND.mac not in sh(ready_box, "ip link")[1]
    assert networks.statistics(SUBNET.subnet_id, SECOND.nic_id) is None
    state = ready_box.inspect_machine(CONTAINER_ID)
    assert state is not None
    assert SECOND.nic_id in state.nic_ids
    assert not ready_box.replug_nic(CONTAINER_ID, PORT.nic_id)
    assert ready_box.replug_nic(CONTAINER_ID, SECOND.nic_id)
    assert not ready_box.replug_nic(CONTAINER_ID, SECOND.nic_id)
    clock.advance(1)
    assert "inet 10.0.0.22/24 scope global eth1" in sh(ready_box, "ip addr")[1]
    assert lost == [SECOND.nic_id]


def test_in_a_vm_the_link_falls_back(ready_vm: SimComputeDriver, networks: SimNetworkDriver, clock: CloudClock) -> None:
    lost: list[str] = []
    networks.on_link_lost(lost.append)
    networks.ensure_port(SECOND_PORT)
    ready_vm.attach_nic(VM_ID, SECOND)
    clock.advance(1)
    assert sh(ready_vm, f"{HAND_ON}; ip netns del pod") == (0, "")
    assert "inet 10.0.0.22/24 scope global eth1" in sh(ready_vm, "ip addr")[1]
    assert not ready_vm.replug_nic(VM_ID, SECOND.nic_id)
    assert lost == []


def test_who_listens_later_hears_of_links_that_are_dead(
    open_world: Callable[[], SimWorld], ready_box: SimComputeDriver, networks: SimNetworkDriver
) -> None:
    closed: list[str] = []
    networks.on_link_lost(closed.append)
    networks.close()
    sh(ready_box, f"{HAND_ON}; ip netns del pod")
    assert closed == []
    heard: list[str] = []
    SimNetworkDriver(open_world()).on_link_lost(heard.append)
    assert heard == [SECOND.nic_id]


@pytest.mark.parametrize("way", ["reboot", "restart"])
def test_a_container_that_boots_has_all_its_links_again(world: SimWorld, ready_box: SimComputeDriver, way: str) -> None:
    world.latency = LatencyModel.instant()
    sh(ready_box, f"{HAND_ON}; ip netns del pod")
    if way == "reboot":
        sh(ready_box, "reboot")
    else:
        ready_box.stop_machine(CONTAINER_ID, force=True)
        assert not ready_box.replug_nic(CONTAINER_ID, SECOND.nic_id)
        ready_box.start_machine(CONTAINER_ID)
    assert "inet 10.0.0.22/24 scope global eth1" in sh(ready_box, "ip addr")[1]
    assert sh(ready_box, "ip netns") == (0, "")
    assert not ready_box.replug_nic(CONTAINER_ID, SECOND.nic_id)


def test_a_listener_may_plug_the_nic_again_at_once(ready_box: SimComputeDriver, networks: SimNetworkDriver) -> None:
    plugged: list[bool] = []
    networks.on_link_lost(lambda nic_id: plugged.append(ready_box.replug_nic(CONTAINER_ID, nic_id)))
    sh(ready_box, f"{HAND_ON}; ip netns del pod")
    assert plugged == [True]
    assert "eth1" in sh(ready_box, "ip link")[1]
