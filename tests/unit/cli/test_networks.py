"""``iaas vpc | subnet | nic | reservation | reachability`` against the real application; and the guide's own lines."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from iaas.cli.commands.nics import parse_nic
from iaas.cli.main import main
from iaas.cli.plugins import Plugins
from iaas.cli.session import Session
from iaas.client import AllowedPair, NICSpec
from tests.factories import TOKEN, assert_consistent, open_cloud
from tests.unit.cli.conftest import Result
from tests.unit.client.fake_cloud import ENDPOINT
from tests.unit.client.simulated import SimulatedNetwork

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "networks.md"

Line = Callable[[str], Result]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Iterator[Line]:
    """Run one command line (without ``iaas``) against a simulated cloud, which is consistent at the end."""
    with open_cloud() as cloud:
        network = SimulatedNetwork(cloud)

        def run_line(line: str) -> Result:
            session = Session(endpoint=ENDPOINT, token=TOKEN, http=network)
            with capture_logs():  # the server's, which runs in this process here
                status = main(shlex.split(line), session=session, plugins=Plugins([]))
            captured = capfd.readouterr()
            return Result(int(status), captured.out, captured.err)

        yield run_line
        assert_consistent(cloud)


@pytest.fixture
def ok(run: Line) -> Callable[[str], Any]:
    """Run a line that must succeed and return what it says, as JSON."""

    def run_well(line: str) -> Any:
        result = run(f"{line} -o json")
        assert result.status == 0, (line, result.err)
        return json.loads(result.out) if result.out else None

    return run_well


def test_the_guides_ten_lines(run: Line) -> None:
    block = re.search(r"```sh\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    lines = [line.partition(" #")[0].strip() for line in block[1].splitlines()]
    assert len(lines) == 10
    for line in lines:
        program, _, words = line.partition(" ")
        assert program == "iaas"
        if words.startswith("forward "):  # it stays until Ctrl-C
            continue
        result = run(words)
        assert result.status == 0, (line, result.err)


def test_a_vpc_and_its_entries(ok: Callable[[str], Any], run: Line) -> None:
    made = ok(
        "vpc create shop --cidr 10.0.0.0/16 --domain shop.example --dns-server 10.0.1.9 --forward x.y=10.0.1.8 --wait"
    )
    assert (made["vpc"]["status"], made["job"]["status"]) == ("active", "succeeded")
    assert made["vpc"]["forwarders"] == [{"domain": "x.y", "servers": ["10.0.1.8"]}]
    changed = ok("vpc update shop --lease 600 --ntp-server 10.0.1.7 --forward '' --label a=b --wait")
    assert changed["vpc"]["dhcp_options"] == {"dns_servers": ["10.0.1.9"], "ntp_servers": ["10.0.1.7"], "lease_s": 600}
    assert (changed["vpc"]["forwarders"], changed["vpc"]["labels"]) == ([], {"a": "b"})
    assert ok("vpc update shop --dns-server '' --wait")["vpc"]["dhcp_options"]["dns_servers"] == []
    assert ok("vpc update shop --name mall")["name"] == "mall"
    ok("subnet create web --vpc mall --cidr 10.0.1.0/24 --wait")

    route = ok("vpc route add mall 10.244.0.0/24 --address 10.0.1.10 --wait")["route"]
    ok("vpc route add mall 10.245.0.0/24 --address 10.0.1.10 --wait")
    assert "10.244.0.0/24" in run("vpc route list mall").out
    assert run("vpc route delete mall 10.9.0.0/16").status == 3
    ok(f"vpc route delete mall {route['id']} 10.245.0.0/24 --wait")
    assert ok("vpc route list mall")["items"] == []

    record = ok("vpc record add mall db 10.0.1.5 10.0.1.6 --ttl 5 --wait")["dns_record"]
    assert "10.0.1.5, 10.0.1.6" in run("vpc record list mall").out
    assert ok("vpc record add mall note hello --type TXT")["dns_record"]["type"] == "TXT"
    ok(f"vpc record delete mall {record['id']} --wait")
    assert [each["name"] for each in ok("vpc record list mall")["items"]] == ["note"]

    assert run("vpc delete mall").status == 4
    ok("subnet delete web --wait")
    ok("vpc delete mall --wait")
    assert run("vpc get mall").status == 3


def test_subnets(ok: Callable[[str], Any], run: Line) -> None:
    ok("vpc create shop --cidr 10.0.0.0/16 --wait")
    assert ok("subnet create web --zone zone-2 --mtu 1400 --wait")["subnet"]["vpc_id"] is None
    joined = ok("subnet join web --vpc shop --cidr 10.0.1.0/24 --gateway 10.0.1.254 --wait")["subnet"]
    assert (joined["gateway"], joined["zone"]) == ("10.0.1.254", "zone-2")
    assert ok("subnet update web --dhcp-first 10.0.1.100 --wait")["dhcp_first"] == "10.0.1.100"
    assert "web" in run("subnet list --vpc shop --zone zone-2").out
    ok("nic create n --subnet web")
    assert run("subnet leave web").status == 4
    assert ok("subnet leave web --force --wait")["subnet"]["cidr"] is None


def test_nics(ok: Callable[[str], Any], run: Line) -> None:
    ok("vpc create shop --cidr 10.0.0.0/16 --wait")
    ok("subnet create web --vpc shop --cidr 10.0.1.0/24 --wait")
    nic = ok(
        "nic create spare --subnet web --address 10.0.1.20 --secondary 10.0.1.21 --allow 10.244.0.0/24 --label a=b"
    )
    assert (nic["address"], nic["secondary_addresses"], nic["labels"]) == ("10.0.1.20", ["10.0.1.21"], {"a": "b"})
    wishes = "--nic subnet=web,address=10.0.1.10,name=eth --nic address=none"
    made = ok(f"instance create --kind vm --image tiny --name web-1 {wishes} --metadata-labels --wait")["instance"]
    assert [each["address"] for each in made["nics"]] == ["10.0.1.10", None]
    assert made["metadata_labels"] is True
    attached = ok("nic attach spare web-1 --wait")["nic"]
    assert (attached["status"], attached["device_index"]) == ("in_use", 2)
    assert ok("nic stats spare").keys() == ok("nic stats eth").keys()
    assert "sent_packets" in run("nic stats spare").out
    changed = ok("nic update spare --secondary '' --allow 10.1.0.0/24,52:54:00:00:00:09 --wait")["nic"]
    assert changed["secondary_addresses"] == []
    assert changed["allowed_pairs"] == [{"cidr": "10.1.0.0/24", "mac": "52:54:00:00:00:09"}]
    assert {each["name"] for each in ok("nic list --subnet web")["items"]} == {"spare", "eth"}
    assert len(ok("nic list --instance web-1")["items"]) == 3
    assert run("nic delete spare").status == 4
    assert ok("nic detach spare --wait")["nic"]["instance_id"] is None
    assert run("nic delete spare").status == 0
    assert run("nic stats spare").status == 3


def test_nics_of_new_instances(ok: Callable[[str], Any]) -> None:
    ok("vpc create shop --cidr 10.0.0.0/16 --wait")
    for name, cidr in (("web", "10.0.1.0/24"), ("db", "10.0.2.0/24")):
        ok(f"subnet create {name} --vpc shop --cidr {cidr} --wait")
    create = "instance create --kind vm --image tiny --wait"
    both = ok(f"{create} --subnet web --subnet db")["instance"]["nics"]
    assert [each["address"].rpartition(".")[0] for each in both] == ["10.0.1", "10.0.2"]
    assert ok(f"{create} --no-nic")["instance"]["nics"] == []
    assert len(ok(create)["instance"]["nics"]) == 1
    many = ok(f"{create} --count 3 --name n --subnet web")["instances"]
    assert len({each["address"] for each in many}) == 3


@pytest.mark.parametrize(
    "words",
    [
        *("--subnet web --nic subnet=db", "--no-nic --subnet web", "--nic web", "--nic subnet=", "--nic colour=red"),
        *("--nic subnet=a,subnet=b", "--nic ''"),
    ],
)
def test_nics_that_cannot_be_understood(run: Line, words: str) -> None:
    result = run(f"instance create --kind vm --image tiny {words}")
    assert (result.status, result.out) == (2, "")


def test_a_nic_in_words() -> None:
    assert parse_nic("subnet=web,address=none,mac=52:54:00:00:00:01,secondary=10.0.1.2,secondary=10.0.1.3") == NICSpec(
        subnet="web", address="none", mac="52:54:00:00:00:01", secondary_addresses=("10.0.1.2", "10.0.1.3")
    )
    assert parse_nic("nic=spare") == NICSpec(nic="spare")
    assert parse_nic("allow=10.1.0.0/24").allowed_pairs == (AllowedPair(cidr="10.1.0.0/24"),)


def test_reservations(ok: Callable[[str], Any], run: Line) -> None:
    ok("vpc create shop --cidr 10.0.0.0/16 --wait")
    ok("subnet create web --vpc shop --cidr 10.0.1.0/24 --wait")
    assert (
        ok("reservation create vip --subnet web --address 10.0.1.50 --wait")["address_reservation"]["last"]
        == "10.0.1.50"
    )
    made = ok("reservation create pods --subnet web --first 10.0.1.60 --last 10.0.1.69")["address_reservation"]
    assert (made["first"], made["last"]) == ("10.0.1.60", "10.0.1.69")
    assert run("reservation create --subnet web --address 10.0.1.65").status == 4
    assert ok("reservation create --subnet web --count 3")["address_reservation"]["name"].startswith("rsv-")
    assert ok("reservation update pods --name p --label a=b")["name"] == "p"
    assert "10.0.1.69" in run("reservation list --subnet web --label a=b").out
    ok("reservation delete vip p --wait")
    assert run("reservation get vip").status == 3


def test_reachability_in_words_and_as_a_status(ok: Callable[[str], Any], run: Line) -> None:
    ok("vpc create shop --cidr 10.0.0.0/16 --wait")
    for name, cidr in (("web", "10.0.1.0/24"), ("db", "10.0.2.0/24")):
        ok(f"subnet create {name} --vpc shop --cidr {cidr} --wait")
        ok(f"instance create --kind vm --image tiny --name {name}-1 --nic subnet={name},name={name}-nic --wait")
    well = run("reachability web-1 db-nic --port 5432")
    assert well.status == 0
    assert well.out.startswith("reachable (delivered): ")
    assert "WAY" in well.out
    assert ok("reachability web-1 db-1")["reachable"] is True
    badly = run("reachability web-1 shop/10.0.2.99 --port 80")
    assert (badly.status, badly.out.partition(" (")[0]) == (1, "not reachable")
    assert run("reachability web-1 nobody").status == 3
    assert run("reachability web-1 shop/banana").status == 1
