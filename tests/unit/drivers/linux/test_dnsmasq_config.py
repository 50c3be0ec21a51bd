"""No spec that is accepted can put a line of its own into dnsmasq's files."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from iaas.drivers.interface import DNSRecordSpec, ForwarderSpec, PermanentError, PortSpec, SubnetSpec, VPCSpec
from iaas.drivers.linux import dnsmasq_config
from iaas.drivers.linux.spec_checks import check_port, check_vpc

SUBNET = SubnetSpec(subnet_id="net-aaaaaaaa", vpc_id="vpc-aaaaaaaa", cidr="10.0.1.0/24", gateway="10.0.1.1")
FOLDER = Path("/nowhere")
LONGEST_LINE_BYTES = 1024  # dnsmasq reads so much at once; the rest would be a line of its own. Source: its config.h
# Harmless texts, harmful ones, and anything in between.
TEXTS = st.one_of(
    st.from_regex(r"[a-z0-9._-]{1,70}", fullmatch=True),
    st.sampled_from(["a\nserver=192.0.2.1", "a,b", "a/192.0.2.1", "#", "a b", "x" * 300, "10.0.1.9", "é", ""]),
    st.text(max_size=20),
)


def keywords(spec: VPCSpec) -> list[str]:
    text = dnsmasq_config.config(FOLDER, spec, [SUBNET])
    lines = text.removesuffix("\n").split("\n")
    assert all(len(line.encode()) < LONGEST_LINE_BYTES for line in lines)
    return [line.partition("=")[0] for line in lines]


@given(name=TEXTS, value=TEXTS, domain=TEXTS, kind=st.sampled_from(["A", "CNAME", "TXT", "MX"]))
def test_records_and_domains_stay_what_they_are(name: str, value: str, domain: str, kind: str) -> None:
    plain = keywords(VPCSpec(vpc_id="vpc-aaaaaaaa", cidr="10.0.0.0/16"))
    spec = VPCSpec(
        vpc_id="vpc-aaaaaaaa",
        cidr="10.0.0.0/16",
        dns_domain=domain,
        records=(DNSRecordSpec(name=name, type=kind, values=(value,)),),
        forwarders=(ForwarderSpec(domain="cluster.test", servers=("10.0.1.53",)),),
    )
    try:
        check_vpc(spec)
    except PermanentError:
        return
    record = {"A": "host-record", "CNAME": "cname", "TXT": "dns-rr"}[kind]
    local = ["local"] if domain == "cluster.test" else []
    assert sorted([*keywords(spec), *local]) == sorted([*plain, record, "server"])


@given(texts=st.lists(TEXTS, max_size=3))
def test_names_stay_names(texts: list[str]) -> None:
    port = PortSpec(
        nic_id="nic-aaaaaaaa",
        subnet_id=SUBNET.subnet_id,
        mac="52:54:00:00:00:01",
        owner="proj-a",
        addresses=("10.0.1.9",),
        names=tuple(texts),
    )
    try:
        check_port(port, SUBNET, [])
    except PermanentError:
        return
    assert dnsmasq_config.leases([port]).rstrip("\n").split(",") == [port.mac, "10.0.1.9", *texts[:1]]
    expected = [["10.0.1.9", f"{name}.internal", name] for name in texts]
    assert [line.split() for line in dnsmasq_config.hosts("internal", [port]).splitlines()] == expected


def test_txt_values_are_written_as_bytes() -> None:
    record = DNSRecordSpec(name="t.example.test", type="TXT", values=("ab", ""))
    text = dnsmasq_config.config(
        FOLDER, VPCSpec(vpc_id="vpc-aaaaaaaa", cidr="10.0.0.0/16", records=(record,)), [SUBNET]
    )
    assert "dns-rr=t.example.test,16,026162\n" in text
    assert "dns-rr=t.example.test,16,00\n" in text
