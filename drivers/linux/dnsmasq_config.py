"""The files of a VPC's dnsmasq, as text. The specs were checked: nothing in them needs quoting."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from pathlib import Path

from iaas.drivers.interface import DNSRecordSpec, PortSpec, SubnetSpec, VPCSpec
from iaas.drivers.linux import names
from iaas.kernel.ids import suffix

NAME_TTL_S = 5  # of machines' names and TXT records: names move with their NICs
TXT_TYPE = 16  # Source: RFC 1035, 3.2.2


def config(folder: Path, vpc: VPCSpec, subnets: Sequence[SubnetSpec]) -> str:
    """Return the configuration file: all that needs a restart when it changes."""
    lines = [
        *(f"interface={names.router_end(subnet.subnet_id)}" for subnet in subnets),
        "except-interface=lo",
        "bind-dynamic",
        "no-hosts",
        "no-resolv",  # a name that nobody here knows is refused; the host's own resolvers are not asked
        "no-poll",
        "no-ping",
        "no-negcache",  # what a forwarder does not know yet it may know in a moment
        "quiet-dhcp",
        f"local-ttl={NAME_TTL_S}",
        f"pid-file={folder / 'dnsmasq.pid'}",
        f"log-facility={folder / 'dnsmasq.log'}",
        "leasefile-ro",  # the reservations are the truth; nothing is remembered besides them
        "dhcp-authoritative",
        "dhcp-ignore-names",  # else a guest could give itself another's name
        f"dhcp-hostsfile={folder / 'leases'}",
        f"domain={vpc.dns_domain}",
        f"addn-hosts={folder / 'hosts'}",
    ]
    if vpc.dns_domain not in {forwarder.domain for forwarder in vpc.forwarders}:
        lines.append(f"local=/{vpc.dns_domain}/")
    for subnet in subnets:
        lines += _subnet_lines(vpc, subnet)
    for record in vpc.records:
        lines += _record_lines(record)
    for forwarder in vpc.forwarders:
        lines += [f"server=/{forwarder.domain}/{server}" for server in forwarder.servers]
    return "\n".join(lines) + "\n"


def leases(ports: Iterable[PortSpec]) -> str:
    """Return the file of reservations: MAC, address, host name."""
    lines = []
    for port in ports:
        if port.addresses:
            lines.append(",".join([port.mac, port.addresses[0], *port.names[:1]]))
    return "".join(f"{line}\n" for line in lines)


def hosts(domain: str, ports: Iterable[PortSpec]) -> str:
    """Return the file of names: each stands for the NIC's first address, with the domain and without."""
    lines = []
    for port in ports:
        if port.addresses:
            lines += [f"{port.addresses[0]} {name}.{domain} {name}\n" for name in port.names]
    return "".join(lines)


def _subnet_lines(vpc: VPCSpec, subnet: SubnetSpec) -> list[str]:
    cidr, tag = ipaddress.IPv4Network(subnet.cidr or "0.0.0.0/0"), f"s{suffix(subnet.subnet_id)}"
    dns_servers = ",".join(vpc.dns_servers) or subnet.gateway
    lines = [
        f"dhcp-range=set:{tag},{cidr.network_address},static,{cidr.netmask},{vpc.lease_s}",
        f"dhcp-option=tag:{tag},option:router,{subnet.gateway}",
        f"dhcp-option=tag:{tag},option:dns-server,{dns_servers}",
        f"dhcp-option=tag:{tag},option:mtu,{subnet.mtu}",
    ]
    if vpc.ntp_servers:
        lines.append(f"dhcp-option=tag:{tag},option:ntp-server,{','.join(vpc.ntp_servers)}")
    return lines


def _record_lines(record: DNSRecordSpec) -> list[str]:
    if record.type == "A":
        return [f"host-record={record.name},{address},{record.ttl_s}" for address in record.values]
    if record.type == "CNAME":
        return [f"cname={record.name},{record.values[0]},{record.ttl_s}"]
    # In hexadecimal: text may hold commas, quotes and line ends.
    texts = [value.encode() for value in record.values]
    return [f"dns-rr={record.name},{TXT_TYPE},{(bytes([len(text)]) + text).hex()}" for text in texts]
