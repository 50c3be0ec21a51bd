"""Links of networks: bridges in the fabric, and the legs between them and the routers' namespaces."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection
from typing import TYPE_CHECKING

from iaas.drivers.interface import PermanentError, TransientError
from iaas.drivers.linux.namespaces import netlink
from iaas.drivers.linux.waiting import wait_until

if TYPE_CHECKING:
    from pyroute2 import IPRoute

FORWARDING = 3  # Source: linux/if_bridge.h, BR_STATE_FORWARDING
UP_TIMEOUT_S = 5.0


def ensure_bridge(fabric_namespace: str, bridge: str, *, mtu: int, ports: Collection[str] = ()) -> None:
    """Make the bridge, up, without an address: whatever is routed is routed in the router's namespace.

    Args:
        fabric_namespace: where it is made.
        bridge: its name.
        mtu: bytes; of the links of ``ports`` as well, as far as they are there.
        ports: names of machines' links; a bridge that is made takes those that are there.
    """
    with netlink(fabric_namespace) as handle:
        found = handle.link_lookup(ifname=bridge)
        if not found:
            # No spanning tree and no delay: there is no loop, and a guest's first DHCP request must pass.
            # No multicast snooping: without a querier it stops forwarding what it has not learned.
            handle.link("add", ifname=bridge, kind="bridge", br_stp_state=0, br_forward_delay=0, br_mcast_snooping=0)
        index = _index(handle, bridge)
        has_mtu = bool(found) and handle.get_links(index)[0].get_attr("IFLA_MTU") == mtu
        handle.link("set", index=index, mtu=mtu, state="up")
        if not has_mtu:
            # A bridge that was lost has let go of the links of machines that run.
            place = {} if found else {"master": index}
            for name in ports:
                for port in handle.link_lookup(ifname=name):
                    handle.link("set", index=port, mtu=mtu, **place)


def ensure_leg(
    fabric_namespace: str, *, bridge: str, outer: str, router: str, inner: str, gateway: str, cidr: str, mtu: int
) -> None:
    """Make the veth pair between a bridge and a router, with the gateway's address and no other at the router's end.

    Args:
        fabric_namespace: where the bridge is.
        bridge: its name.
        outer: name of the end at the bridge.
        router: the router's namespace.
        inner: name of the end there.
        gateway: its address.
        cidr: the subnet's block.
        mtu: bytes.
    """
    with netlink(fabric_namespace) as handle:
        has_outer_end = bool(handle.link_lookup(ifname=outer))
    with netlink(router) as handle:
        if not has_outer_end:  # the fabric was made anew: what is left is the end of an older leg
            _delete_link(handle, inner)
        has_inner_end = bool(handle.link_lookup(ifname=inner))
    with netlink(fabric_namespace) as handle:
        if not has_inner_end:
            _delete_link(handle, outer)
            # The same MAC each time: guests go on sending to the one they know.
            peer = {"ifname": inner, "net_ns_fd": router, "address": gateway_mac(inner)}
            handle.link("add", ifname=outer, kind="veth", peer=peer)
        index = _index(handle, outer)
        handle.link("set", index=index, mtu=mtu, master=_index(handle, bridge), state="up")
    with netlink(router) as handle:
        handle.link("set", index=_index(handle, inner), mtu=mtu, state="up")
        ensure_addresses(handle, inner, {(gateway, ipaddress.IPv4Network(cidr).prefixlen)}, exact=True)
        wait_until_up(handle, inner)
    with netlink(fabric_namespace) as handle:
        wait_until_up(handle, outer)


def wait_until_up(handle: IPRoute, name: str) -> None:
    """Return when the link carries frames: in a bridge, and without, they are lost for a moment after it was set up.

    Raises:
        TransientError: it is not up after a while; its other end may be down.
    """

    def is_up() -> bool:
        link = handle.get_links(_index(handle, name))[0]
        details = link.get_attr("IFLA_LINKINFO")
        place = details.get_attr("IFLA_INFO_SLAVE_DATA") if details is not None else None
        is_forwarding = place is None or place.get_attr("IFLA_BRPORT_STATE") == FORWARDING
        return bool(link.get_attr("IFLA_OPERSTATE") == "UP") and is_forwarding

    if not wait_until(is_up, timeout_s=UP_TIMEOUT_S, interval_s=0.002):
        raise TransientError(f"the link {name} does not come up")


def gateway_mac(inner: str) -> str:
    """Return the MAC of a router's end of a leg, by its name: locally administered, in no range that guests use."""
    return "0a:" + hashlib.sha256(inner.encode()).digest()[:5].hex(":")


def ensure_addresses(handle: IPRoute, name: str, wanted: set[tuple[str, int]], *, exact: bool) -> None:
    """Give a link these (address, prefix length); with ``exact`` take all others away."""
    index = _index(handle, name)
    present = {(entry.get_attr("IFA_ADDRESS"), entry["prefixlen"]) for entry in handle.get_addr(index=index)}
    for address, prefix_length in wanted - present:
        handle.addr("add", index=index, address=address, prefixlen=prefix_length)
    for address, prefix_length in present - wanted if exact else ():
        handle.addr("del", index=index, address=address, prefixlen=prefix_length)


def remove_link(namespace: str, name: str) -> None:
    """Remove a link, both ends if it is a pair. Already absent is success."""
    with netlink(namespace) as handle:
        _delete_link(handle, name)


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
