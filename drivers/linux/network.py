"""Networks for real: VPCs' routers, subnets' bridges, and the ports where machines meet them.

A VPC is a router namespace with one dnsmasq and one table of routes; a subnet is a bridge in the fabric, with a leg
to the router while it is in a VPC; a port is a reservation for DHCP, names for DNS, and what the packet filter lets
its link send.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from iaas.drivers.interface import (
    BackendDownError,
    DriverError,
    NetworkCapability,
    NotFoundError,
    PermanentError,
    PortSpec,
    PortState,
    PortStatistics,
    ProbeReport,
    ProbeSpec,
    SubnetSpec,
    SubnetState,
    VPCSpec,
    VPCState,
)
from iaas.drivers.interface.networks import LinkLostListener
from iaas.drivers.interface.paging import chosen
from iaas.drivers.linux import names, router_sockets
from iaas.drivers.linux.data_plane import DataPlane
from iaas.drivers.linux.fabric import Fabric
from iaas.drivers.linux.link_statistics import read_statistics
from iaas.drivers.linux.link_watch import LinkWatch
from iaas.drivers.linux.namespaces import namespace_exists
from iaas.drivers.linux.network_records import NetworkRecords
from iaas.drivers.linux.probe import follow
from iaas.drivers.linux.repeating import Repeating
from iaas.drivers.linux.spec_checks import check_id, check_port, check_subnet, check_vpc
from iaas.kernel.ids import NIC

SUPERVISE_INTERVAL_S = 2.0

logger = logging.getLogger(__name__)


class LinuxNetworkDriver:
    """Networks of one deployment on this host.

    What was asked for is written under ``state_dir/networks`` before it is made, so a restart knows it and what is
    half-made can be removed. Calls for different VPCs run side by side.

    Args:
        fabric: where the bridges are; it must be up before networks can be made.
        tag: the deployment's tag.
        state_dir: the deployment's folder.
    """

    capabilities = frozenset(
        {
            NetworkCapability.DIAL,
            NetworkCapability.METADATA,
            NetworkCapability.STATISTICS,
            NetworkCapability.PROBE,
        }
    )

    def __init__(self, fabric: Fabric, tag: str, state_dir: Path) -> None:
        self._fabric = fabric
        self._tag = names.check_tag(tag)
        self._records = NetworkRecords(state_dir / "networks")
        self._plane = DataPlane(fabric.namespace, tag, self._records)
        self._locks: dict[str, threading.Lock] = {}
        self._locks_lock = threading.Lock()
        self._listeners: list[LinkLostListener] = []
        self._link_watch: LinkWatch | None = None
        self._supervisor: Repeating | None = None
        self._supervised: set[str] = set()

    def check_available(self) -> None:
        if not self._fabric.is_up:
            raise BackendDownError("the network namespace of this deployment is not up")

    def ensure_vpc(self, spec: VPCSpec) -> VPCState:
        check_vpc(spec)
        self.check_available()
        state = VPCState(vpc_id=spec.vpc_id)
        with self._locked(spec.vpc_id), ExitStack() as undo:
            before = self._records.vpc(spec.vpc_id)
            if before is None:
                undo.callback(self._plane.remove_vpc, spec.vpc_id)
            elif before.revision > spec.revision:
                return state
            elif before.cidr != spec.cidr:
                raise PermanentError(f"VPC {spec.vpc_id} is there with the addresses {before.cidr}")
            else:
                undo.callback(self._restore_vpc, before)
            if before != spec:
                self._records.write_vpc(spec)
            self._plane.apply_vpc(spec)
            self._plane.filter.check()
            undo.pop_all()
        self._supervise(spec.vpc_id)
        return state

    def remove_vpc(self, vpc_id: str) -> None:
        with self._locked(vpc_id):
            if self._records.subnets_of(vpc_id):
                raise PermanentError(f"VPC {vpc_id} still has subnets")
            self._supervised.discard(vpc_id)
            self._plane.remove_vpc(vpc_id)

    def ensure_subnet(self, spec: SubnetSpec) -> SubnetState:
        check_id(spec.subnet_id)
        self.check_available()
        with self._locked(spec.subnet_id), ExitStack() as undo:
            before = self._records.subnet(spec.subnet_id)
            if before is not None and before.revision > spec.revision:
                return SubnetState(subnet_id=spec.subnet_id, vpc_id=before.vpc_id)
            for vpc_id in sorted({each.vpc_id for each in (before, spec) if each and each.vpc_id}):
                undo.enter_context(self._locked(vpc_id))
            vpc = None if spec.vpc_id is None else self._require_vpc(spec.vpc_id)
            check_subnet(spec, vpc, self._records.subnets_of(vpc.vpc_id) if vpc else ())
            if before is not None and before.vpc_id == spec.vpc_id and before.cidr != spec.cidr:
                raise PermanentError(f"subnet {spec.subnet_id} is there with the addresses {before.cidr}")
            with ExitStack() as failure:
                failure.callback(self._restore_subnet, spec, before)
                if before != spec:
                    self._records.write_subnet(spec)
                self._plane.apply_subnet(spec, before)
                failure.pop_all()
        return SubnetState(subnet_id=spec.subnet_id, vpc_id=spec.vpc_id)

    def remove_subnet(self, subnet_id: str) -> None:
        with self._locked(subnet_id), ExitStack() as locks:
            spec = self._records.subnet(subnet_id)
            if spec is not None and spec.vpc_id is not None:
                locks.enter_context(self._locked(spec.vpc_id))
            self._plane.remove_subnet(subnet_id, spec)

    def ensure_port(self, spec: PortSpec) -> PortState:
        self.check_available()
        state = PortState(nic_id=spec.nic_id, subnet_id=spec.subnet_id)
        with self._locked_subnet(spec.subnet_id) as subnet, ExitStack() as undo:
            if subnet is None:
                raise NotFoundError(f"subnet {spec.subnet_id} is not on this host")
            ports = self._records.ports(spec.subnet_id)
            before = ports.get(spec.nic_id)
            if before is not None and before.revision > spec.revision:
                return state
            check_port(spec, subnet, ports.values())
            if before is not None and before.mac != spec.mac:
                raise PermanentError(f"NIC {spec.nic_id} is there with another MAC")
            undo.callback(self._restore_port, subnet, spec, before)
            if before != spec:
                self._records.write_ports(spec.subnet_id, (ports | {spec.nic_id: spec}).values())
            self._plane.apply_port(subnet, spec, before)
            undo.pop_all()
        return state

    def remove_port(self, subnet_id: str, nic_id: str) -> None:
        with self._locked_subnet(subnet_id) as subnet:
            ports = self._records.ports(subnet_id)
            if subnet is None or nic_id not in ports:
                return
            self._plane.drop_port(subnet, ports[nic_id])

    def vpcs(self) -> list[VPCState]:
        return [VPCState(vpc_id=vpc_id) for vpc_id in self._records.vpc_ids()]

    def subnets(self) -> list[SubnetState]:
        found = (self._records.subnet(subnet_id) for subnet_id in self._records.subnet_ids())
        return [SubnetState(subnet_id=spec.subnet_id, vpc_id=spec.vpc_id) for spec in found if spec is not None]

    def ports(
        self, subnet_id: str, *, only: Collection[str] | None = None, after: str = "", limit: int | None = None
    ) -> list[PortState]:
        wanted = chosen(self._records.ports(subnet_id), only=only, after=after, limit=limit)
        return [PortState(nic_id=nic_id, subnet_id=subnet_id) for nic_id in wanted]

    def statistics(self, subnet_id: str, nic_id: str) -> PortStatistics | None:
        check_id(nic_id)
        if nic_id not in self._records.ports(subnet_id) or not namespace_exists(self._fabric.namespace):
            return None
        return read_statistics(self._fabric.namespace, names.port_links(self._tag, nic_id))

    def probe(self, spec: ProbeSpec) -> ProbeReport | None:
        check_id(spec.nic_id)
        subnet, port = self._records.subnet(spec.subnet_id), self._records.ports(spec.subnet_id).get(spec.nic_id)
        if subnet is None or port is None:
            raise NotFoundError(f"NIC {spec.nic_id} has no port on this host")
        return follow(self._fabric.namespace, self._tag, subnet, port, spec)

    def on_link_lost(self, listener: LinkLostListener) -> None:
        self._supervise()
        self._listeners.append(listener)
        with self._locks_lock:
            if self._link_watch is None:
                self._link_watch = LinkWatch(self._fabric.namespace, self._tag, self._tell_of_lost_link)
                self._link_watch.start()

    def dial(self, vpc_id: str, address: str, port: int, *, timeout_s: float) -> socket.socket:
        vpc = self._require_vpc(vpc_id)
        router, subnets = names.router_namespace(self._tag, vpc_id), self._records.subnets_of(vpc_id)
        return router_sockets.dial(router, vpc, subnets, address, port, timeout_s=timeout_s)

    def listen(self, vpc_id: str, address: str, port: int) -> socket.socket:
        self._require_vpc(vpc_id)
        return router_sockets.listen(names.router_namespace(self._tag, vpc_id), address, port)

    def close(self) -> None:
        with self._locks_lock:
            watch, self._link_watch = self._link_watch, None
            supervisor, self._supervisor = self._supervisor, None
        for thread in (watch, supervisor):
            if thread is not None:
                thread.close()

    @contextmanager
    def _locked(self, resource_id: str) -> Iterator[None]:
        """Hold the lock of a subnet or VPC. A subnet's is taken before its VPC's, VPCs' in the order of their ids."""
        check_id(resource_id)
        with self._locks_lock:
            lock = self._locks.setdefault(resource_id, threading.Lock())
        with lock:
            yield

    @contextmanager
    def _locked_subnet(self, subnet_id: str) -> Iterator[SubnetSpec | None]:
        """Hold the locks of a subnet and of the VPC it is in, and have its spec."""
        with self._locked(subnet_id), ExitStack() as locks:
            spec = self._records.subnet(subnet_id)
            if spec is not None and spec.vpc_id is not None:
                locks.enter_context(self._locked(spec.vpc_id))
            yield spec

    def _require_vpc(self, vpc_id: str) -> VPCSpec:
        spec = self._records.vpc(check_id(vpc_id))
        if spec is None:
            raise NotFoundError(f"VPC {vpc_id} is not on this host")
        return spec

    # A call that fails leaves what was there before.

    def _restore_vpc(self, before: VPCSpec) -> None:
        self._records.write_vpc(before)
        with _as_well_as_can_be(f"VPC {before.vpc_id}"):
            self._plane.apply_vpc(before)

    def _restore_subnet(self, failed: SubnetSpec, before: SubnetSpec | None) -> None:
        with _as_well_as_can_be(f"subnet {failed.subnet_id}"):
            if before is None:
                self._plane.remove_subnet(failed.subnet_id, failed)
            else:
                self._records.write_subnet(before)
                self._plane.apply_subnet(before, failed)

    def _restore_port(self, subnet: SubnetSpec, failed: PortSpec, before: PortSpec | None) -> None:
        with _as_well_as_can_be(f"NIC {failed.nic_id}"):
            if before is None:
                self._plane.drop_port(subnet, failed)
            else:
                ports = self._records.ports(subnet.subnet_id) | {before.nic_id: before}
                self._records.write_ports(subnet.subnet_id, ports.values())
                self._plane.apply_port(subnet, before, failed)

    # What is looked after in the background.

    def _supervise(self, *vpc_ids: str) -> None:
        """Restart these VPCs' DHCP servers whenever they die; those of an earlier server of ours as well."""
        with self._locks_lock:
            self._supervised.update(vpc_ids)
            if self._supervisor is None:
                self._supervised.update(self._records.vpc_ids())
                self._supervisor = Repeating(
                    self._revive_dhcp_servers, interval_s=SUPERVISE_INTERVAL_S, name=f"dhcp-{self._tag}"
                )
                self._supervisor.start()

    def _revive_dhcp_servers(self) -> None:
        for vpc_id in list(self._supervised):
            if self._plane.dhcp_server(vpc_id).is_running:
                continue
            with self._locked(vpc_id):
                vpc, subnets = self._records.vpc(vpc_id), self._records.subnets_of(vpc_id)
                is_up = namespace_exists(names.router_namespace(self._tag, vpc_id))
                if vpc is None or not subnets or not is_up or self._plane.dhcp_server(vpc_id).is_running:
                    continue
                try:
                    self._plane.apply_dhcp(vpc, subnets)
                    logger.warning("the DHCP server of VPC %s had died and was started again", vpc_id)
                except DriverError as exc:
                    logger.error("the DHCP server of VPC %s cannot be started again: %s", vpc_id, exc)

    def _tell_of_lost_link(self, nic_suffix: str) -> None:
        nic_id = f"{NIC}-{nic_suffix}"
        if any(nic_id in self._records.ports(subnet_id) for subnet_id in self._records.subnet_ids()):
            for listener in list(self._listeners):
                listener(nic_id)


@contextmanager
def _as_well_as_can_be(what: str) -> Iterator[None]:
    """Go on when the block fails: the failure that led here is the one to tell."""
    try:
        yield
    except DriverError as exc:
        logger.error("%s could not be brought back to what it was: %s", what, exc)
