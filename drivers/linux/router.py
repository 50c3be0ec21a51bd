"""A VPC's router: a network namespace that forwards between its legs, and refuses the rest at once."""

from __future__ import annotations

import logging

from iaas.drivers.interface import METADATA_ADDRESS, SERVICE_ADDRESS
from iaas.drivers.linux.links import ensure_addresses
from iaas.drivers.linux.namespaces import create_namespace, netlink, remove_namespace, run_inside, write_sysctl
from iaas.drivers.linux.programs import ProgramError

SYSCTLS = {
    "ip_forward": "1",
    # A packet from a pod behind a guest comes in by a leg that no route of the router may name.
    "conf/all/rp_filter": "0",
    "conf/default/rp_filter": "0",
    # Else guests learn to send pods' packets straight to the next hop, past the router and its table.
    "conf/all/send_redirects": "0",
    "conf/default/send_redirects": "0",
    # And no guest has a say in how the router routes.
    "conf/all/accept_redirects": "0",
    "conf/all/accept_source_route": "0",
    # Else an answer from the metadata address asks for the guest's MAC in the name of that address.
    "conf/all/arp_announce": "2",
    # A guest that asks for many things that are not there is told so each time.
    "icmp_ratelimit": "0",
}

# The kernel by itself refuses what has no route as well, to each guest five times and then once a second.
REFUSAL = """
add table ip iaas_refusal
add chain ip iaas_refusal incoming { type filter hook prerouting priority raw; policy accept; }
flush chain ip iaas_refusal incoming
add rule ip iaas_refusal incoming fib daddr type unicast fib daddr oif missing reject with icmp type net-unreachable
"""

logger = logging.getLogger(__name__)


def ensure_router(router: str) -> None:
    """Make the router's namespace, forwarding, with the addresses of the metadata service and the tenant APIs."""
    create_namespace(router)
    for key, value in SYSCTLS.items():
        write_sysctl(router, f"net/ipv4/{key}", value)
    with netlink(router) as handle:
        ensure_addresses(handle, "lo", {(METADATA_ADDRESS, 32), (SERVICE_ADDRESS, 32)}, exact=False)
    try:
        run_inside(router, ["nft", "-f", "-"], input_text=REFUSAL)
    except ProgramError as exc:  # a kernel without these parts of nftables refuses in its own way
        logger.info("%s refuses as the kernel does: %s", router, exc)


def remove_router(router: str) -> None:
    """Remove a router that has no legs any more. Already absent is success."""
    remove_namespace(router)
