"""NICs that come and go, against a domain made of XML; what needs a guest is in the contract suite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("libvirt")  # the extra "real"

import libvirt

from iaas.drivers.interface import NoCapacityError, PermanentError, TransientError
from iaas.drivers.interface.compute import NICS_PER_MACHINE
from iaas.drivers.libvirt import nics
from iaas.drivers.libvirt.domain import Domain
from iaas.drivers.libvirt.domain_config import DomainConfig, Identity, VirtType
from iaas.drivers.libvirt.interfaces import InterfaceConfig, read_interfaces, with_macs
from tests.unit.drivers.libvirt.test_errors import an_error

FIRST = InterfaceConfig(mac="52:54:00:00:00:01", bridge="vxtabcnet00001", tap="tptabcnic00001")
SECOND = InterfaceConfig(
    mac="52:54:00:00:00:02", bridge="vxtabcnet00002", tap="tptabcnic00002", device_index=10, mtu=1400
)
XML = DomainConfig(
    name="iaas-tabc-4kq0ygtz",
    identity=Identity(machine_id="i-4kq0ygtz", generation=0),
    virt_type=VirtType.QEMU,
    vcpus=1,
    memory_mib=128,
    root_disk=Path("/state/vm/root-0.qcow2"),
    boot=None,
    console_log=Path("/state/vm/console.log"),
    interfaces=(FIRST,),
).to_xml()
FLAGS = {libvirt.VIR_DOMAIN_AFFECT_CONFIG: "kept", libvirt.VIR_DOMAIN_AFFECT_LIVE: "live"}


class Handle:
    """As much of a ``virDomain`` as the NICs need: its XML now and at the next start.

    ``deaf_to`` requests to let go of a device come to nothing, as in a guest's early boot.
    """

    def __init__(self, *, is_running: bool) -> None:
        self.xml = {"kept": XML, "live": XML}
        self.is_running = is_running
        self.deaf_to = 0
        self.calls: list[str] = []
        self.is_refusing = False

    def name(self) -> str:
        return "iaas-tabc-4kq0ygtz"

    def isActive(self) -> int:  # noqa: N802 - libvirt's name
        return int(self.is_running)

    def ID(self) -> int:  # noqa: N802 - libvirt's name
        return 1 if self.is_running else -1

    def state(self) -> tuple[int, int]:
        return (libvirt.VIR_DOMAIN_RUNNING if self.is_running else libvirt.VIR_DOMAIN_SHUTOFF, 0)

    def XMLDesc(self, flags: int) -> str:  # noqa: N802 - libvirt's name
        return self.xml["live" if self.is_running and not flags else "kept"]

    def attachDeviceFlags(self, xml: str, flags: int) -> None:  # noqa: N802 - libvirt's name
        parts = [part for flag, part in FLAGS.items() if flags & flag]
        self.calls.append(f"attach {'+'.join(parts)}")
        if self.is_refusing:
            raise an_error(libvirt.VIR_ERR_OPERATION_FAILED, "no")
        for part in parts:
            domain = ElementTree.fromstring(self.xml[part])  # noqa: S314 - our own output
            devices = domain.find("devices")
            assert devices is not None
            devices.append(ElementTree.fromstring(xml))  # noqa: S314 - our own output
            self.xml[part] = ElementTree.tostring(domain, encoding="unicode")

    def detachDeviceAlias(self, alias: str, flags: int) -> None:  # noqa: N802 - libvirt's name
        self.calls.append(f"detach {alias} {FLAGS[flags]}")
        if flags == libvirt.VIR_DOMAIN_AFFECT_LIVE and self.deaf_to > 0:
            self.deaf_to -= 1
            if self.deaf_to % 2:
                text = (
                    f"unable to execute QEMU command 'device_del': Device {alias} is already in the process of unplug"
                )
                raise an_error(libvirt.VIR_ERR_INTERNAL_ERROR, text)
            return
        domain = ElementTree.fromstring(self.xml[FLAGS[flags]])  # noqa: S314 - our own output
        devices = domain.find("devices")
        assert devices is not None
        for interface in devices.findall("interface"):
            name = interface.find("alias")
            if name is not None and name.get("name") == alias:
                devices.remove(interface)
        self.xml[FLAGS[flags]] = ElementTree.tostring(domain, encoding="unicode")


def taps(handle: Handle, part: str) -> list[str]:
    return [nic.tap for nic in read_interfaces(handle.xml[part])]


@pytest.fixture
def running() -> Handle:
    return Handle(is_running=True)


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nics, "REPEAT_S", 0.05)
    monkeypatch.setattr(nics, "LET_GO_TIMEOUT_S", 0.2)


def detach(handle: Handle, nic: InterfaceConfig) -> None:
    domain = Domain(handle)
    nics.detach(lambda: nics.ask_to_detach(domain, nic.tap), lambda: not nics.is_plugged(domain, nic.tap))


def test_each_nic_has_the_place_of_its_device_index_on_a_bus_of_their_own() -> None:
    domain = ElementTree.fromstring(XML)  # noqa: S314 - our own output
    bridges = [each.attrib for each in domain.findall("devices/controller") if each.get("model") == "pci-bridge"]
    assert [bridge["index"] for bridge in bridges] == ["1"]
    addresses = []
    for index in range(NICS_PER_MACHINE):
        address = replace(FIRST, device_index=index).to_element().find("address")
        assert address is not None
        assert int(address.get("bus", ""), 16) == 1
        addresses.append(int(address.get("slot", ""), 16))
    assert addresses == sorted(set(addresses))
    assert addresses[0] >= 1
    assert addresses[-1] <= 31


def test_a_nic_is_read_back_by_tap_and_alias() -> None:
    [nic] = read_interfaces(XML)
    assert (nic.tap, nic.mac, nic.alias, nic.device_index) == (FIRST.tap, FIRST.mac, "ua-nic0", 0)
    foreign = XML.replace("ua-nic0", "net0")
    assert read_interfaces(foreign) == []


def test_the_device_has_the_mtu() -> None:
    size = SECOND.to_element().find("mtu")
    assert size is not None
    assert size.get("size") == "1400"


def test_a_running_machine_gets_the_nic_now_and_for_good_in_one_call(running: Handle) -> None:
    nics.attach(Domain(running), SECOND)
    assert running.calls == ["attach kept+live"]
    state = Domain(running).state()
    assert state is not None
    assert state.nic_ids == ("nic-nic00001", "nic-nic00002")
    nics.attach(Domain(running), SECOND)
    assert running.calls == ["attach kept+live"]


def test_a_stopped_machine_gets_the_nic_for_its_next_start() -> None:
    handle = Handle(is_running=False)
    nics.attach(Domain(handle), SECOND)
    assert handle.calls == ["attach kept"]
    detach(handle, SECOND)
    assert handle.calls == ["attach kept", "detach ua-nic10 kept"]
    detach(handle, SECOND)
    assert len(handle.calls) == 2


@pytest.mark.parametrize("missing", ["kept", "live"])
def test_what_an_earlier_attempt_left_out_is_added(running: Handle, missing: str) -> None:
    nics.attach(Domain(running), SECOND)
    running.xml[missing] = XML
    state = Domain(running).state()
    assert state is not None
    assert state.nic_ids == ("nic-nic00001", "nic-nic00002")
    nics.attach(Domain(running), SECOND)
    assert running.calls[-1] == f"attach {missing}"
    assert taps(running, "kept") == taps(running, "live") == [FIRST.tap, SECOND.tap]


def test_what_another_nic_has_is_refused(running: Handle) -> None:
    nics.attach(Domain(running), SECOND)
    other = replace(SECOND, tap="tptabcnic00003", mac="52:54:00:00:00:03")
    for wrong in (other, replace(SECOND, mac=other.mac), replace(SECOND, device_index=4)):
        with pytest.raises(PermanentError):
            nics.attach(Domain(running), wrong)
    assert len(running.calls) == 1


def test_a_machine_has_room_for_so_many_nics(running: Handle) -> None:
    for index in range(1, NICS_PER_MACHINE):
        nics.attach(Domain(running), replace(SECOND, tap=f"tptabcnic001{index:02}", device_index=index))
    with pytest.raises(NoCapacityError):
        nics.attach(Domain(running), replace(SECOND, device_index=NICS_PER_MACHINE))
    assert len(taps(running, "live")) == NICS_PER_MACHINE


def test_a_guest_that_does_not_hear_is_asked_again(running: Handle) -> None:
    nics.attach(Domain(running), SECOND)
    running.calls.clear()
    running.deaf_to = 3
    detach(running, SECOND)
    assert running.calls == ["detach ua-nic10 kept", *["detach ua-nic10 live"] * 4]
    assert taps(running, "kept") == taps(running, "live") == [FIRST.tap]


def test_a_guest_that_never_lets_go_is_a_matter_of_trying_again(running: Handle) -> None:
    nics.attach(Domain(running), SECOND)
    running.deaf_to = 1000
    with pytest.raises(TransientError):
        detach(running, SECOND)
    # It is gone from the next start on, and still told of as long as the guest has it.
    assert taps(running, "kept") == [FIRST.tap]
    state = Domain(running).state()
    assert state is not None
    assert state.nic_ids == ("nic-nic00001", "nic-nic00002")
    running.deaf_to = 0
    detach(running, SECOND)
    assert taps(running, "live") == [FIRST.tap]


def test_a_machine_that_stops_meanwhile_has_let_go(running: Handle) -> None:
    nics.attach(Domain(running), SECOND)
    running.deaf_to = 1000
    stopped = False

    def is_gone() -> bool:
        nonlocal stopped
        running.is_running, stopped = False, True
        return not nics.is_plugged(Domain(running), SECOND.tap)

    nics.detach(lambda: nics.ask_to_detach(Domain(running), SECOND.tap), is_gone)
    assert stopped


def test_what_libvirt_refuses_is_translated(running: Handle) -> None:
    running.is_refusing = True
    with pytest.raises(TransientError, match="attach the NIC"):
        nics.attach(Domain(running), SECOND)


def test_macs_are_given_by_tap() -> None:
    changed = with_macs(XML, {FIRST.tap: "52:54:00:00:00:09"})
    assert [nic.mac for nic in read_interfaces(changed)] == ["52:54:00:00:00:09"]
    assert with_macs(XML, {FIRST.tap: FIRST.mac}) == XML
    with pytest.raises(PermanentError):
        with_macs(XML, {"tptabcnic00009": FIRST.mac})
