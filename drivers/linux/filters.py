"""What a NIC may send: anti-spoofing by nftables where its link enters the bridge.

The rules are written once; what differs from port to port is in sets, keyed by the name of the NIC's link, for
either kind of machine. A change is one transaction that exchanges a handful of elements, however many ports there
are. A link of ours that is in no set sends nothing.

Sets (``link`` is a name such as ``tp<tag><suffix>``; elements of one key never overlap):

``macs``      link . MAC: the NIC's own
``clients``   link . MAC as a number: as whom it may ask for an address
``bare``      link: the port is on a bare subnet, where addresses are free
``sources``   link . addresses: to be used with the NIC's own MAC
``foreign``   link . MAC . addresses: allowed pairs with a MAC of their own
``speakers``  link : number of a (subnet, owner) with reservations
``reserved``  number . addresses: to be used with any MAC
"""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network

from iaas.drivers.interface import NotFoundError, PortSpec, SubnetSpec
from iaas.drivers.linux import names
from iaas.drivers.linux.namespaces import namespace_exists, namespace_path, run_inside
from iaas.drivers.linux.programs import ProgramError
from iaas.drivers.linux.spec_checks import reserved_range

ANYWHERE = IPv4Network("0.0.0.0/0")

# A source of 0.0.0.0 is a client that asks for its address (DHCP), or asks whether somebody has it (ARP).
# @th,288,48 is the client's MAC as its DHCP message has it (RFC 2131, chaddr, behind the 8 bytes of UDP): else a
# guest could decline or give up another's address. "udp sport 67" is a DHCP server's: on a bare subnet a guest may
# be one. IPv6, VLAN tags and all the rest end here.
RULES = """
table bridge {table} {{
  set macs {{ type ifname . ether_addr; }}
  set clients {{ typeof iifname . @th,288,48; }}
  set bare {{ type ifname; }}
  set sources {{ type ifname . ipv4_addr; flags interval; }}
  set foreign {{ type ifname . ether_addr . ipv4_addr; flags interval; }}
  map speakers {{ type ifname : mark; }}
  set reserved {{ type mark . ipv4_addr; flags interval; }}
  chain ingress {{
    type filter hook prerouting priority -310; policy accept;
    iifname "{tap}{tag}*" goto guest
    iifname "{veth}{tag}*" goto guest
  }}
  chain guest {{
    meta mark set 0
    ether type vmap {{ ip : goto guest_ip, arp : goto guest_arp }}
    drop
  }}
  chain guest_ip {{
    iifname != @bare udp sport 67 drop
    iifname != @bare udp dport 67 iifname . @th,288,48 != @clients drop
    iifname . ether saddr @macs ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept
    iifname . ether saddr @macs iifname . ip saddr @sources accept
    iifname . ether saddr . ip saddr @foreign accept
    meta mark set iifname map @speakers
    meta mark . ip saddr @reserved meta mark set 0 accept
    drop
  }}
  chain guest_arp {{
    iifname . ether saddr @macs iifname . arp saddr ether @macs iifname . arp saddr ip @sources accept
    iifname . ether saddr @macs iifname . arp saddr ether @macs arp saddr ip 0.0.0.0 accept
    iifname . ether saddr . arp saddr ip @foreign iifname . arp saddr ether . arp saddr ip @foreign accept
    meta mark set iifname map @speakers
    meta mark . arp saddr ip @reserved meta mark set 0 accept
    drop
  }}
}}
"""


@dataclass(frozen=True, slots=True, order=True)
class Element:
    """One element of a set, or (with ``value``) of a map."""

    set_name: str
    key: str
    value: str = ""

    @property
    def text(self) -> str:
        return f"{self.key} : {self.value}" if self.value else self.key


NumberOf = Callable[[str, str], int]  # of (subnet id, owner); above 0, never of two


def subnet_elements(tag: str, subnet: SubnetSpec, ports: Iterable[PortSpec], number_of: NumberOf) -> set[Element]:
    """Return the elements of a subnet's reservations and of all its ports. The specs were checked."""
    elements: set[Element] = set()
    for owner in sorted({each.owner for each in subnet.reservations}):
        ranges = [reserved_range(each) for each in subnet.reservations if each.owner == owner]
        blocks = [block for first, last in ranges for block in ipaddress.summarize_address_range(first, last)]
        number = number_of(subnet.subnet_id, owner)
        elements |= {Element("reserved", f"{number} . {block}") for block in ipaddress.collapse_addresses(blocks)}
    for port in ports:
        elements |= port_elements(tag, subnet, port, number_of)
    return elements


