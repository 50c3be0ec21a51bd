"""What the oracle is told: networks as the driver is told them, and the guests that are plugged into them."""

from __future__ import annotations

from dataclasses import dataclass

from iaas.drivers.interface import PortSpec, RouteSpec, SubnetSpec, VPCSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """One NIC as its guest uses it.

    ``addresses`` are those that the guest has configured on it: its own ones when None, reserved or foreign ones
    where the caller knows of them. One inside the subnet's block has the block's prefix length, any other is a single
    address; ``10.9.0.5/24`` says otherwise. ``mac`` is the NIC's own when None, another one for a pod that is bridged
    on to the NIC: such a pod is a guest of its own, with an interface of the same ``nic_id``.
    """

    nic_id: str
    addresses: tuple[str, ...] | None = None
    mac: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """One IP stack: a machine, or a pod of it.

    It behaves as Linux does with what DHCP tells it: a connected route for each address (the first interface wins
    where two are on one subnet), the default route by the gateway of the first interface that has an address of its
    subnet's block, no policy routing, no reverse path filter, any of its addresses answered on any interface.
    ``routes`` are what it was told beyond that, by somebody inside; ``behind`` are blocks that it routes to networks of
    its own, as of pods: what it is sent for those is taken to arrive, if it forwards.
    """

    guest_id: str
    interfaces: tuple[Interface, ...] = ()
    is_running: bool = True
    forwards: bool = False  # net.ipv4.ip_forward
    routes: tuple[RouteSpec, ...] = ()
    behind: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """All that may matter for a question: the VPCs concerned as a whole. A port in no guest is not attached."""

    vpcs: tuple[VPCSpec, ...] = ()
    subnets: tuple[SubnetSpec, ...] = ()
    ports: tuple[PortSpec, ...] = ()
    guests: tuple[Guest, ...] = ()
