"""What a VM is to libvirt: frozen objects that turn into domain XML, and the few changes made to it later.

Source of element names and values: libvirt, "Domain XML format".
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from iaas.drivers.libvirt.interfaces import InterfaceConfig, bus_elements

NAMESPACE = "urn:iaas:machine:1"
MACHINE_TAG = f"{{{NAMESPACE}}}machine"
AGENT_CHANNEL = "org.qemu.guest_agent.0"
# QEMU's own default grows with use to a gigabyte and more for each emulated VM; 32 MiB is no slower.
TCG_CACHE_MIB = 32
UUID_NAMESPACE = uuid.UUID("6f0c7a52-5c1d-4a6b-9a0e-1f6b2c0d7e11")

ElementTree.register_namespace("iaas", NAMESPACE)


class VirtType(StrEnum):
    """How a VM's processor runs; the words are libvirt's."""

    QEMU = "qemu"  # emulated: slow, works everywhere
    KVM = "kvm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What we note in the domain, to know it again."""

    machine_id: str
    generation: int
    host_id: str | None = None

    def to_element(self) -> Element:
        host = {} if self.host_id is None else {"host": self.host_id}
        return Element(MACHINE_TAG, {"id": self.machine_id, "generation": str(self.generation), **host})


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """A kernel that QEMU loads itself; a disk with a boot loader needs none."""

    kernel: Path
    initrd: Path | None
    cmdline: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainConfig:
    """All of one VM."""

    name: str
    identity: Identity
    virt_type: VirtType
    vcpus: int
    memory_mib: int
    root_disk: Path
    boot: Boot | None
    console_log: Path
    interfaces: tuple[InterfaceConfig, ...] = ()

    def to_xml(self) -> str:
        """Return the domain XML."""
        domain = Element("domain", type=self.virt_type.value)
        _text(domain, "name", self.name)
        _text(domain, "uuid", str(uuid.uuid5(UUID_NAMESPACE, self.name)))
        SubElement(domain, "metadata").append(self.identity.to_element())
        _text(domain, "memory", str(self.memory_mib), unit="MiB")
        _text(domain, "currentMemory", str(self.memory_mib), unit="MiB")
        _text(domain, "vcpu", str(self.vcpus))
        _fill_os(SubElement(domain, "os"), self.boot)
        self._add_features(domain)
        SubElement(domain, "clock", offset="utc")
        # A guest that powers itself off is stopped; on_crash likewise: the cloud decides what comes next.
        for event, action in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
            _text(domain, event, action)
        self._add_devices(SubElement(domain, "devices"))
        return ElementTree.tostring(domain, encoding="unicode")

    def _add_features(self, domain: Element) -> None:
        features = SubElement(domain, "features")
        SubElement(features, "acpi")
        SubElement(features, "apic")
        if self.virt_type is VirtType.QEMU:
            _text(SubElement(features, "tcg"), "tb-cache", str(TCG_CACHE_MIB), unit="MiB")
            cpu = SubElement(domain, "cpu", mode="custom", match="exact", check="none")
            _text(cpu, "model", "qemu64", fallback="allow")
        else:
            SubElement(domain, "cpu", mode="host-passthrough")

    def _add_devices(self, devices: Element) -> None:
        disk = SubElement(devices, "disk", type="file", device="disk")
        SubElement(disk, "driver", name="qemu", type="qcow2", cache="writeback", discard="unmap")
        SubElement(disk, "source", file=str(self.root_disk))
        SubElement(disk, "target", dev="vda", bus="virtio")
        SubElement(disk, "serial").text = "root"
        SubElement(devices, "controller", type="usb", model="none")
        devices.extend(bus_elements())
        for interface in self.interfaces:
            devices.append(interface.to_element())
        # append: the log is shortened from outside while QEMU has it open (see console.py).
        for kind in ("serial", "console"):
            console = SubElement(devices, kind, type="file")
            SubElement(console, "source", path=str(self.console_log), append="on")
            SubElement(console, "target", {"type": "serial", "port": "0"} if kind == "console" else {"port": "0"})
        channel = SubElement(devices, "channel", type="unix")
        SubElement(channel, "target", type="virtio", name=AGENT_CHANNEL)
        SubElement(devices, "memballoon", model="virtio")
        rng = SubElement(devices, "rng", model="virtio")
        SubElement(rng, "backend", model="random").text = "/dev/urandom"


def _text(parent: Element, tag: str, text: str, **attributes: str) -> None:
    SubElement(parent, tag, attributes).text = text


def _fill_os(element: Element, boot: Boot | None) -> None:
    for child in list(element):
        if child.tag in {"kernel", "initrd", "cmdline", "boot"}:
            element.remove(child)
    if element.find("type") is None:
        # "pc" takes two dozen devices plugged later without preparation; q35 wants a port made for each.
        _text(element, "type", "hvm", arch="x86_64", machine="pc")
    if boot is None:
        SubElement(element, "boot", dev="hd")
        return
    _text(element, "kernel", str(boot.kernel))
    if boot.initrd is not None:
        _text(element, "initrd", str(boot.initrd))
    _text(element, "cmdline", boot.cmdline)


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainFacts:
    """What we read back from a domain's XML."""

    identity: Identity
    vcpus: int
    memory_mib: int
    root_disk: Path


UNIT_KIB: Mapping[str, int] = {"KiB": 1, "MiB": 1024, "GiB": 1024 * 1024}


def read_facts(xml: str) -> DomainFacts | None:
    """Return what the domain is to us; None when it does not carry our mark."""
    domain = ElementTree.fromstring(xml)  # noqa: S314 - libvirt's own output, made from what we defined
    mark = domain.find(f"metadata/{MACHINE_TAG}")
    memory, disk = domain.find("memory"), _root_source(domain)
    if mark is None or memory is None or disk is None:
        return None
    return DomainFacts(
        identity=Identity(
            machine_id=mark.get("id", ""), generation=int(mark.get("generation", "0")), host_id=mark.get("host")
        ),
        vcpus=int(domain.findtext("vcpu", "1")),
        memory_mib=int(memory.text or "0") * UNIT_KIB[memory.get("unit", "KiB")] // 1024,
        root_disk=Path(disk.get("file", "")),
    )


def _root_source(domain: Element) -> Element | None:
    for disk in domain.findall("devices/disk"):
        target = disk.find("target")
        if target is not None and target.get("dev") == "vda":
            return disk.find("source")
    return None


def with_shape(xml: str, *, vcpus: int, memory_mib: int) -> str:
    """Return the domain XML with another shape; all else, also devices added later, stays."""
    domain = ElementTree.fromstring(xml)  # noqa: S314 - libvirt's own output
    for tag in ("memory", "currentMemory"):
        for element in domain.findall(tag):
            element.text = str(memory_mib)
            element.set("unit", "MiB")
    for element in domain.findall("vcpu"):
        element.text = str(vcpus)
    return ElementTree.tostring(domain, encoding="unicode")


def with_root_disk(xml: str, *, root_disk: Path, boot: Boot | None, identity: Identity) -> str:
    """Return the domain XML with another root disk and what belongs to it; all else stays."""
    domain = ElementTree.fromstring(xml)  # noqa: S314 - libvirt's own output
    source = _root_source(domain)
    if source is not None:
        source.attrib = {"file": str(root_disk)}
    for element in domain.findall("os"):
        _fill_os(element, boot)
    for metadata in domain.findall("metadata"):
        for mark in metadata.findall(MACHINE_TAG):
            metadata.remove(mark)
        metadata.append(identity.to_element())
    return ElementTree.tostring(domain, encoding="unicode")