def port_elements(tag: str, subnet: SubnetSpec, port: PortSpec, number_of: NumberOf) -> set[Element]:
    """Return the elements of one port."""
    is_bare = subnet.vpc_id is None
    own = [IPv4Network(address) for address in port.addresses]
    own += [IPv4Network(pair.cidr) for pair in port.allowed_pairs if pair.mac in {None, port.mac}]
    foreign: dict[str, list[IPv4Network]] = {}
    for pair in port.allowed_pairs:
        if pair.mac is not None and pair.mac != port.mac:
            foreign.setdefault(pair.mac, []).append(IPv4Network(pair.cidr))
    speaks_for_reserved = any(each.owner == port.owner for each in subnet.reservations)
    elements = set()
    for link in names.port_links(tag, port.nic_id):
        elements.add(Element("macs", f'"{link}" . {port.mac}'))
        elements.add(Element("clients", f'"{link}" . 0x{port.mac.replace(":", "")}'))
        if is_bare:
            elements.add(Element("bare", f'"{link}"'))
        for block in ipaddress.collapse_addresses([ANYWHERE] if is_bare else own):
            elements.add(Element("sources", f'"{link}" . {block}'))
        for mac, blocks in foreign.items():
            for block in ipaddress.collapse_addresses(blocks):
                elements.add(Element("foreign", f'"{link}" . {mac} . {block}'))
        if speaks_for_reserved:
            elements.add(Element("speakers", f'"{link}"', str(number_of(subnet.subnet_id, port.owner))))
    return elements


class PacketFilter:
    """The deployment's table in the fabric.

    Args:
        namespace: the fabric's network namespace.
        tag: the deployment's tag.
        everything: returns all elements there are to be, as the records have it.
    """

    def __init__(self, namespace: str, tag: str, everything: Callable[[], set[Element]]) -> None:
        self._namespace = namespace
        self._tag = tag
        self._table = names.filter_table(tag)
        self._everything = everything
        self._lock = threading.Lock()
        self._filled: int | None = None  # inode of the namespace whose table is known to hold what the records say

    def change(self, *, removed: set[Element], present: set[Element]) -> None:
        """Take ``removed`` out and have ``present`` in, in one transaction. The records say so already.

        Raises:
            ProgramError: nft refused; nothing was changed.
            NotFoundError: the fabric is gone, and the table with it.
        """
        lines = [f"delete element {self._set(each)} {{ {each.text} }}" for each in sorted(removed - present)]
        lines += [f"add element {self._set(each)} {{ {each.text} }}" for each in sorted(present)]
        with self._lock:
            if not namespace_exists(self._namespace):
                raise NotFoundError("the network namespace of this deployment is gone")
            home = namespace_path(self._namespace).stat().st_ino
            if home == self._filled and lines:
                try:
                    self._run(lines)
                    return
                except ProgramError:
                    # The table is gone, or a call that was killed has left it different from the records.
                    self._filled = None
            if home != self._filled:
                self._run(self._whole_table())
                self._filled = home

    def check(self) -> None:
        """Make the table anew when it is not there."""
        with self._lock:
            try:
                run_inside(self._namespace, ["nft", "list", "chain", "bridge", self._table, "ingress"])
            except ProgramError:
                self._filled = None
        self.change(removed=set(), present=set())

    def _whole_table(self) -> list[str]:
        """Return the lines that exchange the table for a fresh one; no packet meets the time between."""
        text = RULES.format(table=self._table, tag=self._tag, tap=names.TAP, veth=names.CONTAINER_VETH)
        # "add" first, so that "delete" finds one.
        lines = [f"add table bridge {self._table}", f"delete table bridge {self._table}", text]
        by_set: dict[str, list[Element]] = {}
        for element in sorted(self._everything()):
            by_set.setdefault(self._set(element), []).append(element)
        for place, elements in by_set.items():
            lines.append(f"add element {place} {{ {', '.join(element.text for element in elements)} }}")
        return lines

    def _set(self, element: Element) -> str:
        return f"bridge {self._table} {element.set_name}"

    def _run(self, lines: list[str]) -> None:
        run_inside(self._namespace, ["nft", "-f", "-"], input_text="\n".join(lines) + "\n")


def check_rules(namespace: str) -> None:
    """Load the rules in a namespace that is made for this.

    Raises:
        ProgramError: this kernel, or this nft, cannot.
    """
    text = RULES.format(table=names.filter_table("test"), tag="test", tap=names.TAP, veth=names.CONTAINER_VETH)
    run_inside(namespace, ["nft", "-f", "-"], input_text=text)


def remove_filters(namespace: str, tag: str) -> None:
    """Remove the deployment's table from a namespace that is not removed itself. Already absent is success."""
    table = names.filter_table(tag)
    run_inside(namespace, ["nft", "-f", "-"], input_text=f"add table bridge {table}\ndelete table bridge {table}\n")
