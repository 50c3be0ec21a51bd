"""Brings the kernel, dnsmasq and the packet filter to what the records of networks say.

Whoever calls holds the locks of what he names, and has written the records already.
"""

from __future__ import annotations

import contextlib
import dataclasses

from iaas.drivers.interface import NotFoundError, PortSpec, SubnetSpec, VPCSpec
from iaas.drivers.linux import names
from iaas.drivers.linux.announce import announce
from iaas.drivers.linux.dhcp import DHCPServer
from iaas.drivers.linux.filters import Element, PacketFilter, port_elements, subnet_elements
from iaas.drivers.linux.links import ensure_bridge, ensure_leg, remove_link
from iaas.drivers.linux.namespaces import namespace_exists
from iaas.drivers.linux.network_records import NetworkRecords
from iaas.drivers.linux.router import ensure_router, remove_router
from iaas.drivers.linux.routes import apply_routes, table_of
from iaas.drivers.linux.spec_checks import fitting


class DataPlane:
    """What one deployment's networks are made of.

    Args:
        namespace: the fabric's network namespace.
        tag: the deployment's tag.
        records: what there is to be.
    """

    def __init__(self, namespace: str, tag: str, records: NetworkRecords) -> None:
        self._namespace = namespace
        self._tag = tag
        self._records = records
        self.filter = PacketFilter(namespace, tag, self._all_elements)

    def router(self, vpc_id: str) -> str:
        """Return the name of the VPC's router namespace."""
        return names.router_namespace(self._tag, vpc_id)

    def _vpc(self, vpc_id: str) -> VPCSpec:
        spec = self._records.vpc(vpc_id)
        if spec is None:
            raise NotFoundError(f"VPC {vpc_id} is not on this host")
        return spec

    def apply_vpc(self, vpc: VPCSpec) -> None:
        """Make or mend a VPC's router, its subnets' bridges and legs, its routes, DHCP and DNS."""
        ensure_router(self.router(vpc.vpc_id))
        for subnet in self._records.subnets_of(vpc.vpc_id):
            self._ensure_segment(subnet)
        self._apply_services(vpc)

    def _ensure_segment(self, subnet: SubnetSpec) -> None:
        links = [
            name for nic_id in self._records.ports(subnet.subnet_id) for name in names.port_links(self._tag, nic_id)
        ]
        fabric, bridge = self._namespace, names.bridge(self._tag, subnet.subnet_id)
        ensure_bridge(fabric, bridge, mtu=subnet.mtu, ports=links)
        if subnet.vpc_id is not None and subnet.cidr is not None and subnet.gateway is not None:
            ensure_leg(
                fabric,
                bridge=bridge,
                outer=names.router_veth(self._tag, subnet.subnet_id),
                router=self.router(subnet.vpc_id),
                inner=names.router_end(subnet.subnet_id),
                gateway=subnet.gateway,
                cidr=subnet.cidr,
                mtu=subnet.mtu,
            )

    def _apply_services(self, vpc: VPCSpec) -> None:
        """Bring routes, DHCP and DNS of a VPC whose legs are there to the records."""
        subnets = self._records.subnets_of(vpc.vpc_id)
        apply_routes(self.router(vpc.vpc_id), table_of(vpc, subnets))
        self.apply_dhcp(vpc, subnets)

    def apply_dhcp(self, vpc: VPCSpec, subnets: list[SubnetSpec]) -> None:
        """Bring DHCP and DNS of a VPC whose router is there to the records."""
        ports = [port for subnet in subnets for port in self._fitting_ports(subnet)]
        self.dhcp_server(vpc.vpc_id).ensure(vpc, subnets, ports)

    def apply_subnet(self, spec: SubnetSpec, before: SubnetSpec | None) -> None:
        """Make or mend a subnet that was ``before``; out of one VPC, into another, its reservations exchanged."""
        if before is not None and before.vpc_id is not None and before.vpc_id != spec.vpc_id:
            remove_link(self._namespace, names.router_veth(self._tag, spec.subnet_id))
            if (left := self._records.vpc(before.vpc_id)) is not None:
                self.apply_vpc(left)
        vpc = None if spec.vpc_id is None else self._vpc(spec.vpc_id)
        if vpc is None:
            self._ensure_segment(spec)
        elif namespace_exists(self.router(vpc.vpc_id)):
            self._ensure_segment(spec)
            self._apply_services(vpc)
        else:
            self.apply_vpc(vpc)
        old, new = set() if before is None else self._elements(before), self._elements(spec)
        if old != new:
            self.filter.change(removed=old - new, present=new - old)
        elif new:
            self.filter.check()

    def apply_port(self, subnet: SubnetSpec, spec: PortSpec, before: PortSpec | None) -> None:
        """Let a port in that was ``before``: DHCP, DNS, what it may send; its neighbours hear of new addresses."""
        if subnet.vpc_id is not None:
            vpc = self._vpc(subnet.vpc_id)
            if namespace_exists(self.router(vpc.vpc_id)):
                self.apply_dhcp(vpc, self._records.subnets_of(vpc.vpc_id))
            else:
                self.apply_vpc(vpc)
        else:
            self._ensure_segment(subnet)
        old = set() if before is None else self._elements_of_port(subnet, before)
        self.filter.change(removed=old, present=self._elements_of_port(subnet, spec))
        fresh = set(spec.addresses) - set(() if before is None else before.addresses)
        with contextlib.suppress(OSError):  # a help, and the bridge may be gone just now
            bridge = names.bridge(self._tag, spec.subnet_id)
            announce(self._namespace, bridge, mac=spec.mac, addresses=sorted(fresh))

    def drop_port(self, subnet: SubnetSpec, port: PortSpec) -> None:
        """Forget a port, and its record with it."""
        left = self._records.ports(subnet.subnet_id)
        left.pop(port.nic_id, None)
        self._records.write_ports(subnet.subnet_id, left.values())
        with contextlib.suppress(NotFoundError):  # the fabric or the router is gone, and all of this with it
            self.filter.change(removed=self._elements_of_port(subnet, port), present=set())
            if subnet.vpc_id is not None:
                vpc = self._vpc(subnet.vpc_id)
                self.apply_dhcp(vpc, self._records.subnets_of(vpc.vpc_id))

    def remove_subnet(self, subnet_id: str, spec: SubnetSpec | None) -> None:
        """Remove a subnet, or what is left of one without a record, its ports and its record."""
        if spec is not None:
            elements = self._elements(spec)
            # The filter may be made anew from the records: they must not name what goes.
            self._records.write_ports(subnet_id, ())
            self._records.write_subnet(dataclasses.replace(spec, reservations=()))
            with contextlib.suppress(NotFoundError):
                self.filter.change(removed=elements, present=set())
        with contextlib.suppress(NotFoundError):  # the fabric is gone, and all links with it
            remove_link(self._namespace, names.router_veth(self._tag, subnet_id))
            remove_link(self._namespace, names.bridge(self._tag, subnet_id))
        self._records.forget_subnet(subnet_id)
        if spec is not None and spec.vpc_id is not None and (vpc := self._records.vpc(spec.vpc_id)) is not None:
            with contextlib.suppress(NotFoundError):
                self._apply_services(vpc)

    def remove_vpc(self, vpc_id: str) -> None:
        """Remove a VPC without subnets, and its record."""
        self.dhcp_server(vpc_id).stop()
        remove_router(self.router(vpc_id))
        self._records.forget_vpc(vpc_id)

    def _fitting_ports(self, subnet: SubnetSpec) -> list[PortSpec]:
        return [fitting(port, subnet) for port in self._records.ports(subnet.subnet_id).values()]

    def _elements(self, subnet: SubnetSpec) -> set[Element]:
        return subnet_elements(self._tag, subnet, self._fitting_ports(subnet), self._records.number_of)

    def _elements_of_port(self, subnet: SubnetSpec, port: PortSpec) -> set[Element]:
        return port_elements(self._tag, subnet, fitting(port, subnet), self._records.number_of)

    def _all_elements(self) -> set[Element]:
        found = (self._records.subnet(subnet_id) for subnet_id in self._records.subnet_ids())
        return {element for subnet in found if subnet is not None for element in self._elements(subnet)}

    def dhcp_server(self, vpc_id: str) -> DHCPServer:
        """Return the VPC's DHCP server, running or not."""
        return DHCPServer(self._records.vpc_folder(vpc_id), namespace=self.router(vpc_id))
