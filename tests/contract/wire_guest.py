"""A guest without a machine: a network namespace plugged into a bridge, with busybox's DHCP client."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from iaas.drivers.interface import PortSpec
from iaas.drivers.linux import names
from iaas.drivers.linux.namespaces import create_namespace, entered, netlink, remove_namespace, run_inside
from iaas.kernel.ids import suffix
from tests.real_host import RealHost

# What udhcpc calls with the offer in its environment. Source: busybox, examples/udhcp/simple.script.
LEASE_SCRIPT = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip address add "$ip/$mask" dev "$interface"
ip route add default via "$router"
env > "{lease}"
"""


@dataclass(frozen=True)
class WireGuest:
    """The guest end of one port."""

    namespace: str
    folder: Path

    def lease(self) -> dict[str, str]:
        """Ask for an address by DHCP, take it, and return what the server said.

        Raises:
            ProgramError: nobody offered one.
        """
        lease, script = self.folder / "lease", self.folder / "lease-script"
        lease.unlink(missing_ok=True)
        script.write_text(LEASE_SCRIPT.format(lease=lease))
        script.chmod(0o755)
        client = ["busybox", "udhcpc", "-i", "eth0", "-f", "-q", "-n", "-t", "5", "-T", "1", "-s", str(script)]
        options = [part for option in ("mtu", "domain", "dns") for part in ("-O", option)]
        run_inside(self.namespace, [*client, *options])
        return dict(line.split("=", 1) for line in lease.read_text().splitlines() if "=" in line)

    def resolve(self, name: str, server: str) -> str:
        """Return what the DNS server says about a name, as busybox prints it."""
        return run_inside(self.namespace, ["busybox", "nslookup", name, server])

    def listen(self, address: str, port: int) -> socket.socket:
        with entered(self.namespace):
            return socket.create_server((address, port))

    def connect(self, address: str, port: int) -> socket.socket:
        with entered(self.namespace):
            return socket.create_connection((address, port), timeout=5)


@contextmanager
def plugged(host: RealHost, port: PortSpec, folder: Path) -> Iterator[WireGuest]:
    """Run the block with a guest on the port's network, wearing the port's MAC; gone afterwards."""
    fabric = host.fabric.namespace
    # The deployment's prefix, so that the clean-up of a killed test run finds it.
    namespace = f"{fabric}-g{suffix(port.nic_id)[:7]}"
    outer = names.container_veth(host.tag, port.nic_id)
    create_namespace(namespace)
    try:
        with netlink(fabric) as handle:
            inner = {"ifname": "eth0", "net_ns_fd": namespace, "address": port.mac}
            handle.link("add", ifname=outer, kind="veth", peer=inner)
            bridge = handle.link_lookup(ifname=names.bridge(host.tag, port.network_id))[0]
            index = handle.link_lookup(ifname=outer)[0]
            handle.link("set", index=index, master=bridge)
            handle.link("set", index=index, state="up")
        with netlink(namespace) as handle:
            handle.link("set", index=handle.link_lookup(ifname="eth0")[0], state="up")
        yield WireGuest(namespace, folder)
    finally:
        with netlink(fabric) as handle:
            for index in handle.link_lookup(ifname=outer):
                handle.link("del", index=index)
        remove_namespace(namespace)
