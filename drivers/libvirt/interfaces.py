"""The NICs in a domain's XML: written for libvirt, read back, changed.

A NIC is known by its tap's name, which holds its id, and by its alias, which holds its device index.
Source of element names and values: libvirt, "Domain XML format", network interfaces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from iaas.drivers.interface import PermanentError

# libvirt keeps an alias of ours only with this beginning.
ALIAS_PREFIX = "ua-nic"
# NICs have a PCI bus to themselves, each the slot of its device index: what else is plugged never takes their
# places, and the guest, which numbers by place when it boots, finds them in the order of their indexes.
PCI_BUS = 1
FIRST_SLOT = 1  # slot 0 is the bridge's own


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceConfig:
    """One NIC on a bridge; ``tap`` is the host's end and survives restarts of the machine by name."""

    mac: str
    bridge: str
    tap: str
    device_index: int = 0
    mtu: int = 1500

    @property
    def alias(self) -> str:
        """What libvirt calls the device."""
        return f"{ALIAS_PREFIX}{self.device_index}"

    def to_element(self) -> Element:
        element = Element("interface", type="bridge")
        SubElement(element, "mac", address=self.mac)
        SubElement(element, "source", bridge=self.bridge)
        SubElement(element, "target", dev=self.tap)
        SubElement(element, "model", type="virtio")
        SubElement(element, "mtu", size=str(self.mtu))  # the guest learns it from the device, also without DHCP
        # The network boot ROM costs half a second of emulated time at each start, and nobody boots from it.
        SubElement(element, "rom", enabled="no")
        SubElement(element, "alias", name=self.alias)
        slot = f"{FIRST_SLOT + self.device_index:#04x}"
        SubElement(element, "address", type="pci", domain="0x0000", bus=f"{PCI_BUS:#04x}", slot=slot, function="0x0")
        return element

    def to_xml(self) -> str:
        """Return the device's XML, for a machine that is there already."""
        return ElementTree.tostring(self.to_element(), encoding="unicode")


def bus_elements() -> list[Element]:
    """Return the controllers that make the NICs' bus; it must be there from the start to take NICs later."""
    return [
        Element("controller", type="pci", index="0", model="pci-root"),
        Element("controller", type="pci", index=str(PCI_BUS), model="pci-bridge"),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceFacts:
    """What we read back of one NIC."""

    tap: str
    mac: str
    alias: str
    device_index: int


def read_interfaces(xml: str) -> list[InterfaceFacts]:
    """Return the NICs in a domain's XML that carry an alias of ours, in the order of their device indexes."""
    domain = ElementTree.fromstring(xml)  # noqa: S314 - libvirt's own output
    return sorted(_interfaces(domain), key=lambda each: each.device_index)


def _interfaces(domain: Element) -> list[InterfaceFacts]:
    found = []
    for interface in domain.findall("devices/interface"):
        tap, mac, alias = interface.find("target"), interface.find("mac"), interface.find("alias")
        if tap is None or mac is None or alias is None:
            continue
        name = alias.get("name", "")
        number = name.removeprefix(ALIAS_PREFIX)
        if name != number and number.isdigit():
            found.append(
                InterfaceFacts(tap=tap.get("dev", ""), mac=mac.get("address", ""), alias=name, device_index=int(number))
            )
    return found


def with_macs(xml: str, macs: Mapping[str, str]) -> str:
    """Return the domain XML with other MACs, by tap; the very same text when nothing would change.

    Raises:
        PermanentError: it has no NIC with such a tap.
    """
    domain = ElementTree.fromstring(xml)  # noqa: S314 - libvirt's own output
    found: dict[str, Element] = {}
    for interface in domain.findall("devices/interface"):
        target, element = interface.find("target"), interface.find("mac")
        if target is not None and element is not None:
            found[target.get("dev", "")] = element
    if missing := macs.keys() - found.keys():
        raise PermanentError(f"the machine has no NIC {', '.join(sorted(missing))}")
    if all(found[tap].get("address") == mac for tap, mac in macs.items()):
        return xml
    for tap, mac in macs.items():
        found[tap].set("address", mac)
    return ElementTree.tostring(domain, encoding="unicode")
