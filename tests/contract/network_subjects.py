"""Who has to keep the contract of NetworkDriver. A new driver joins with one line in ``NETWORK_SUBJECTS``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet  # pytest.param returns it and pytest does not export it

from iaas.drivers.interface import NetworkDriver, NetworkSpec, PortSpec
from iaas.drivers.linux.network import LinuxNetworkDriver
from iaas.drivers.sim.network import SimNetworkDriver
from iaas.drivers.sim.world import SimWorld
from iaas.kernel.clock import CloudClock
from iaas.kernel.ids import NETWORK, NIC, IdSource
from tests.real_host import RealHost


@dataclass
class NetworkSubject:
    """A driver under test.

    ``reopen`` returns a driver over the same state, as after a restart. Networks made with ``network``
    are removed when the test ends.
    """

    driver: NetworkDriver
    reopen: Callable[[], NetworkDriver]
    host: RealHost | None = None
    ids: IdSource = field(default_factory=IdSource)
    made: list[str] = field(default_factory=list)

    def network(self, *, cidr: str = "10.77.0.0/24", gateway: str = "10.77.0.1", mtu: int = 1500) -> NetworkSpec:
        """Return the spec of a network that nobody has ensured yet."""
        spec = NetworkSpec(network_id=self.ids.new(NETWORK), cidr=cidr, gateway=gateway, mtu=mtu)
        self.made.append(spec.network_id)
        return spec

    def port(self, network: NetworkSpec, *, address: str = "10.77.0.10", hostname: str = "web") -> PortSpec:
        """Return the spec of a port with a fresh MAC."""
        return PortSpec(
            nic_id=self.ids.new(NIC),
            network_id=network.network_id,
            mac=self.ids.mac(),
            address=address,
            hostname=hostname,
        )

    def close(self) -> None:
        for network_id in self.made:
            self.driver.remove_network(network_id)
        self.driver.close()


def linux(request: pytest.FixtureRequest) -> NetworkSubject:
    """Bridges, namespaces and dnsmasq on this host."""
    host: RealHost = request.getfixturevalue("real_host")

    def reopen() -> NetworkDriver:
        return LinuxNetworkDriver(host.fabric, host.tag, host.state_dir)

    return NetworkSubject(driver=reopen(), reopen=reopen, host=host)


def sim(request: pytest.FixtureRequest) -> NetworkSubject:
    """The simulation; a reopened driver reads the world's file anew."""
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
