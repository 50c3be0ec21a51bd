"""Networks for real: a bridge in the fabric, a router namespace with gateway, DHCP, DNS and metadata address."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import shutil
import socket
import threading
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from iaas.drivers.interface import (
    BackendDownError,
    NetworkCapability,
    NetworkSpec,
    NetworkState,
    NotFoundError,
    PermanentError,
    PortSpec,
    PortState,
    TransientError,
)
from iaas.drivers.interface.paging import chosen
from iaas.drivers.linux import names
from iaas.drivers.linux.dhcp import DHCPServer
from iaas.drivers.linux.fabric import Fabric
from iaas.drivers.linux.links import (
    METADATA_ADDRESS,
    ROUTER_LEG,
    ensure_bridge,
    ensure_router,
    remove_bridge,
    remove_router,
)
from iaas.drivers.linux.namespaces import entered
from iaas.drivers.linux.records import ensure_folder, read_record, write_record
from iaas.kernel.ids import ID_PATTERN

LISTEN_BACKLOG = 128
MAC_PATTERN = re.compile(r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")
LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
HOSTNAME_PATTERN = re.compile(rf"^{LABEL}$")
DOMAIN_PATTERN = re.compile(rf"^{LABEL}(\.{LABEL})*$")


class LinuxNetworkDriver:
    """Networks of one deployment on this host.

    What was asked for is written under ``state_dir/networks/<network id>/`` before it is made, so a restart
    knows it and a half-made network can be removed. Calls for different networks run side by side.

    Args:
        fabric: where the bridges are; it must be up before networks can be made.
        tag: the deployment's tag.
        state_dir: the deployment's folder.
    """

    capabilities = frozenset({NetworkCapability.DIAL, NetworkCapability.METADATA})

    def __init__(self, fabric: Fabric, tag: str, state_dir: Path) -> None:
        self._fabric = fabric
        self._tag = names.check_tag(tag)
        self._folder = state_dir / "networks"
        self._locks: dict[str, threading.Lock] = {}
        self._locks_lock = threading.Lock()

    def check_available(self) -> None:
        if not self._fabric.is_up:
            raise BackendDownError("the network namespace of this deployment is not up")

    def ensure_network(self, spec: NetworkSpec) -> NetworkState:
        _check_network(spec)
        self.check_available()
        with self._locked(spec.network_id), ExitStack() as undo:
            present = self._read_spec(spec.network_id)
            if present is None:
                undo.callback(self._remove, spec.network_id)
            elif (present.cidr, present.gateway) != (spec.cidr, spec.gateway):
                raise PermanentError(f"network {spec.network_id} is there with the addresses {present.cidr}")
            folder = self._network_folder(spec.network_id)
            ensure_folder(folder, mode=0o755)  # dnsmasq reads in it as an unprivileged user
            write_record(folder / "network.json", asdict(spec))
            bridge, router, leg = self._names(spec.network_id)
            ensure_bridge(self._fabric.namespace, bridge, mtu=spec.mtu)
            ensure_router(self._fabric.namespace, bridge, router=router, leg=leg, spec=spec)
            self._dhcp(spec.network_id).ensure(spec, self._read_ports(spec.network_id).values())
            undo.pop_all()
        return NetworkState(network_id=spec.network_id)

    def remove_network(self, network_id: str) -> None:
        with self._locked(network_id):
            self._remove(network_id)

    def ensure_port(self, spec: PortSpec) -> PortState:
        with self._locked(spec.network_id):
            network = self._require_network(spec.network_id)
            _check_port(spec, network)
            ports = self._read_ports(spec.network_id)
            _check_unclaimed(spec, ports)
            before = ports.get(spec.nic_id, spec)
            if (before.mac, before.address) != (spec.mac, spec.address):
                raise PermanentError(f"NIC {spec.nic_id} is there with another MAC or address")
            needed = "" if spec.nic_id in ports else spec.address
            ports[spec.nic_id] = spec
            # Recorded when it is done: a call that failed or was killed is made again, and applies it again.
            self._dhcp(spec.network_id).update(network, ports.values(), needed=needed)
            self._write_ports(spec.network_id, ports)
        return PortState(nic_id=spec.nic_id, network_id=spec.network_id)

    def remove_port(self, network_id: str, nic_id: str) -> None:
        with self._locked(network_id):
            network = self._read_spec(network_id)
            ports = self._read_ports(network_id)
            if network is None or nic_id not in ports:
                return
            gone = ports.pop(nic_id)
            self._dhcp(network_id).update(network, ports.values(), released=gone.address)
            self._write_ports(network_id, ports)

    def networks(self) -> list[NetworkState]:
        folders = sorted(self._folder.iterdir()) if self._folder.is_dir() else []
        return [NetworkState(network_id=each.name) for each in folders if (each / "network.json").exists()]

    def ports(
        self, network_id: str, *, only: Collection[str] | None = None, after: str = "", limit: int | None = None
    ) -> list[PortState]:
        wanted = chosen(self._read_ports(network_id), only=only, after=after, limit=limit)
        return [PortState(nic_id=nic_id, network_id=network_id) for nic_id in wanted]

    def dial(self, network_id: str, address: str, port: int, *, timeout_s: float) -> socket.socket:
        network = self._require_network(network_id)
        if ipaddress.ip_address(address) not in ipaddress.ip_network(network.cidr) or address == network.gateway:
            raise PermanentError(f"{address} is no guest address of network {network_id}")
        with ExitStack() as undo:
            connection = undo.enter_context(self._router_socket(network_id))
            connection.settimeout(timeout_s)
            try:
                connection.connect((address, port))
            except OSError as exc:  # refused, timed out, unreachable: the guest may come up yet
                raise TransientError(f"no connection to {address}:{port}: {exc}") from exc
            undo.pop_all()
            return connection

    def listen(self, network_id: str, address: str, port: int) -> socket.socket:
        self._require_network(network_id)
        with ExitStack() as undo:
            listener = undo.enter_context(self._router_socket(network_id))
            # Connections of a server that was killed may linger; they must not keep the next one out.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((address, port))
            except OSError as exc:
                raise PermanentError(f"cannot listen at {address}:{port} in network {network_id}: {exc}") from exc
            listener.listen(LISTEN_BACKLOG)
            undo.pop_all()
            return listener

    def close(self) -> None:
        """Nothing is held: handles are opened for each call."""

    @contextmanager
    def _locked(self, network_id: str) -> Iterator[None]:
        if not ID_PATTERN.match(network_id):
            raise PermanentError(f"{network_id!r} is no network id")
        with self._locks_lock:
            lock = self._locks.setdefault(network_id, threading.Lock())
        with lock:
            yield

    def _router_socket(self, network_id: str) -> socket.socket:
        """Return a TCP socket that belongs to the router's namespace for good. Never one of ours: see ADR 0004."""
        try:
            with entered(names.router_namespace(self._tag, network_id)):
                return socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        except NotFoundError as exc:
            raise TransientError(f"the router of network {network_id} is not up") from exc

    def _names(self, network_id: str) -> tuple[str, str, str]:
        return (
            names.bridge(self._tag, network_id),
            names.router_namespace(self._tag, network_id),
            names.router_veth(self._tag, network_id),
        )

    def _network_folder(self, network_id: str) -> Path:
        return self._folder / network_id

    def _dhcp(self, network_id: str) -> DHCPServer:
        namespace = names.router_namespace(self._tag, network_id)
        return DHCPServer(self._network_folder(network_id), namespace=namespace, interface=ROUTER_LEG)

    def _read_spec(self, network_id: str) -> NetworkSpec | None:
        record = read_record(self._network_folder(network_id) / "network.json")
        return None if record is None else NetworkSpec(**record)

    def _require_network(self, network_id: str) -> NetworkSpec:
        spec = self._read_spec(network_id) if ID_PATTERN.match(network_id) else None
        if spec is None:
            raise NotFoundError(f"network {network_id} is not on this host")
        return spec

    def _read_ports(self, network_id: str) -> dict[str, PortSpec]:
        record = read_record(self._network_folder(network_id) / "ports.json") or {}
        return {nic_id: PortSpec(**port) for nic_id, port in record.items()}

    def _write_ports(self, network_id: str, ports: dict[str, PortSpec]) -> None:
        record = {nic_id: asdict(port) for nic_id, port in ports.items()}
        write_record(self._network_folder(network_id) / "ports.json", record)

    def _remove(self, network_id: str) -> None:
        bridge, router, leg = self._names(network_id)
        folder = self._network_folder(network_id)
        self._dhcp(network_id).stop()
        with contextlib.suppress(NotFoundError):  # the fabric is gone, and all links with it
            remove_router(self._fabric.namespace, router=router, leg=leg)
            remove_bridge(self._fabric.namespace, bridge)
        if folder.exists():
            shutil.rmtree(folder)


