from __future__ import annotations

from pathlib import Path

import pytest

from iaas.api.hosts_file import read_hosts
from iaas.api.state import StartError
from iaas.drivers.interface import HostReport

ZONES = ("zone-1", "zone-2")
GOOD = 'name = "one"\nvcpus = 4\nmemory_mib = 1024\ndisk_gib = 10\n'


def test_hosts_are_read(tmp_path: Path) -> None:
    path = tmp_path / "hosts.toml"
    path.write_text(
        f'[[hosts]]\n{GOOD}\n[[hosts]]\n{GOOD.replace("one", "two")}zone = "zone-2"\nvcpu_overcommit = 2.5\n'
    )
    assert read_hosts(path, ZONES) == (
        HostReport(name="one", zone="zone-1", vcpus=4, memory_mib=1024, disk_gib=10),
        HostReport(name="two", zone="zone-2", vcpus=4, memory_mib=1024, disk_gib=10, vcpu_overcommit=2.5),
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "nothing else"),
        ("hosts = []", "nothing else"),
        ("hosts = [1]", "not a table"),
        (f"[[hosts]]\n{GOOD}\n[more]\n", "nothing else"),
        ("[[hosts", "not TOML"),
        (f"[[hosts]]\n{GOOD}colour = 1\n", "colour"),
        (f"[[hosts]]\n{GOOD}zone = 'zone-9'\n", "zone-9"),
        (f"[[hosts]]\n{GOOD}[[hosts]]\n{GOOD}", "same name"),
        (f"[[hosts]]\n{GOOD.replace('vcpus = 4', 'vcpus = 0')}", "vcpus"),
        (f"[[hosts]]\n{GOOD.replace('vcpus = 4', 'vcpus = true')}", "vcpus"),
        (f"[[hosts]]\n{GOOD.replace('1024', '1.5')}", "memory_mib"),
        (f"[[hosts]]\n{GOOD}disk_overcommit = 0\n", "disk_overcommit"),
        (f"[[hosts]]\n{GOOD}disk_overcommit = nan\n", "disk_overcommit"),
        (f"[[hosts]]\n{GOOD.replace('one', '')}", "name"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "hosts.toml"
    path.write_text(text)
    with pytest.raises(StartError, match=told) as caught:
        read_hosts(path, ZONES)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot be read"):
        read_hosts(tmp_path / "none", ZONES)
