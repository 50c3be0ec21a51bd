"""Links of one network: its bridge in the fabric, its router's namespace, the leg between the two."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from iaas.drivers.interface import NetworkSpec, PermanentError
from iaas.drivers.linux.namespaces import create_namespace, netlink, remove_namespace, write_sysctl

if TYPE_CHECKING:
    from pyroute2 import IPRoute

ROUTER_LEG = "gw0"
METADATA_ADDRESS = "169.254.169.254"


def ensure_bridge(fabric_namespace: str, bridge: str, *, mtu: int) -> None:
    """Make the bridge, up, without an address: whatever is routed is routed in the router's namespace."""
    with netlink(fabric_namespace) as handle:
        if not handle.link_lookup(ifname=bridge):
            # No spanning tree and no delay: there is no loop, and a guest's first DHCP request must pass.
            # No multicast snooping: without a querier it stops forwarding what it has not learned.
            handle.link("add", ifname=bridge, kind="bridge", br_stp_state=0, br_forward_delay=0, br_mcast_snooping=0)
        index = _index(handle, bridge)
        handle.link("set", index=index, mtu=mtu)
        handle.link("set", index=index, state="up")


def ensure_router(fabric_namespace: str, bridge: str, *, router: str, leg: str, spec: NetworkSpec) -> None:
    """Make the router's namespace with its leg on the bridge, the gateway's and the metadata service's address.

    Args:
        fabric_namespace: where the bridge is.
        bridge: name of the bridge.
        router: name of the namespace to make.
        leg: name of the leg's end at the bridge; its end in the router is ``ROUTER_LEG``.
        spec: the network.
    """
    create_namespace(router)
    # With forwarding on, a guest that asks for the outside hears at once that there is no way.
    write_sysctl(router, "net/ipv4/ip_forward", "1")
    with netlink(fabric_namespace) as handle:
        has_outer_end = bool(handle.link_lookup(ifname=leg))
    with netlink(router) as handle:
        _ensure_address(handle, "lo", METADATA_ADDRESS, 32)
        if not has_outer_end:  # the fabric was made anew: what is left is the end of an older leg
            _delete_link(handle, ROUTER_LEG)
        has_inner_end = bool(handle.link_lookup(ifname=ROUTER_LEG))
    with netlink(fabric_namespace) as handle:
        if not has_inner_end:
            _delete_link(handle, leg)
            handle.link("add", ifname=leg, kind="veth", peer={"ifname": ROUTER_LEG, "net_ns_fd": router})
        index = _index(handle, leg)
        handle.link("set", index=index, mtu=spec.mtu, master=_index(handle, bridge))
        handle.link("set", index=index, state="up")
    with netlink(router) as handle:
        index = _index(handle, ROUTER_LEG)
        handle.link("set", index=index, mtu=spec.mtu)
        handle.link("set", index=index, state="up")
        _ensure_address(handle, ROUTER_LEG, spec.gateway, ipaddress.ip_network(spec.cidr).prefixlen)


def remove_router(fabric_namespace: str, *, router: str, leg: str) -> None:
    """Remove the router with its leg. The leg goes first: sockets still open would keep it alive."""
    with netlink(fabric_namespace) as handle:
        _delete_link(handle, leg)
    remove_namespace(router)


def remove_bridge(fabric_namespace: str, bridge: str) -> None:
    """Remove the bridge. Already absent is success."""
    with netlink(fabric_namespace) as handle:
        _delete_link(handle, bridge)


def link_names(namespace: str) -> list[str]:
    """Return the names of all links in a namespace."""
    with netlink(namespace) as handle:
        return sorted(link.get_attr("IFLA_IFNAME") for link in handle.get_links())


def _index(handle: IPRoute, name: str) -> int:
    found = handle.link_lookup(ifname=name)
    if not found:
        raise PermanentError(f"the link {name} is gone")
    return int(found[0])


def _delete_link(handle: IPRoute, name: str) -> None:
    for index in handle.link_lookup(ifname=name):
        handle.link("del", index=index)


def _ensure_address(handle: IPRoute, name: str, address: str, prefix_length: int) -> None:
    index = _index(handle, name)
    present = {entry.get_attr("IFA_ADDRESS") for entry in handle.get_addr(index=index)}
    if address not in present:
        handle.addr("add", index=index, address=address, prefixlen=prefix_length)
