"""Guests without a machine: network namespaces plugged into the bridges of the real backend.

How to use one::

    with plug(host, port, subnet=subnet) as guest:      # eth0 with the port's MAC and addresses, default route
        guest.plug(other_port)                          # eth1, without addresses
        guest.lease()                                   # or: ask by DHCP (needs a guest without addresses)
        listener = guest.listen("10.0.1.10", 80)
        connection = guest.connect("10.0.2.10", 80)     # OSError at once where the network refuses
        guest.send_frame(frame)                         # raw, for what no honest guest sends

``plug`` takes some 20 ms. The port itself is the driver's matter (``ensure_port``): a guest can be plugged before
or without it. Closing a guest (``close`` or the end of the ``with`` block) removes its namespaces and links.
"""

from __future__ import annotations

import contextlib
import ipaddress
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from iaas.drivers.interface import PortSpec, SubnetSpec
from iaas.drivers.linux import names
from iaas.drivers.linux.links import wait_until_up
from iaas.drivers.linux.namespaces import create_namespace, entered, netlink, remove_namespace, run_inside, write_sysctl
from iaas.drivers.linux.programs import environment
from iaas.drivers.linux.waiting import wait_until
from iaas.kernel.ids import suffix
from tests.real_host import RealHost

CONNECT_TIMEOUT_S = 5.0
PROGRAM_TIMEOUT_S = 10.0
# Source: linux/in.h, ip(7)
IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_MTU = 10, 2, 14
IP_AND_UDP_BYTES = 28
MTU_TRIES = 5
INNER_BRIDGE = "br0"
ANY_PROTOCOL = 3  # ETH_P_ALL. Source: linux/if_ether.h

