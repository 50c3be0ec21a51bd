"""The elements of the packet filter say what ``PortSpec`` promises, and never overlap."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address, IPv4Network
from itertools import combinations
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from iaas.drivers.interface import AllowedPair, PortSpec, ReservationSpec, SubnetSpec
from iaas.drivers.linux.filters import Element, port_elements, subnet_elements

OWN_MAC, OTHER_MAC, STRANGE_MAC = "52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:03"
OWNERS = ("proj-a", "proj-b")
ADDRESSES = st.integers(0, 40).map(lambda number: str(IPv4Address("10.0.0.0") + number))
BLOCKS = st.tuples(st.integers(0, 40), st.sampled_from([0, 24, 27, 29, 31, 32])).map(
    lambda pair: str(IPv4Network((int(IPv4Address("10.0.0.0")) + pair[0], pair[1]), strict=False))
)
PAIRS = st.builds(AllowedPair, cidr=BLOCKS, mac=st.sampled_from([None, OWN_MAC, OTHER_MAC]))
RANGES = st.tuples(ADDRESSES, ADDRESSES).map(lambda pair: sorted(pair, key=IPv4Address))
RESERVATIONS = st.builds(
    lambda owner, both: ReservationSpec(owner=owner, first=both[0], last=both[1]), st.sampled_from(OWNERS), RANGES
)


def number_of(subnet_id: str, owner: str) -> int:
    return OWNERS.index(owner) + 1


def lets_pass(elements: set[Element], link: str, mac: str, address: str) -> bool:
    """Do with the elements what the rules do with them, for an IPv4 source."""
    keys = {(each.set_name, *each.key.split(" . ")): each.value for each in elements}

    def is_in(set_name: str, *key: str) -> bool:
        return any(
            found[: len(key) + 1] == (set_name, *key) and IPv4Address(address) in IPv4Network(found[-1])
            for found in keys
            if found[0] == set_name
        )

    if ("macs", link, mac) in keys and is_in("sources", link):
        return True
    speaker = keys.get(("speakers", link))
    return is_in("foreign", link, mac) or (speaker is not None and is_in("reserved", speaker))


def may(port: PortSpec, subnet: SubnetSpec, mac: str, address: str) -> bool:
    """Say the same in the words of the contract."""
    where = IPv4Address(address)
    if mac == port.mac and (subnet.vpc_id is None or address in port.addresses):
        return True
    if any((pair.mac or port.mac) == mac and where in IPv4Network(pair.cidr) for pair in port.allowed_pairs):
        return True
    return any(
        each.owner == port.owner and IPv4Address(each.first) <= where <= IPv4Address(each.last)
        for each in subnet.reservations
    )


@given(
    addresses=st.lists(ADDRESSES, unique=True, max_size=3),
    pairs=st.lists(PAIRS, max_size=4),
    reservations=st.lists(RESERVATIONS, max_size=4),
    is_bare=st.booleans(),
    asked=ADDRESSES,
)
def test_the_elements_let_pass_what_the_port_may_say(
    addresses: list[str],
    pairs: list[AllowedPair],
    reservations: list[ReservationSpec],
    is_bare: bool,
    asked: str,
) -> None:
    place: dict[str, Any] = (
        {} if is_bare else {"vpc_id": "vpc-aaaaaaaa", "cidr": "10.0.0.0/24", "gateway": "10.0.0.254"}
    )
    subnet = SubnetSpec(subnet_id="net-aaaaaaaa", reservations=tuple(reservations), **place)
    port = PortSpec(
        nic_id="nic-aaaaaaaa",
        subnet_id=subnet.subnet_id,
        mac=OWN_MAC,
        owner=OWNERS[0],
        addresses=tuple(addresses),
        allowed_pairs=tuple(pairs),
    )
    elements = subnet_elements("test", subnet, [port], number_of)
    for link in ('"tptestaaaaaaaa"', '"cttestaaaaaaaa"'):
        for mac in (OWN_MAC, OTHER_MAC, STRANGE_MAC):
            assert lets_pass(elements, link, mac, asked) == may(port, subnet, mac, asked)


@given(pairs=st.lists(PAIRS, max_size=6), addresses=st.lists(ADDRESSES, unique=True, max_size=3))
def test_elements_of_one_key_never_overlap(pairs: list[AllowedPair], addresses: list[str]) -> None:
    # The kernel's sets refuse overlapping blocks, or find the wrong one when one of them is taken out.
    subnet = SubnetSpec(subnet_id="net-aaaaaaaa", vpc_id="vpc-aaaaaaaa", cidr="10.0.0.0/24", gateway="10.0.0.254")
    port = PortSpec(
        nic_id="nic-aaaaaaaa",
        subnet_id=subnet.subnet_id,
        mac=OWN_MAC,
        owner=OWNERS[0],
        addresses=tuple(addresses),
        allowed_pairs=tuple(pairs),
    )
    blocks: dict[str, list[IPv4Network]] = {}
    for element in port_elements("test", subnet, port, number_of):
        if element.set_name in {"sources", "foreign"}:
            key, _, block = element.key.rpartition(" . ")
            blocks.setdefault(f"{element.set_name} {key}", []).append(IPv4Network(block))
    for several in blocks.values():
        assert not [pair for pair in combinations(several, 2) if pair[0].overlaps(pair[1])]


def test_a_port_costs_few_elements() -> None:
    subnet = SubnetSpec(subnet_id="net-aaaaaaaa", vpc_id="vpc-aaaaaaaa", cidr="10.0.0.0/24", gateway="10.0.0.254")
    port = PortSpec(
        nic_id="nic-aaaaaaaa", subnet_id=subnet.subnet_id, mac=OWN_MAC, owner=OWNERS[0], addresses=("10.0.0.1",)
    )
    counted = Counter(each.set_name for each in port_elements("test", subnet, port, number_of))
    assert counted == {"macs": 2, "clients": 2, "sources": 2}