def _check_network(spec: NetworkSpec) -> None:
    """Refuse what would not fit the configuration files: they have no quoting."""
    try:
        network = ipaddress.IPv4Network(spec.cidr)
        gateway = ipaddress.IPv4Address(spec.gateway)
    except ValueError as exc:
        raise PermanentError(f"network {spec.network_id}: {exc}") from exc
    if gateway not in network or network.overlaps(ipaddress.IPv4Network(f"{METADATA_ADDRESS}/32")):
        raise PermanentError(f"network {spec.network_id}: the gateway {gateway} does not fit {network}")
    if not DOMAIN_PATTERN.match(spec.dns_domain):
        raise PermanentError(f"network {spec.network_id}: {spec.dns_domain!r} is no domain name")


def _check_port(spec: PortSpec, network: NetworkSpec) -> None:
    try:
        address = ipaddress.IPv4Address(spec.address)
    except ValueError as exc:
        raise PermanentError(f"NIC {spec.nic_id}: {exc}") from exc
    if address not in ipaddress.IPv4Network(network.cidr) or spec.address == network.gateway:
        raise PermanentError(f"NIC {spec.nic_id}: {address} is no guest address of {network.cidr}")
    if not MAC_PATTERN.match(spec.mac):
        raise PermanentError(f"NIC {spec.nic_id}: {spec.mac!r} is no MAC address in lower case")
    if not HOSTNAME_PATTERN.match(spec.hostname):
        raise PermanentError(f"NIC {spec.nic_id}: {spec.hostname!r} is no host name")


def _check_unclaimed(spec: PortSpec, ports: dict[str, PortSpec]) -> None:
    for other in ports.values():
        if other.nic_id != spec.nic_id and (other.address == spec.address or other.mac == spec.mac):
            raise PermanentError(f"NIC {spec.nic_id}: address or MAC is reserved for {other.nic_id}")