# What udhcpc calls with the offer in its environment. Source: busybox, examples/udhcp/simple.script.
LEASE_SCRIPT = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip address replace "$ip/$mask" dev "$interface"
[ -z "$router" ] || ip route replace default via "$router"
env > "{lease}"
"""


class WireGuest:
    """A guest of one or several ports; its interfaces are eth0, eth1, ... in the order of plugging.

    Args:
        host: the deployment.
        name: at most eight characters, unique in the deployment: part of the namespaces' names.
    """

    def __init__(self, host: RealHost, name: str) -> None:
        self.host = host
        self.name = name
        # The deployment's prefix, so that the clean-up of a killed test run finds it.
        self.namespace = f"{host.fabric.namespace}-g-{name}"
        self.ports: list[PortSpec] = []
        self.pods: list[str] = []
        self._folder: Path | None = None
        create_namespace(self.namespace)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the guest. A second time is success."""
        for port in list(self.ports):
            self.unplug(port)
        for namespace in [*self.pods, self.namespace]:
            remove_namespace(namespace)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def plug(
        self, port: PortSpec, *, subnet: SubnetSpec | None = None, gateway: bool = False, as_vm: bool = False
    ) -> str:
        """Plug one more NIC and return its name in the guest.

        Args:
            port: which one.
            subnet: give the NIC the port's addresses, with this subnet's prefix length; none without it.
            gateway: and lead the default route to the subnet's gateway.
            as_vm: name the link on the host as a VM's would be, not as a container's.
        """
        fabric, interface = self.host.fabric.namespace, f"eth{len(self.ports)}"
        outer = names.port_links(self.host.tag, port.nic_id)[0 if as_vm else 1]
        with netlink(fabric) as handle:
            inner = {"ifname": interface, "net_ns_fd": self.namespace, "address": port.mac}
            handle.link("add", ifname=outer, kind="veth", peer=inner)
            self.ports.append(port)
            bridge = handle.link_lookup(ifname=names.bridge(self.host.tag, port.subnet_id))[0]
            index = handle.link_lookup(ifname=outer)[0]
            mtu = handle.get_links(bridge)[0].get_attr("IFLA_MTU")
            handle.link("set", index=index, master=bridge, mtu=mtu, state="up")
        with netlink(self.namespace) as handle:
            index = handle.link_lookup(ifname=interface)[0]
            handle.link("set", index=index, mtu=mtu, state="up")
            wait_until_up(handle, interface)
            if subnet is not None and subnet.cidr is not None:
                prefix_length = ipaddress.IPv4Network(subnet.cidr).prefixlen
                for address in port.addresses:
                    handle.addr("add", index=index, address=address, prefixlen=prefix_length)
                if gateway and subnet.gateway is not None:
                    handle.route("replace", dst="default", gateway=subnet.gateway)
        with netlink(fabric) as handle:
            wait_until_up(handle, outer)
        return interface

    def unplug(self, port: PortSpec) -> None:
        """Take a NIC away, as its machine would."""
        self.ports.remove(port)
        with netlink(self.host.fabric.namespace) as handle:
            for name in names.port_links(self.host.tag, port.nic_id):
                for index in handle.link_lookup(ifname=name):
                    handle.link("del", index=index)

    def add_address(self, address: str, prefix_length: int, *, interface: str = "eth0") -> None:
        """Give an interface one more address, rightly or wrongly."""
        with netlink(self.namespace) as handle:
            index = handle.link_lookup(ifname=interface)[0]
            handle.addr("add", index=index, address=address, prefixlen=prefix_length)

    def add_route(self, destination: str, gateway: str) -> None:
        """Route ``destination`` ("default" or a CIDR) by ``gateway``."""
        with netlink(self.namespace) as handle:
            handle.route("replace", dst=destination, gateway=gateway)

    def forward(self) -> None:
        """Become a router between the NICs and whatever else is in the guest."""
        write_sysctl(self.namespace, "net/ipv4/ip_forward", "1")

    def lease(self, *, interface: str = "eth0", tries: int = 5) -> dict[str, str]:
        """Ask for an address by DHCP, take it, and return what the server said.

        Raises:
            ProgramError: nobody offered one.
        """
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="wire-guest-"))
        lease, script = self._folder / "lease", self._folder / "lease-script"
        lease.unlink(missing_ok=True)
        script.write_text(LEASE_SCRIPT.format(lease=lease))
        script.chmod(0o755)
        client = ["busybox", "udhcpc", "-i", interface, "-f", "-q", "-n", "-t", str(tries), "-T", "1"]
        options = [part for option in ("mtu", "domain", "dns", "ntpsrv", "lease") for part in ("-O", option)]
        run_inside(self.namespace, [*client, *options, "-s", str(script)])
        return dict(line.split("=", 1) for line in lease.read_text().splitlines() if "=" in line)

    def resolve(self, name: str, server: str, *, kind: str = "a") -> str:
        """Return what the DNS server says about a name, as busybox prints it.

        Raises:
            ProgramError: nothing, or that there is nothing.
        """
        return run_inside(self.namespace, ["busybox", "nslookup", f"-type={kind}", name, server])

    def listen(self, address: str, port: int) -> socket.socket:
        with entered(self.namespace):
            return socket.create_server((address, port))

    def connect(
        self, address: str, port: int, *, source: str | None = None, timeout_s: float = CONNECT_TIMEOUT_S
    ) -> socket.socket:
        """Return a TCP connection; raises OSError (TimeoutError among them) when there is none."""
        with entered(self.namespace):
            return socket.create_connection(
                (address, port), timeout=timeout_s, source_address=None if source is None else (source, 0)
            )

    def can_connect(self, address: str, port: int, *, source: str | None = None, timeout_s: float = 1.0) -> bool:
        """Return whether a TCP connection comes about."""
        try:
            self.connect(address, port, source=source, timeout_s=timeout_s).close()
        except OSError:
            return False
        return True

    def largest_datagram(self, address: str, *, to: WireGuest) -> int:
        """Return the size in bytes of the largest IP packet that reaches another guest whole."""
        with entered(to.namespace):
            receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with entered(self.namespace):
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with receiver, sender:
            receiver.bind((address, 0))
            receiver.settimeout(1)
            sender.connect(receiver.getsockname())
            # Never cut a packet in parts; learn how large it may be from who refuses it on the way.
            sender.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
            for _ in range(MTU_TRIES):
                size = sender.getsockopt(socket.IPPROTO_IP, IP_MTU)
                # Too large for the first link, or an earlier one was for a later link: both are said by sending.
                with contextlib.suppress(OSError):
                    sender.send(bytes(size - IP_AND_UDP_BYTES))
                    return len(receiver.recv(size)) + IP_AND_UDP_BYTES
        raise AssertionError(f"no datagram reaches {address}")

    def has_listener(self, port: int) -> bool:
        """Return whether a TCP socket listens at the port."""
        return f":{port} " in run_inside(self.namespace, ["ss", "-Hltn"])

    @contextmanager
    def running(self, argv: Sequence[str], *, is_ready: Callable[[], bool]) -> Iterator[None]:
        """Run the block while a program runs in the guest; it ends with the block."""
        with entered(self.namespace):
            process = subprocess.Popen(
                argv, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        try:
            assert wait_until(is_ready, timeout_s=PROGRAM_TIMEOUT_S), f"{argv[0]} is not ready"
            yield
        finally:
            process.terminate()
            process.wait(PROGRAM_TIMEOUT_S)

    def raw_socket(self, interface: str = "eth0") -> socket.socket:
        """Return a socket of whole frames on one interface; the caller closes it."""
        with entered(self.namespace):
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ANY_PROTOCOL))
        made.bind((interface, 0))
        return made

    def send_frame(self, frame: bytes, *, interface: str = "eth0") -> None:
        """Send one frame as it is."""
        with self.raw_socket(interface) as sender:
            sender.send(frame)

    def bridge_nic(self, interface: str = "eth0") -> None:
        """Put the NIC into a bridge inside the guest, to which ``add_pod`` adds pods."""
        with netlink(self.namespace) as handle:
            handle.link("add", ifname=INNER_BRIDGE, kind="bridge", br_stp_state=0, br_forward_delay=0)
            bridge = handle.link_lookup(ifname=INNER_BRIDGE)[0]
            handle.link("set", index=bridge, state="up")
            handle.link("set", index=handle.link_lookup(ifname=interface)[0], master=bridge)

    def add_pod(self, mac: str, address: str, *, subnet: SubnetSpec) -> str:
        """Make a namespace behind the guest's bridge, with a MAC and an address of its own; return its name."""
        assert subnet.cidr is not None
        pod, outer = f"{self.namespace}-{len(self.pods)}", f"pod{len(self.pods)}"
        create_namespace(pod)
        self.pods.append(pod)
        with netlink(self.namespace) as handle:
            handle.link("add", ifname=outer, kind="veth", peer={"ifname": "eth0", "net_ns_fd": pod, "address": mac})
            index = handle.link_lookup(ifname=outer)[0]
            handle.link("set", index=index, master=handle.link_lookup(ifname=INNER_BRIDGE)[0], state="up")
        with netlink(pod) as handle:
            index = handle.link_lookup(ifname="eth0")[0]
            handle.link("set", index=index, state="up")
            prefix_length = ipaddress.IPv4Network(subnet.cidr).prefixlen
            handle.addr("add", index=index, address=address, prefixlen=prefix_length)
            handle.route("add", dst="default", gateway=subnet.gateway)
        return pod


def plug(host: RealHost, port: PortSpec, *, subnet: SubnetSpec | None = None, as_vm: bool = False) -> WireGuest:
    """Return a guest with one NIC, wearing the port's MAC; the caller closes it.

    With ``subnet`` the NIC has the port's addresses, and the default route leads to the subnet's gateway.
    """
    guest = WireGuest(host, suffix(port.nic_id))
    try:
        guest.plug(port, subnet=subnet, gateway=True, as_vm=as_vm)
    except BaseException:  # even on Ctrl-C nothing may stay
        guest.close()
        raise
    return guest
