"""A network driver whose VPCs are served from inside as soon as they are there."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Collection

from iaas.api.inside.servers import GuestServers
from iaas.drivers.interface import (
    DriverError,
    NetworkCapability,
    NetworkDriver,
    PortSpec,
    PortState,
    PortStatistics,
    ProbeReport,
    ProbeSpec,
    SubnetSpec,
    SubnetState,
    VPCSpec,
    VPCState,
)
from iaas.drivers.interface.networks import LinkLostListener


class PublishedNetworks:
    """Hands every call on to ``driver``; VPCs have their servers from ``ensure_vpc`` to ``remove_vpc``."""

    def __init__(self, driver: NetworkDriver, servers: GuestServers) -> None:
        self._driver = driver
        self._servers = servers
        self.capabilities = driver.capabilities

    def check_available(self) -> None:
        self._driver.check_available()

    def ensure_vpc(self, spec: VPCSpec) -> VPCState:
        state = self._driver.ensure_vpc(spec)
        self._serve(spec.vpc_id)
        return state

    def remove_vpc(self, vpc_id: str) -> None:
        # First: a socket of ours would keep the router's namespace alive after its end.
        self._servers.stop(vpc_id)
        try:
            self._driver.remove_vpc(vpc_id)
        except DriverError:
            with contextlib.suppress(DriverError):  # what is left may be no router any more
                self._serve(vpc_id)
            raise

    def ensure_subnet(self, spec: SubnetSpec) -> SubnetState:
        return self._driver.ensure_subnet(spec)

    def remove_subnet(self, subnet_id: str) -> None:
        self._driver.remove_subnet(subnet_id)

    def ensure_port(self, spec: PortSpec) -> PortState:
        return self._driver.ensure_port(spec)

    def remove_port(self, subnet_id: str, nic_id: str) -> None:
        self._driver.remove_port(subnet_id, nic_id)

    def vpcs(self) -> list[VPCState]:
        return self._driver.vpcs()

    def subnets(self) -> list[SubnetState]:
        return self._driver.subnets()

    def ports(
        self, subnet_id: str, *, only: Collection[str] | None = None, after: str = "", limit: int | None = None
    ) -> list[PortState]:
        return self._driver.ports(subnet_id, only=only, after=after, limit=limit)

    def statistics(self, subnet_id: str, nic_id: str) -> PortStatistics | None:
        return self._driver.statistics(subnet_id, nic_id)

    def probe(self, spec: ProbeSpec) -> ProbeReport | None:
        return self._driver.probe(spec)

    def on_link_lost(self, listener: LinkLostListener) -> None:
        self._driver.on_link_lost(listener)

    def dial(self, vpc_id: str, address: str, port: int, *, timeout_s: float) -> socket.socket:
        return self._driver.dial(vpc_id, address, port, timeout_s=timeout_s)

    def listen(self, vpc_id: str, address: str, port: int) -> socket.socket:
        return self._driver.listen(vpc_id, address, port)

    def close(self) -> None:
        self._servers.close()
        self._driver.close()

    def _serve(self, vpc_id: str) -> None:
        if NetworkCapability.METADATA in self.capabilities:
            self._servers.serve(vpc_id, self._driver)
