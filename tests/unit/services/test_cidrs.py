"""Blocks and addresses as clients write them; names of the DNS."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from iaas.kernel.errors import InvalidInput
from iaas.services import cidrs, dns_names
from tests.unit.services.networks import field_of


@pytest.mark.parametrize(
    "text", ["10.0.0.0/16", "10.255.255.240/28", "172.31.0.0/20", "192.168.0.0/16", "100.64.0.0/16"]
)
def test_blocks_that_a_vpc_can_have(text: str) -> None:
    assert str(cidrs.check_vpc_block(text)) == text


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("10.0.0.1/16", "host_bits"),
        ("10.0.0.0/15", "out_of_range"),
        ("10.0.0.0/29", "out_of_range"),
        ("10.0.0.0/33", "invalid"),
        ("10.0.0.0/255.255.0.0", "invalid"),
        ("10.0.0.0", "invalid"),
        ("10.0.0/16", "invalid"),
        ("10.0.0.256/28", "invalid"),
        ("010.0.0.0/16", "invalid"),
        ("\u0661\u0660.0.0.0/16", "invalid"),
        (" 10.0.0.0/16", "invalid"),
        ("10.0.0.0/16\n", "invalid"),
        ("", "invalid"),
        ("fd00::/48", "not_supported"),
        ("fd00::1/48", "not_supported"),
        ("8.8.8.0/24", "out_of_range"),
        ("172.32.0.0/16", "out_of_range"),
        ("169.254.0.0/16", "out_of_range"),
        ("127.0.0.0/16", "out_of_range"),
        ("224.0.0.0/16", "out_of_range"),
        ("100.128.0.0/16", "out_of_range"),
    ],
)
def test_blocks_that_no_vpc_can_have(text: str, code: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        cidrs.check_vpc_block(text)
    assert field_of(refused) == ("cidr", code)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("10.0.0.0/15", "out_of_range"),
        ("10.0.0.0/30", "out_of_range"),
        ("10.1.0.0/24", "outside"),
        ("192.168.0.0/24", "outside"),
        ("10.0.1.7/24", "host_bits"),
        ("fd00::/64", "not_supported"),
    ],
)
def test_blocks_that_no_subnet_can_have(text: str, code: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        cidrs.check_subnet_block(text, "10.0.0.0/16")
    assert field_of(refused) == ("cidr", code)


def test_a_subnet_may_fill_its_vpc() -> None:
    assert str(cidrs.check_subnet_block("10.0.0.0/16", "10.0.0.0/16")) == "10.0.0.0/16"


@pytest.mark.parametrize(
    ("given", "planned"),
    [
        ({}, ("10.0.1.1", "10.0.1.2", "10.0.1.254")),
        ({"gateway": "10.0.1.254"}, ("10.0.1.254", "10.0.1.1", "10.0.1.253")),
        ({"gateway": "10.0.1.100"}, ("10.0.1.100", "10.0.1.101", "10.0.1.254")),
        ({"gateway": "10.0.1.100", "dhcp_last": "10.0.1.50"}, ("10.0.1.100", "10.0.1.1", "10.0.1.50")),
        ({"dhcp_first": "10.0.1.10", "dhcp_last": "10.0.1.10"}, ("10.0.1.1", "10.0.1.10", "10.0.1.10")),
        ({"dhcp_last": "10.0.1.99"}, ("10.0.1.1", "10.0.1.2", "10.0.1.99")),
    ],
)
def test_gateway_and_pool(given: dict[str, str], planned: tuple[str, str, str]) -> None:
    wanted: dict[str, str | None] = {"gateway": None, "dhcp_first": None, "dhcp_last": None, **given}
    plan = cidrs.plan_addresses(
        IPv4Network("10.0.1.0/24"),
        gateway=wanted["gateway"],
        dhcp_first=wanted["dhcp_first"],
        dhcp_last=wanted["dhcp_last"],
    )
    assert (plan.gateway, plan.dhcp_first, plan.dhcp_last) == planned


@pytest.mark.parametrize(
    ("given", "field", "code"),
    [
        ({"gateway": "10.0.2.1"}, "gateway", "outside"),
        ({"gateway": "10.0.1.0"}, "gateway", "reserved"),
        ({"gateway": "10.0.1.255"}, "gateway", "reserved"),
        ({"gateway": "fe80::1"}, "gateway", "not_supported"),
        ({"gateway": "router"}, "gateway", "invalid"),
        ({"dhcp_first": "10.0.1.0"}, "dhcp_first", "reserved"),
        ({"dhcp_last": "10.0.1.255"}, "dhcp_last", "reserved"),
        ({"dhcp_last": "10.0.2.7"}, "dhcp_last", "outside"),
        ({"dhcp_first": "10.0.1.1"}, "dhcp_first", "reserved"),
        ({"gateway": "10.0.1.9", "dhcp_first": "10.0.1.2", "dhcp_last": "10.0.1.20"}, "dhcp_last", "reserved"),
        ({"dhcp_first": "10.0.1.20", "dhcp_last": "10.0.1.10"}, "dhcp_last", "out_of_range"),
    ],
)
def test_gateways_and_pools_that_make_no_sense(given: dict[str, str], field: str, code: str) -> None:
    wanted: dict[str, str | None] = {"gateway": None, "dhcp_first": None, "dhcp_last": None, **given}
    with pytest.raises(InvalidInput) as refused:
        cidrs.plan_addresses(
            IPv4Network("10.0.1.0/24"),
            gateway=wanted["gateway"],
            dhcp_first=wanted["dhcp_first"],
            dhcp_last=wanted["dhcp_last"],
        )
    assert field_of(refused) == (field, code)


def test_mtu() -> None:
    assert [cidrs.check_mtu(mtu) for mtu in (None, 576, 9000)] == [1500, 576, 9000]
    for mtu in (0, 575, 9001):
        with pytest.raises(InvalidInput) as refused:
            cidrs.check_mtu(mtu)
        assert field_of(refused) == ("mtu", "out_of_range")


@pytest.mark.parametrize("text", ["0.0.0.0/0", "10.244.0.0/16", "10.0.9.0/24", "8.8.8.8/32", "192.0.0.0/2"])
def test_destinations(text: str) -> None:
    assert str(cidrs.check_destination(text, "destination")) == text


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("169.254.169.254/32", "reserved"),
        ("127.0.0.0/8", "reserved"),
        ("224.0.0.0/4", "reserved"),
        ("255.255.255.255/32", "reserved"),
        ("0.0.0.0/8", "reserved"),
        ("10.244.1.1/24", "host_bits"),
        ("::/0", "not_supported"),
    ],
)
def test_destinations_that_are_never_routed(text: str, code: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        cidrs.check_destination(text, "destination")
    assert field_of(refused) == ("destination", code)


def test_domains_are_in_lower_case_without_a_dot_at_the_end() -> None:
    assert dns_names.check_domain("Corp.Example.", "dns_domain") == "corp.example"


@pytest.mark.parametrize(
    "text", ["", ".", "a..b", "-a.b", "a-.b", "a_b.c", "a b", "x" * 64, "a." * 95 + "a", "ä.de", "a\n"]
)
def test_domains_that_are_none(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        dns_names.check_domain(text, "dns_domain")
    assert field_of(refused) == ("dns_domain", "invalid")


@pytest.mark.parametrize("text", ["web", "a.b", "other.example.", "x" * 63])
def test_names(text: str) -> None:
    assert dns_names.check_name(text, "internal", "name") == text


@pytest.mark.parametrize("text", ["", ".", "*", "*.web", "a..b", ".a", "_x", "x" * 64, "web\n", "a." * 125 + "a"])
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        dns_names.check_name(text, "internal", "name")
    assert field_of(refused) == ("name", "invalid")


@pytest.mark.parametrize(
    ("record_type", "values", "field", "code"),
    [
        ("A", [], "values", "required"),
        ("A", ["10.0.0.300"], "values.0", "invalid"),
        ("A", ["10.0.0.1", "fd00::1"], "values.1", "not_supported"),
        ("A", ["10.0.0.1", "10.0.0.1"], "values.1", "twice"),
        ("A", ["224.0.0.1"], "values.0", "reserved"),
        ("A", [f"10.0.0.{number}" for number in range(33)], "values", "too_many"),
        ("CNAME", ["a", "b"], "values", "too_many"),
        ("CNAME", ["a b"], "values.0", "invalid"),
        ("TXT", ["x" * 256], "values.0", "too_long"),
        ("TXT", ["ä" * 128], "values.0", "too_long"),
        ("TXT", ["a\nserver=10.0.0.1"], "values.0", "invalid"),
        ("TXT", [""], "values.0", "invalid"),
    ],
)
def test_values_that_no_record_has(record_type: str, values: list[str], field: str, code: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        dns_names.check_values(record_type, values, "internal")
    assert field_of(refused) == (field, code)


def test_texts_may_be_as_long_as_the_protocol_allows() -> None:
    assert dns_names.check_values("TXT", ["x" * 255, "k=v; w"], "internal") == ["x" * 255, "k=v; w"]


def test_types() -> None:
    assert dns_names.check_type("cname") == "CNAME"
    for text, code in (("AAAA", "not_supported"), ("MX", "invalid")):
        with pytest.raises(InvalidInput) as refused:
            dns_names.check_type(text)
        assert field_of(refused) == ("type", code)


def test_times_to_live() -> None:
    assert dns_names.check_ttl(1) == 1
    for ttl_s in (0, -1, 604_801):
        with pytest.raises(InvalidInput) as refused:
            dns_names.check_ttl(ttl_s)
        assert field_of(refused) == ("ttl_s", "out_of_range")
