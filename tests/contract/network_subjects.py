"""Who has to keep the contract of NetworkDriver. A new driver joins with one line in ``NETWORK_SUBJECTS``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from _pytest.mark import ParameterSet  # pytest.param returns it and pytest does not export it

from iaas.drivers.interface import NetworkDriver, PortSpec, SubnetSpec, VPCSpec
from iaas.drivers.linux.network import LinuxNetworkDriver
from iaas.kernel.clock import CloudClock
from iaas.kernel.ids import NIC, SUBNET, VPC, IdSource
from tests.real_host import RealHost

OWNER = "proj-aaaaaaaa"


@dataclass
class NetworkSubject:
    """A driver under test.

    ``reopen`` returns a driver over the same state, as after a restart. What was made by the methods below is
    removed when the test ends.
    """

    driver: NetworkDriver
    reopen: Callable[[], NetworkDriver]
    host: RealHost | None = None
    ids: IdSource = field(default_factory=IdSource)
    made_subnets: list[str] = field(default_factory=list)
    made_vpcs: list[str] = field(default_factory=list)

    def vpc_spec(self, *, cidr: str = "10.77.0.0/16", **more: Any) -> VPCSpec:
        """Return the spec of a VPC that nobody has ensured yet."""
        spec = VPCSpec(vpc_id=self.ids.new(VPC), cidr=cidr, **more)
        self.made_vpcs.append(spec.vpc_id)
        return spec

    def vpc(self, *, cidr: str = "10.77.0.0/16", **more: Any) -> VPCSpec:
        """Return a VPC that is there."""
        spec = self.vpc_spec(cidr=cidr, **more)
        self.driver.ensure_vpc(spec)
        return spec

    def subnet_spec(self, vpc: VPCSpec | None, *, cidr: str = "10.77.0.0/24", **more: Any) -> SubnetSpec:
        """Return the spec of a subnet that nobody has ensured yet; its gateway is the block's first address."""
        subnet_id = self.ids.new(SUBNET)
        self.made_subnets.append(subnet_id)
        if vpc is None:
            return SubnetSpec(subnet_id=subnet_id, **more)
        gateway = more.pop("gateway", cidr.rpartition(".")[0] + ".1")
        return SubnetSpec(subnet_id=subnet_id, vpc_id=vpc.vpc_id, cidr=cidr, gateway=gateway, **more)

    def subnet(self, vpc: VPCSpec | None, *, cidr: str = "10.77.0.0/24", **more: Any) -> SubnetSpec:
        """Return a subnet that is there."""
        spec = self.subnet_spec(vpc, cidr=cidr, **more)
        self.driver.ensure_subnet(spec)
        return spec

    def port_spec(self, subnet: SubnetSpec, *addresses: str, owner: str = OWNER, **more: Any) -> PortSpec:
        """Return the spec of a port with a fresh MAC, unless one is given."""
        mac = more.pop("mac", None) or self.ids.mac()
        return PortSpec(
            nic_id=self.ids.new(NIC), subnet_id=subnet.subnet_id, mac=mac, owner=owner, addresses=addresses, **more
        )

    def port(self, subnet: SubnetSpec, *addresses: str, owner: str = OWNER, **more: Any) -> PortSpec:
        """Return a port that is there."""
        spec = self.port_spec(subnet, *addresses, owner=owner, **more)
        self.driver.ensure_port(spec)
        return spec

    def close(self) -> None:
        for subnet_id in self.made_subnets:
            self.driver.remove_subnet(subnet_id)
        for vpc_id in self.made_vpcs:
            self.driver.remove_vpc(vpc_id)
        self.driver.close()


def linux(request: pytest.FixtureRequest) -> NetworkSubject:
    """Bridges, namespaces and dnsmasq on this host."""
    host: RealHost = request.getfixturevalue("real_host")

    def reopen() -> NetworkDriver:
        return LinuxNetworkDriver(host.fabric, host.tag, host.state_dir)

    return NetworkSubject(driver=reopen(), reopen=reopen, host=host)


def sim(request: pytest.FixtureRequest) -> NetworkSubject:
    """The simulation; a reopened driver reads the world's file anew."""
    from iaas.drivers.sim.network import SimNetworkDriver
    from iaas.drivers.sim.world import SimWorld

    path: Path = request.getfixturevalue("tmp_path") / "world.db"
    clock = CloudClock(scale=0)
    worlds = ExitStack()
    request.addfinalizer(worlds.close)  # registered before the subject's own end, hence run after it

    def reopen() -> NetworkDriver:
        return SimNetworkDriver(worlds.enter_context(closing(SimWorld(path, clock))))

    return NetworkSubject(driver=reopen(), reopen=reopen)


NETWORK_SUBJECTS: dict[str, Callable[[pytest.FixtureRequest], NetworkSubject]] = {
    "linux": linux,
    "sim": sim,
}

# Those whose guests exchange real packets, on a host that can do so.
PACKET_SUBJECTS = ("linux",)


def subject_params(names: Iterable[str]) -> list[ParameterSet]:
    """Return the subjects as parameters of a fixture, those of the real backend marked as such."""
    return [pytest.param(name, marks=[pytest.mark.real] if name in PACKET_SUBJECTS else []) for name in names]
