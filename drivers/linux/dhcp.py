"""DHCP and DNS of one network: a dnsmasq in the router's namespace, restarted when it is found dead.

Addresses are reserved beforehand, one per MAC; a stranger gets none. Files beside each other in the
network's folder: ``dnsmasq.conf``, ``leases`` (MAC, address, name), ``hosts`` (DNS), ``released``
(addresses whose MAC was taken out since dnsmasq started), ``dnsmasq.log``.
"""

from __future__ import annotations

import ipaddress
import logging
import signal
from collections.abc import Iterable
from pathlib import Path

from iaas.drivers.interface import NetworkSpec, PermanentError, PortSpec, TransientError
from iaas.drivers.linux.namespaces import namespace_path, run_inside
from iaas.drivers.linux.processes import Process, end_processes, find_processes, namespace_inode, signal_processes
from iaas.drivers.linux.programs import ProgramError
from iaas.drivers.linux.records import write_text_atomically
from iaas.drivers.linux.waiting import wait_until

LEASE_TIME = "1h"
STOP_GRACE_S = 5

logger = logging.getLogger(__name__)


class DHCPServer:
    """The dnsmasq of one network. Calls must not overlap: the network's lock is the caller's.

    Args:
        folder: where its files are; other users must be able to search it, dnsmasq is one of them.
        namespace: the router's network namespace.
        interface: the router's leg there, which has the gateway's address.
    """

    def __init__(self, folder: Path, *, namespace: str, interface: str) -> None:
        self._folder = folder
        self._namespace = namespace
        self._interface = interface
        self._config_path = folder / "dnsmasq.conf"
        self._leases_path = folder / "leases"
        self._hosts_path = folder / "hosts"
        self._released_path = folder / "released"

    def ensure(self, spec: NetworkSpec, ports: Iterable[PortSpec]) -> None:
        """Have it run with this configuration and these reservations; a dead or outdated one is started anew.

        Raises:
            PermanentError: dnsmasq refuses to start, or is not installed.
        """
        self._write_reservations(spec, ports)
        config = self._config(spec)
        running = self._processes()
        if running and self._config_path.read_text() == config and self._is_at_home(running):
            signal_processes(running, signal.SIGHUP)
            return
        write_text_atomically(self._config_path, config)
        self._restart(running)

    def update(self, spec: NetworkSpec, ports: Iterable[PortSpec], *, needed: str = "", released: str = "") -> None:
        """Take over a change of the reservations.

        Args:
            spec: the network.
            ports: all reservations there are now.
            needed: the address that was just reserved.
            released: the address that was just given up.
        """
        self._write_reservations(spec, ports)
        released_before = self._released()
        running = self._processes()
        if not running or needed in released_before:
            # Its memory still holds the address for the old MAC, for up to the lease time, and would
            # refuse the new one. It remembers nothing across a restart, which takes some 50 ms.
            self._restart(running)
            return
        if released:
            write_text_atomically(self._released_path, "\n".join(sorted(released_before | {released})) + "\n")
        signal_processes(running, signal.SIGHUP)

    def stop(self) -> None:
        """End it. Not running is success."""
        end_processes(self._processes(), grace_s=STOP_GRACE_S)

    def _processes(self) -> list[Process]:
        ours = f"--conf-file={self._config_path}"
        return find_processes(lambda each: each.program == "dnsmasq" and ours in each.argv)

    def _is_at_home(self, running: list[Process]) -> bool:
        """Return whether it lives in the router as it is now, and not in an earlier one of the same name."""
        home = namespace_path(self._namespace).stat().st_ino
        return all(namespace_inode(process.pid, "net") == home for process in running)

    def _restart(self, running: list[Process]) -> None:
        end_processes(running, grace_s=STOP_GRACE_S)
        self._released_path.unlink(missing_ok=True)
        try:
            # It becomes a daemon once it listens, so success means that it serves.
            run_inside(self._namespace, ["dnsmasq", f"--conf-file={self._config_path}"])
        except ProgramError as exc:
            raise PermanentError("the network's DHCP server does not start; the server's log says why") from exc
        if not wait_until(lambda: bool(self._processes()), timeout_s=5):
            raise TransientError("the network's DHCP server ended at once")
        logger.info("DHCP server of %s started", self._namespace)

    def _released(self) -> frozenset[str]:
        try:
            return frozenset(self._released_path.read_text().split())
        except FileNotFoundError:
            return frozenset()

    def _config(self, spec: NetworkSpec) -> str:
        network = ipaddress.ip_network(spec.cidr)
        lines = [
            f"interface={self._interface}",
            "except-interface=lo",
            "bind-dynamic",
            "no-hosts",
            "no-resolv",
            "no-poll",
            "no-ping",
            "quiet-dhcp",
            f"pid-file={self._folder / 'dnsmasq.pid'}",
            f"log-facility={self._folder / 'dnsmasq.log'}",
            "leasefile-ro",  # the reservations are the truth; nothing is remembered besides them
            "dhcp-authoritative",
            f"dhcp-range={network.network_address},static,{network.netmask},{LEASE_TIME}",
            f"dhcp-hostsfile={self._leases_path}",
            f"dhcp-option=option:router,{spec.gateway}",
            f"dhcp-option=option:dns-server,{spec.gateway}",
            f"dhcp-option=option:mtu,{spec.mtu}",
            f"domain={spec.dns_domain}",
            f"local=/{spec.dns_domain}/",
            f"addn-hosts={self._hosts_path}",
        ]
        return "\n".join(lines) + "\n"

    def _write_reservations(self, spec: NetworkSpec, ports: Iterable[PortSpec]) -> None:
        known = list(ports)
        leases = [f"{port.mac},{port.address},{port.hostname}\n" for port in known]
        hosts = [f"{port.address} {port.hostname}.{spec.dns_domain} {port.hostname}\n" for port in known]
        write_text_atomically(self._leases_path, "".join(leases))
        write_text_atomically(self._hosts_path, "".join(hosts))
