"""A network driver whose VPCs are all this machine's loopback: each listens at a port of its own there."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Collection
from contextlib import closing

from iaas.drivers.interface import (
    METADATA_ADDRESS,
    NetworkCapability,
    PermanentError,
    PortSpec,
    PortState,
    PortStatistics,
    ProbeReport,
    ProbeSpec,
    SubnetSpec,
    SubnetState,
    UnsupportedError,
    VPCSpec,
    VPCState,
)
from iaas.drivers.interface.networks import LinkLostListener


class LoopbackNetworks:
    """Knows ports by VPC and address; a second socket at the same one is refused while the first is open."""

    capabilities = frozenset({NetworkCapability.METADATA})

    def __init__(self) -> None:
        self.at: dict[tuple[str, str], int] = {}
        self.asked: list[tuple[str, str, int]] = []
        self.keeps_vpcs = False

    def port_of(self, vpc_id: str, address: str = METADATA_ADDRESS) -> int:
        return self.at[vpc_id, address]

    def make_router_anew(self, vpc_id: str) -> None:
        """Let the VPC have another namespace: whatever listens now is out of the guests' reach."""
        self.at = {key: port for key, port in self.at.items() if key[0] != vpc_id}

    def check_available(self) -> None: ...

    def ensure_vpc(self, spec: VPCSpec) -> VPCState:
        return VPCState(vpc_id=spec.vpc_id)

    def remove_vpc(self, vpc_id: str) -> None:
        if self.keeps_vpcs:
            raise PermanentError("subnets of it are still there")

    def ensure_subnet(self, spec: SubnetSpec) -> SubnetState:
        return SubnetState(subnet_id=spec.subnet_id, vpc_id=spec.vpc_id)

    def remove_subnet(self, subnet_id: str) -> None: ...

    def ensure_port(self, spec: PortSpec) -> PortState:
        return PortState(nic_id=spec.nic_id, subnet_id=spec.subnet_id)

    def remove_port(self, subnet_id: str, nic_id: str) -> None: ...

    def vpcs(self) -> list[VPCState]:
        return []

    def subnets(self) -> list[SubnetState]:
        return []

    def ports(
        self, subnet_id: str, *, only: Collection[str] | None = None, after: str = "", limit: int | None = None
    ) -> list[PortState]:
        return []

    def statistics(self, subnet_id: str, nic_id: str) -> PortStatistics | None:
        return None

    def probe(self, spec: ProbeSpec) -> ProbeReport | None:
        return None

    def on_link_lost(self, listener: LinkLostListener) -> None: ...

    def dial(self, vpc_id: str, address: str, port: int, *, timeout_s: float) -> socket.socket:
        raise UnsupportedError("nobody is dialled on loopback")

    def listen(self, vpc_id: str, address: str, port: int) -> socket.socket:
        self.asked.append((vpc_id, address, port))
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", self.at.get((vpc_id, address), 0)))
            listener.listen()
        except OSError as error:
            listener.close()
            raise PermanentError(f"cannot listen at {address}:{port}: {error}") from error
        self.at[vpc_id, address] = listener.getsockname()[1]
        return listener

    def close(self) -> None: ...


def ask(
    port: int, path: str, source: str, method: str = "GET", *, headers: dict[str, str] | None = None, body: bytes = b""
) -> tuple[int, bytes, dict[str, str]]:
    """Ask from an address of the loopback, which stands for the guest's."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20, source_address=(source, 0))) as connection:
        connection.request(method, path, body or None, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
