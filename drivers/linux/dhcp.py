"""DHCP and DNS of one VPC: a dnsmasq in the router's namespace, restarted when it is found dead.

Addresses are reserved beforehand, one per MAC; a stranger gets none. Files beside each other in the VPC's folder:
``dnsmasq.conf``, ``leases`` (MAC, address, name), ``hosts`` (DNS), ``released`` (addresses whose MAC was taken out
since dnsmasq started), ``dnsmasq.log``, ``dnsmasq.pid``.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path

from iaas.drivers.interface import PermanentError, PortSpec, SubnetSpec, TransientError, VPCSpec
from iaas.drivers.linux import dnsmasq_config
from iaas.drivers.linux.namespaces import namespace_path, run_inside
from iaas.drivers.linux.processes import (
    Process,
    end_processes,
    find_processes,
    namespace_inode,
    read_process,
    signal_processes,
)
from iaas.drivers.linux.programs import ProgramError
from iaas.drivers.linux.records import write_text_atomically
from iaas.drivers.linux.waiting import wait_until

STOP_GRACE_S = 5

logger = logging.getLogger(__name__)


class DHCPServer:
    """The dnsmasq of one VPC. Calls must not overlap: the VPC's lock is the caller's.

    Args:
        folder: where its files are; other users must be able to search it, dnsmasq is one of them.
        namespace: the router's network namespace.
    """

    def __init__(self, folder: Path, *, namespace: str) -> None:
        self._folder = folder
        self._namespace = namespace
        self._config_path = folder / "dnsmasq.conf"
        self._leases_path = folder / "leases"
        self._hosts_path = folder / "hosts"
        self._released_path = folder / "released"
        self._pid_path = folder / "dnsmasq.pid"

    @property
    def is_running(self) -> bool:
        """Whether it lives, as its own pid file has it."""
        return self._by_pid_file() is not None

    def ensure(self, vpc: VPCSpec, subnets: Sequence[SubnetSpec], ports: Iterable[PortSpec]) -> None:
        """Have it run with this configuration and these reservations; a dead or outdated one is started anew.

        Without subnets there is nobody to serve, and it does not run.

        Raises:
            PermanentError: dnsmasq refuses to start, or is not installed.
        """
        if not subnets:
            self.stop()
            return
        is_reused = self._write_reservations(vpc, list(ports))
        config = dnsmasq_config.config(self._folder, vpc, subnets)
        is_outdated = self._read(self._config_path) != config
        if is_outdated:
            write_text_atomically(self._config_path, config)
        running = self._processes()
        # Its memory holds an address for the old MAC for up to the lease time, and would refuse the new
        # one. It remembers nothing across a restart, which takes some 50 ms.
        if is_outdated or is_reused or not running or not self._is_at_home(running):
            self._restart(running)
        else:
            signal_processes(running, signal.SIGHUP)

    def stop(self) -> None:
        """End it. Not running is success."""
        end_processes(self._scan(), grace_s=STOP_GRACE_S)
        for path in (self._pid_path, self._config_path, self._leases_path):
            path.unlink(missing_ok=True)

    def _processes(self) -> list[Process]:
        process = self._by_pid_file()
        return [process] if process is not None else self._scan()

    def _by_pid_file(self) -> Process | None:
        # A hint only: the number may be another process's by now. Looking at all there are takes longer.
        hint = self._read(self._pid_path).strip()
        process = read_process(int(hint)) if hint.isdigit() else None
        return process if process is not None and self._is_ours(process) else None

    def _scan(self) -> list[Process]:
        return find_processes(self._is_ours)

    def _is_ours(self, process: Process) -> bool:
        return process.program == "dnsmasq" and f"--conf-file={self._config_path}" in process.argv

    def _is_at_home(self, running: list[Process]) -> bool:
        """Return whether it lives in the router as it is now, and not in an earlier one of the same name."""
        home = namespace_path(self._namespace).stat().st_ino
        return all(namespace_inode(process.pid, "net") == home for process in running)

    def _restart(self, running: list[Process]) -> None:
        end_processes(running, grace_s=STOP_GRACE_S)
        self._released_path.unlink(missing_ok=True)
        self._pid_path.unlink(missing_ok=True)
        try:
            # It becomes a daemon once it listens, so success means that it serves.
            run_inside(self._namespace, ["dnsmasq", f"--conf-file={self._config_path}"])
        except ProgramError as exc:
            logger.error("DHCP server of %s: %s", self._namespace, exc)
            raise PermanentError("the VPC's DHCP server does not start; the server's log says why") from exc
        if not wait_until(lambda: self.is_running, timeout_s=5):
            raise TransientError("the VPC's DHCP server ended at once")
        logger.info("DHCP server of %s started", self._namespace)

    def _write_reservations(self, vpc: VPCSpec, ports: list[PortSpec]) -> bool:
        """Write the files it reads again when told to; return whether an address goes to another MAC."""
        leases = dnsmasq_config.leases(ports)
        after, before = _by_address(leases), _by_address(self._read(self._leases_path))
        released = set(self._read(self._released_path).split())
        given_up = {address for address, mac in before.items() if after.get(address) != mac}
        given_out = {address for address, mac in after.items() if before.get(address) != mac}
        if not given_up <= released:
            released |= given_up
            write_text_atomically(self._released_path, "\n".join(sorted(released)) + "\n")
        write_text_atomically(self._leases_path, leases)
        write_text_atomically(self._hosts_path, dnsmasq_config.hosts(vpc.dns_domain, ports))
        return bool(given_out & released)

    def _read(self, path: Path) -> str:
        try:
            return path.read_text()
        except FileNotFoundError:
            return ""


def _by_address(leases: str) -> dict[str, str]:
    rows = (line.split(",") for line in leases.splitlines())
    return {row[1]: row[0] for row in rows}
