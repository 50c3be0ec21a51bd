from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest

pytest.importorskip("libvirt")  # the extra "real"

from iaas.drivers.libvirt.domain_config import (
    Boot,
    DomainConfig,
    Identity,
    VirtType,
    read_facts,
    with_root_disk,
    with_shape,
)
from iaas.drivers.libvirt.interfaces import InterfaceConfig

CONFIG = DomainConfig(
    name="iaas-tabc-4kq0ygtz",
    identity=Identity(machine_id="i-4kq0ygtz", generation=3),
    virt_type=VirtType.QEMU,
    vcpus=2,
    memory_mib=256,
    root_disk=Path("/state/vm/root-3.qcow2"),
    boot=Boot(kernel=Path("/b/kernel"), initrd=Path("/b/initrd"), cmdline='console=ttyS0 a="<&>"'),
    console_log=Path("/state/vm/console.log"),
    interfaces=(InterfaceConfig(mac="52:54:00:00:00:01", bridge="vxtabcnet00001", tap="tptabcnic00001"),),
)


def parse(xml: str) -> Element:
    return ElementTree.fromstring(xml)  # noqa: S314 - our own output


def test_what_is_written_is_read_back() -> None:
    facts = read_facts(CONFIG.to_xml())
    assert facts is not None
    assert facts.identity == CONFIG.identity
    assert (facts.vcpus, facts.memory_mib, facts.root_disk) == (2, 256, CONFIG.root_disk)


def test_a_domain_without_our_mark_is_not_ours() -> None:
    assert read_facts("<domain type='kvm'><name>other</name><memory unit='KiB'>1024</memory></domain>") is None


def test_values_are_quoted_by_the_writer() -> None:
    assert parse(CONFIG.to_xml()).findtext("os/cmdline") == 'console=ttyS0 a="<&>"'


def test_emulation_has_a_bounded_translation_cache_and_kvm_has_none() -> None:
    emulated = parse(CONFIG.to_xml())
    assert emulated.findtext("features/tcg/tb-cache") == "32"
    assert emulated.findtext("cpu/model") == "qemu64"
    native = parse(replace(CONFIG, virt_type=VirtType.KVM).to_xml())
    assert native.get("type") == "kvm"
    assert native.find("features/tcg") is None
    assert [cpu.get("mode") for cpu in native.findall("cpu")] == ["host-passthrough"]


def test_the_nic_is_on_the_bridge_under_our_name() -> None:
    nic = parse(CONFIG.to_xml()).find("devices/interface")
    assert nic is not None
    children = {child.tag: child.attrib for child in nic}
    assert nic.get("type") == "bridge"
    assert children["source"] == {"bridge": "vxtabcnet00001"}
    assert children["target"] == {"dev": "tptabcnic00001"}
    assert children["mac"] == {"address": "52:54:00:00:00:01"}


def test_the_same_machine_has_the_same_uuid() -> None:
    assert parse(CONFIG.to_xml()).findtext("uuid") == parse(replace(CONFIG, vcpus=4).to_xml()).findtext("uuid")
    other = replace(CONFIG, name="iaas-tabc-00000000")
    assert parse(other.to_xml()).findtext("uuid") != parse(CONFIG.to_xml()).findtext("uuid")


def test_a_resize_changes_nothing_but_the_shape() -> None:
    facts = read_facts(with_shape(CONFIG.to_xml(), vcpus=4, memory_mib=512))
    assert facts is not None
    assert (facts.vcpus, facts.memory_mib) == (4, 512)
    assert facts.identity == CONFIG.identity
    back = with_shape(with_shape(CONFIG.to_xml(), vcpus=4, memory_mib=512), vcpus=2, memory_mib=256)
    assert back == CONFIG.to_xml()


def test_a_new_root_disk_leaves_other_disks_alone() -> None:
    domain = parse(CONFIG.to_xml())
    devices = domain.find("devices")
    assert devices is not None
    devices.append(parse("<disk type='file'><source file='/state/volume'/><target dev='vdb'/></disk>"))
    changed = with_root_disk(
        ElementTree.tostring(domain, encoding="unicode"),
        root_disk=Path("/state/vm/root-4.qcow2"),
        boot=None,
        identity=Identity(machine_id="i-4kq0ygtz", generation=4),
    )
    facts = read_facts(changed)
    assert facts is not None
    assert facts.identity.generation == 4
    assert facts.root_disk == Path("/state/vm/root-4.qcow2")
    assert [source.get("file") for source in parse(changed).findall("devices/disk/source")] == [
        "/state/vm/root-4.qcow2",
        "/state/volume",
    ]
    system = parse(changed).find("os")
    assert system is not None
    assert [child.tag for child in system] == ["type", "boot"]


def test_memory_is_read_in_the_unit_libvirt_answers_in() -> None:
    xml = CONFIG.to_xml().replace('<memory unit="MiB">256<', '<memory unit="KiB">262144<')
    facts = read_facts(xml)
    assert facts is not None
    assert facts.memory_mib == 256
