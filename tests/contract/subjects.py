"""What a compute driver brings to the contract suite, and the common way to bring it.

A driver's own module (``subjects_<name>.py``) builds a :class:`StandardSubject` around its driver; the
suite in ``test_compute.py`` sees only :class:`ComputeSubject`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import Any, Protocol

from iaas.drivers.interface import (
    ComputeDriver,
    MachineKind,
    MachineSpec,
    NetworkCapability,
    NetworkDriver,
    NICSpec,
    PortSpec,
    SubnetSpec,
    VPCSpec,
)
from iaas.kernel import ids
from tests.contract.guest_metadata import GuestIdentity, MetadataServer

CIDR = "10.77.0.0/24"
GATEWAY = "10.77.0.1"
FIRST_GUEST_ADDRESS = "10.77.0.10"
OWNER = "proj-contract"
POLL_INTERVAL_S = 0.1


class ComputeSubject(Protocol):
    """One compute driver on one host, ready to be tested."""

    kind: MachineKind
    serves_metadata: bool
    """Whether guests learn their instance id and host name (over the network or otherwise)."""
    boot_timeout_s: float
    stop_timeout_s: float

    @property
    def driver(self) -> ComputeDriver:
        """The driver under test: another object after each :meth:`reopen`."""
        ...

    def new_spec(self, **changes: Any) -> MachineSpec:
        """Return a spec with fresh ids, an image that is there and one NIC on a network made for it.

        The machine is in the ledger from now on: :meth:`close` removes it, whatever became of it.
        """
        ...

    def new_nic(self, *, device_index: int = 1) -> NICSpec:
        """Return one more NIC on the same network, let in with an address of its own, for any machine."""
        ...

    def address_of(self, nic: NICSpec) -> str:
        """Return the address that the network gives the NIC."""
        ...

    def forget_address(self, nic: NICSpec) -> None:
        """Let the network give the NIC no address any more."""
        ...

    def wait_for(self, condition: Callable[[], bool], timeout_s: float, what: str = "") -> None:
        """Let the time of this backend pass until ``condition()`` is true.

        Raises:
            AssertionError: it is not within ``timeout_s``; says ``what`` was waited for.
        """
        ...

    def reopen(self) -> None:
        """Close the driver object and make a new one on the same host, as a restarted server does."""
        ...

    def open_stranger(self) -> ComputeDriver | None:
        """Return a driver of another deployment on the same host; None where that is not to be had cheaply.

        The caller closes it.
        """
        ...

    def close(self) -> None:
        """Remove all that :meth:`new_spec` handed out, assert that nothing is left, close the driver."""
        ...


def pass_wall_time() -> None:
    """Let a real backend get on; the deadline is kept by who waits."""
    time.sleep(POLL_INTERVAL_S)


@dataclass(kw_only=True)
class StandardSubject:
    """A :class:`ComputeSubject` out of a driver factory, a network driver and the id of an image.

    Args:
        open_driver: makes a driver of the deployment under test on the host.
        networks: where the machines' NICs live. With METADATA among its capabilities, a small metadata
            server answers the guests at 169.254.169.254, so that their boot comes to its end.
        image_id: an image that ``open_driver()``'s driver can boot, brought there by the caller.
        pass_time: lets a little of the backend's time pass, called between two looks at a condition.
        now_s: the backend's time in seconds, for deadlines.
        on_close: what the caller wants undone after the machines and the network are gone.
    """

    kind: MachineKind
    open_driver: Callable[[], ComputeDriver]
    networks: NetworkDriver
    image_id: str
    serves_metadata: bool = True
    boot_timeout_s: float = 90.0
    stop_timeout_s: float = 30.0
    memory_mib: int = 128
    stranger_factory: Callable[[], ComputeDriver] | None = None
    pass_time: Callable[[], None] = pass_wall_time
    now_s: Callable[[], float] = time.monotonic
    on_close: Callable[[], None] | None = None

    _driver: ComputeDriver = field(init=False)
    _ids: ids.IdSource = field(init=False, default_factory=ids.IdSource)
    _vpc_id: str = field(init=False)
    _subnet_id: str = field(init=False)
    _ledger: list[MachineSpec] = field(init=False, default_factory=list)
    _addresses: dict[str, str] = field(init=False, default_factory=dict)  # NIC -> its own
    _metadata: MetadataServer | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._driver = self.open_driver()
        self._vpc_id, self._subnet_id = self._ids.new(ids.VPC), self._ids.new(ids.SUBNET)
        self.networks.ensure_vpc(VPCSpec(vpc_id=self._vpc_id, cidr=CIDR))
        self.networks.ensure_subnet(
            SubnetSpec(subnet_id=self._subnet_id, vpc_id=self._vpc_id, cidr=CIDR, gateway=GATEWAY)
        )
        if NetworkCapability.METADATA in self.networks.capabilities:
            self._metadata = MetadataServer(self.networks.listen(self._vpc_id, "169.254.169.254", 80))

    @property
    def driver(self) -> ComputeDriver:
        return self._driver

    def new_spec(self, **changes: Any) -> MachineSpec:
        nic = NICSpec(nic_id=self._ids.new(ids.NIC), subnet_id=self._subnet_id, mac=self._ids.mac())
        spec = MachineSpec(
            machine_id=self._ids.new(ids.INSTANCE),
            kind=self.kind,
            hostname="contract-1",
            vcpus=1,
            memory_mib=self.memory_mib,
            root_disk_gib=1,
            image_id=self.image_id,
            nics=(nic,),
        )
        spec = replace(spec, **changes)
        self._ledger.append(spec)
        address = self._let_in(nic, spec.hostname)
        if self._metadata is not None:
            self._metadata.identities[address] = GuestIdentity(
                instance_id=spec.machine_id, hostname=spec.hostname, address=address, mac=nic.mac
            )
        return spec

    def new_nic(self, *, device_index: int = 1) -> NICSpec:
        nic = NICSpec(
            nic_id=self._ids.new(ids.NIC), subnet_id=self._subnet_id, mac=self._ids.mac(), device_index=device_index
        )
        self._let_in(nic)
        return nic

    def address_of(self, nic: NICSpec) -> str:
        return self._addresses[nic.nic_id]

    def forget_address(self, nic: NICSpec) -> None:
        port = PortSpec(nic_id=nic.nic_id, subnet_id=nic.subnet_id, mac=nic.mac, owner=OWNER, revision=1)
        self.networks.ensure_port(port)

    def _let_in(self, nic: NICSpec, *names: str) -> str:
        address = str(ip_address(FIRST_GUEST_ADDRESS) + len(self._addresses))
        assert ip_address(address) in ip_network(CIDR), "the contract network is full"
        self._addresses[nic.nic_id] = address
        self.networks.ensure_port(
            PortSpec(
                nic_id=nic.nic_id,
                subnet_id=nic.subnet_id,
                mac=nic.mac,
                owner=OWNER,
                addresses=(address,),
                names=names,
            )
        )
        return address

    def wait_for(self, condition: Callable[[], bool], timeout_s: float, what: str = "") -> None:
        deadline_s = self.now_s() + timeout_s
        while not condition():
            if self.now_s() > deadline_s:
                raise AssertionError(f"not within {timeout_s:g} s: {what or 'a condition'}")
            self.pass_time()

    def reopen(self) -> None:
        self._driver.close()
        self._driver = self.open_driver()

    def open_stranger(self) -> ComputeDriver | None:
        return self.stranger_factory() if self.stranger_factory else None

    def close(self) -> None:
        try:
            for spec in self._ledger:
                self._driver.remove_machine(spec.machine_id)
            left = self._driver.inventory()
            for nic_id in self._addresses:
                self.networks.remove_port(self._subnet_id, nic_id)
            assert not self.networks.ports(self._subnet_id)
        finally:
            if self._metadata is not None:
                self._metadata.close()
            self.networks.remove_subnet(self._subnet_id)
            self.networks.remove_vpc(self._vpc_id)
            self._driver.close()
            if self.on_close is not None:
                self.on_close()
        assert left == [], f"machines outlived their removal: {left}"
