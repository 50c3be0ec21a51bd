"""What a NIC may send, seen by a neighbour on the wire."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from iaas.drivers.interface import AllowedPair, PermanentError, PortSpec, ReservationSpec, SubnetSpec
from iaas.drivers.linux.waiting import wait_until
from tests.contract import frames
from tests.contract.frames import ANYBODY, arp, delivered, dhcp, ethernet, udp
from tests.contract.network_subjects import OWNER, NetworkSubject
from tests.contract.wire_guest import WireGuest, plug
from tests.real_host import RealHost

SENDER, OBSERVER = "10.77.0.10", "10.77.0.20"
OTHER_OWNER = "proj-bbbbbbbb"


class Wire:
    """A subnet with an observer, and a sender whose port can be changed."""

    def __init__(self, wired: NetworkSubject, host: RealHost, subnet: SubnetSpec) -> None:
        self._wired, self._host = wired, host
        self.subnet = subnet
        self.observer = plug(host, wired.port(subnet, OBSERVER), subnet=subnet)
        self.port = wired.port(subnet, SENDER)
        self.sender = plug(host, self.port, subnet=subnet)
        self.stranger_mac = wired.ids.mac()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.sender.close()
        self.observer.close()

    def change_port(self, **changes: Any) -> None:
        self.port = dataclasses.replace(self.port, revision=self.port.revision + 1, **changes)
        self._wired.driver.ensure_port(self.port)

    def change_subnet(self, **changes: Any) -> None:
        self.subnet = dataclasses.replace(self.subnet, revision=self.subnet.revision + 1, **changes)
        self._wired.driver.ensure_subnet(self.subnet)

    def passed(
        self, sent: dict[str, bytes], *, sender: WireGuest | None = None, port: PortSpec | None = None
    ) -> set[str]:
        """Return which of these the observer sees."""
        last = arp((port or self.port).mac, (port or self.port).addresses[0])
        return delivered(sender or self.sender, self.observer, sent, last=last)

    def speaks_as(self, mac: str, address: str) -> dict[str, bytes]:
        return {f"ip {mac} {address}": udp(mac, address), f"arp {mac} {address}": arp(mac, address)}


def test_a_guest_speaks_for_itself_only(wired: NetworkSubject, host: RealHost) -> None:
    with Wire(wired, host, wired.subnet(wired.vpc())) as wire:
        mac, other = wire.port.mac, wire.stranger_mac
        honest = wire.speaks_as(mac, SENDER) | {
            "asks for an address": dhcp(mac, client=mac),
            "asks again for its address": dhcp(mac, client=mac, source=SENDER),
            "asks whether an address is taken": arp(mac, ANYBODY),
        }
        refused = {
            **wire.speaks_as(mac, OBSERVER),
            **wire.speaks_as(mac, "10.77.0.1"),
            **wire.speaks_as(mac, "203.0.113.9"),
            **wire.speaks_as(other, SENDER),
            **wire.speaks_as(other, OBSERVER),
            "says that its address is elsewhere": arp(mac, SENDER, sender_mac=other),
            "asks for another": dhcp(other, client=other),
            "asks in another's name": dhcp(mac, client=other),
            "gives up another's address": dhcp(mac, client=other, source=SENDER),
            "gives out addresses": udp(mac, SENDER, source_port=67, port=68),
            "gives out addresses to any port": udp(mac, SENDER, source_port=67, port=7007),
            "no source, no question": udp(mac, ANYBODY),
            "ipv6": ethernet(mac, bytes([0x60]) + bytes(47), kind=frames.IPV6),
            "tagged": frames.tagged(udp(mac, SENDER)),
            "another protocol": ethernet(mac, bytes(46), kind=frames.LLDP),
            "no protocol": ethernet(mac, bytes(46), kind=46),
        }
        assert wire.passed(refused | honest) == set(honest)


def test_the_link_of_a_vm_is_held_to_the_same(wired: NetworkSubject, host: RealHost) -> None:
    with Wire(wired, host, wired.subnet(wired.vpc())) as wire:
        port = wired.port(wire.subnet, "10.77.0.30")
        with plug(host, port, subnet=wire.subnet, as_vm=True) as vm:
            sent = wire.speaks_as(port.mac, "10.77.0.30") | wire.speaks_as(port.mac, SENDER)
            passed = wire.passed(sent, sender=vm, port=port)
            assert passed == set(wire.speaks_as(port.mac, "10.77.0.30"))


def test_further_addresses_and_allowed_pairs_come_and_go(wired: NetworkSubject, host: RealHost) -> None:
    with Wire(wired, host, wired.subnet(wired.vpc())) as wire:
        mac, router_mac = wire.port.mac, wire.stranger_mac
        second = wire.speaks_as(mac, "10.77.0.11")
        routed = wire.speaks_as(mac, "10.244.1.7")
        shared = wire.speaks_as(router_mac, "10.77.0.99")
        stranger = wire.speaks_as(router_mac, "10.77.0.98") | wire.speaks_as(router_mac, SENDER)
        everything = second | routed | shared | stranger
        assert wire.passed(everything) == set()
        wire.change_port(addresses=(SENDER, "10.77.0.11"))
        assert wire.passed(everything) == set(second)
        wire.change_port(
            allowed_pairs=(
                AllowedPair(cidr="10.244.1.0/24"),
                AllowedPair(cidr="10.244.0.0/16"),  # around the first, and over an address of its own
                AllowedPair(cidr="10.77.0.10/31", mac=mac),
                AllowedPair(cidr="10.77.0.99/32", mac=router_mac),
            )
        )
        assert wire.passed(everything) == set(second | routed | shared)
        wire.change_port(allowed_pairs=(AllowedPair(cidr="0.0.0.0/0"),))
        assert wire.passed(everything) == set(second | routed)
        wire.change_port(addresses=(SENDER,), allowed_pairs=())
        assert wire.passed(everything) == set()


def test_reserved_addresses_are_spoken_for_with_any_mac_by_their_owner(wired: NetworkSubject, host: RealHost) -> None:
    reserved = (
        ReservationSpec(owner=OWNER, first="10.77.0.100", last="10.77.0.109"),
        ReservationSpec(owner=OWNER, first="10.77.0.105", last="10.77.0.119"),
        ReservationSpec(owner=OTHER_OWNER, first="10.77.0.200", last="10.77.0.200"),
    )
    vpc = wired.vpc()
    wired.subnet(  # another segment's reservations are of no use here
        vpc, cidr="10.77.1.0/24", reservations=(ReservationSpec(owner=OWNER, first="10.77.1.7", last="10.77.1.7"),)
    )
    with Wire(wired, host, wired.subnet(vpc, reservations=reserved)) as wire:
        pod = wire.stranger_mac
        ours = {
            **wire.speaks_as(pod, "10.77.0.100"),
            **wire.speaks_as(pod, "10.77.0.119"),
            **wire.speaks_as(wire.port.mac, "10.77.0.107"),
        }
        theirs = wire.speaks_as(pod, "10.77.0.200")
        nobodys = {
            **wire.speaks_as(pod, "10.77.0.99"),
            **wire.speaks_as(pod, "10.77.0.120"),
            **wire.speaks_as(pod, "10.77.1.7"),
            "a pod that gives out addresses": udp(pod, "10.77.0.100", source_port=67, port=68),
        }
        everything = ours | theirs | nobodys
        assert wire.passed(everything) == set(ours)
        wire.change_port(owner=OTHER_OWNER)
        assert wire.passed(everything) == set(theirs)
        wire.change_port(owner=OWNER)
        wire.change_subnet(reservations=reserved[2:])
        assert wire.passed(everything) == set()
        wire.change_subnet(reservations=reserved)
        assert wire.passed(everything) == set(ours)


def test_on_a_bare_subnet_addresses_are_free(wired: NetworkSubject, host: RealHost) -> None:
    reserved = (ReservationSpec(owner=OWNER, first="10.9.9.9", last="10.9.9.9"),)
    with Wire(wired, host, wired.subnet(None, reservations=reserved)) as wire:
        mac, pod = wire.port.mac, wire.stranger_mac
        free = {
            **wire.speaks_as(mac, "192.0.2.77"),
            **wire.speaks_as(pod, "10.9.9.9"),
            "gives out addresses": udp(mac, "192.0.2.77", source_port=67, port=68),
        }
        refused = {**wire.speaks_as(pod, SENDER), "ipv6": ethernet(mac, bytes([0x60]) + bytes(47), kind=frames.IPV6)}
        assert wire.passed(free | refused) == set(free)


def test_the_rules_follow_a_subnet_into_a_vpc_and_out_of_it(wired: NetworkSubject, host: RealHost) -> None:
    vpc = wired.vpc()
    with Wire(wired, host, wired.subnet(None)) as wire:
        foreign = wire.speaks_as(wire.port.mac, "192.0.2.77")
        assert wire.passed(foreign) == set(foreign)
        wire.change_subnet(vpc_id=vpc.vpc_id, cidr="10.77.0.0/24", gateway="10.77.0.1")
        assert wire.passed(foreign) == set()
        wire.change_subnet(vpc_id=None, cidr=None, gateway=None)
        assert wire.passed(foreign) == set(foreign)


def test_a_link_without_a_port_is_silent(wired: NetworkSubject, host: RealHost) -> None:
    with Wire(wired, host, wired.subnet(wired.vpc())) as wire:
        unknown = wired.port_spec(wire.subnet, "10.77.0.30")
        with plug(host, unknown, subnet=wire.subnet) as silent:
            listener = wire.observer.listen(OBSERVER, 80)
            with listener:
                assert not silent.can_connect(OBSERVER, 80)
                wired.driver.ensure_port(unknown)
                # Who has just asked in vain for a neighbour's MAC asks again after a second.
                assert wait_until(lambda: silent.can_connect(OBSERVER, 80), timeout_s=10)
                wired.driver.remove_port(wire.subnet.subnet_id, unknown.nic_id)
                assert not silent.can_connect(OBSERVER, 80)


def test_what_could_not_be_written_into_rules_is_refused(wired: NetworkSubject) -> None:
    subnet = wired.subnet(wired.vpc())
    wrongs: tuple[dict[str, Any], ...] = (
        {"mac": "52:54:00:00:00:01,10.77.0.9"},
        {"mac": "01:00:5e:00:00:01"},
        {"mac": "52:54:00:00:00:01\n"},
        {"names": ("web\nlog-queries",)},
        {"names": ("web,10.77.0.9",)},
        {"allowed_pairs": (AllowedPair(cidr="10.244.0.0/24", mac="any"),)},
        {"allowed_pairs": (AllowedPair(cidr="10.244.0.0/255.255.255.0"),)},
    )
    for wrong in wrongs:
        with pytest.raises(PermanentError):
            wired.driver.ensure_port(dataclasses.replace(wired.port_spec(subnet, "10.77.0.10"), **wrong))
    assert wired.driver.ports(subnet.subnet_id) == []
