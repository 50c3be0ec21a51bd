"""Layer 2 and what stands around it: DHCP, metadata address, a way in for the user.

This first form knows flat networks with a router; VPCs, routes and firewalls extend ``NetworkSpec``.
"""

from __future__ import annotations

import socket
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class NetworkCapability(StrEnum):
    DIAL = "dial"  # a TCP connection to a guest's address can be made
    METADATA = "metadata"  # guests reach 169.254.169.254 by real packets


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """One layer-2 network with its own router. Two may have the same CIDR."""

    network_id: str
    cidr: str  # "10.128.0.0/16"
    gateway: str  # "10.128.0.1"
    dns_domain: str = "internal"
    mtu: int = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class PortSpec:
    """What the network must know of one NIC: DHCP gives ``address`` to ``mac``, DNS knows ``hostname``."""

    nic_id: str
    network_id: str
    mac: str
    address: str
    hostname: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkState:
    network_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PortState:
    nic_id: str
    network_id: str


class NetworkDriver(Protocol):
    """Networks on one host. Must survive its own restart: what was ensured stays, or is rebuilt by ensuring again."""

    capabilities: frozenset[NetworkCapability]

    def check_available(self) -> None:
        """Return when networks can be made; raises BackendDownError otherwise."""
        ...

    def ensure_network(self, spec: NetworkSpec) -> NetworkState:
        """Make the network with gateway, DHCP and DNS, or mend it to be so (a dead DHCP server is restarted)."""
        ...

    def remove_network(self, network_id: str) -> None:
        """Remove the network with its router and DHCP server. Already absent is success."""
        ...

    def ensure_port(self, spec: PortSpec) -> PortState:
        """Reserve ``address`` for ``mac`` in the network's DHCP and DNS.

        Raises:
            NotFoundError: the network was not ensured.
        """
        ...

    def remove_port(self, network_id: str, nic_id: str) -> None:
        """Forget the reservation. Already absent is success."""
        ...

    def networks(self) -> list[NetworkState]:
        """Return all networks of this deployment."""
        ...

    def ports(
        self, network_id: str, *, only: Collection[str] | None = None, after: str = "", limit: int | None = None
    ) -> list[PortState]:
        """Return the ports of one network in the order of their NICs' ids; empty when the network is absent.

        ``only``, ``after`` and ``limit`` are as for ``ComputeDriver.inventory``.
        """
        ...

    def dial(self, network_id: str, address: str, port: int, *, timeout_s: float) -> socket.socket:
        """Return a connected TCP socket to a guest, made from inside the network.

        Raises:
            NotFoundError: no such network.
            TransientError: refused or timed out.
            UnsupportedError: not in ``capabilities``.
        """
        ...

    def listen(self, network_id: str, address: str, port: int) -> socket.socket:
        """Return a listening TCP socket inside the network's router (the metadata service's).

        Raises:
            NotFoundError: no such network.
            UnsupportedError: METADATA is not in ``capabilities``.
        """
        ...

    def close(self) -> None:
        """Let go of handles; networks are left as they are."""
        ...
