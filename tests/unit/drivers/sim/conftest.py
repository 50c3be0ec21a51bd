"""A simulated world with a frozen clock, and one machine in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from iaas.drivers.interface import ImageSpec, MachineKind, MachineSpec, NICSpec, PortSpec, SubnetSpec, VPCSpec
from iaas.drivers.sim.compute import SimComputeDriver
from iaas.drivers.sim.images import SimImageDriver
from iaas.drivers.sim.latency import LatencyModel
from iaas.drivers.sim.network import SimNetworkDriver
from iaas.drivers.sim.world import SimWorld
from iaas.kernel.clock import CloudClock

VM_ID = "i-vm000001"
ADDRESS = "10.0.0.10"
VPC = VPCSpec(vpc_id="vpc-00000001", cidr="10.0.0.0/16")
SUBNET = SubnetSpec(subnet_id="net-00000001", vpc_id=VPC.vpc_id, cidr="10.0.0.0/24", gateway="10.0.0.1")
PORT = PortSpec(
    nic_id="nic-00000001",
    subnet_id=SUBNET.subnet_id,
    mac="52:54:00:00:00:01",
    owner="prj-00000001",
    addresses=(ADDRESS,),
    names=("web-1", VM_ID),
)


@pytest.fixture
def clock() -> CloudClock:
    return CloudClock(scale=0)


@pytest.fixture
def open_world(tmp_path: Path, clock: CloudClock) -> Iterator[Callable[[], SimWorld]]:
    """Open the same world's file, as often as wanted; closed at the end."""
    opened: list[SimWorld] = []

    def open_again() -> SimWorld:
        opened.append(SimWorld(tmp_path / "world.db", clock))
        return opened[-1]

    yield open_again
    for world in opened:
        world.close()


@pytest.fixture
def world(open_world: Callable[[], SimWorld]) -> SimWorld:
    made = open_world()
    images = SimImageDriver(made)
    both = frozenset(MachineKind)
    for kind in MachineKind:
        images.ensure_image(
            ImageSpec(image_id="img-tiny0001", source="builtin:tiny", kinds=both), kind=kind, progress=lambda _: None
        )
    networks = SimNetworkDriver(made)
    networks.ensure_vpc(VPC)
    networks.ensure_subnet(SUBNET)
    networks.ensure_port(PORT)
    return made


@pytest.fixture
def networks(world: SimWorld) -> SimNetworkDriver:
    return SimNetworkDriver(world)


@pytest.fixture
def vms(world: SimWorld) -> SimComputeDriver:
    return SimComputeDriver(MachineKind.VM, world)


@pytest.fixture
def spec() -> MachineSpec:
    return MachineSpec(
        machine_id=VM_ID,
        kind=MachineKind.VM,
        hostname="web-1",
        vcpus=2,
        memory_mib=512,
        root_disk_gib=1,
        image_id="img-tiny0001",
        nics=(NICSpec(nic_id=PORT.nic_id, subnet_id=PORT.subnet_id, mac=PORT.mac),),
    )


@pytest.fixture
def ready_vm(world: SimWorld, vms: SimComputeDriver, spec: MachineSpec) -> SimComputeDriver:
    """The driver of a world whose machine ``VM_ID`` runs and is ready; nothing takes time at first."""
    latency, world.latency = world.latency, LatencyModel.instant()
    vms.ensure_machine(spec)
    vms.start_machine(spec.machine_id)
    world.latency = latency
    return vms
