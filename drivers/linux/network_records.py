"""What was asked of the network driver, in files: a restart knows it, and lost links are made again from it.

``vpcs/<vpc id>/vpc.json`` beside its DHCP server's files, ``subnets/<subnet id>/subnet.json`` and ``ports.json``.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterable
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

from iaas.drivers.interface import (
    AllowedPair,
    DNSRecordSpec,
    ForwarderSpec,
    PortSpec,
    ReservationSpec,
    RouteSpec,
    SubnetSpec,
    VPCSpec,
)
from iaas.drivers.linux.records import ensure_folder, read_record, write_text_atomically


class NetworkRecords:
    """The specs that are in force. Locks are the caller's.

    Args:
        folder: where they are; made when the first one is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers_path = folder / "numbers.json"
        self._numbers_lock = threading.Lock()
        self._read: dict[Path, tuple[tuple[int, int], Any]] = {}

    def vpc_folder(self, vpc_id: str) -> Path:
        """Return the VPC's folder; others may search it, for its DHCP server is one of them."""
        return self._folder / "vpcs" / vpc_id

    def vpc_ids(self) -> list[str]:
        return _names(self._folder / "vpcs", "vpc.json")

    def subnet_ids(self) -> list[str]:
        return _names(self._folder / "subnets", "subnet.json")

    def vpc(self, vpc_id: str) -> VPCSpec | None:
        spec: VPCSpec | None = self._cached(self.vpc_folder(vpc_id) / "vpc.json", _vpc)
        return spec

    def subnet(self, subnet_id: str) -> SubnetSpec | None:
        spec: SubnetSpec | None = self._cached(self._subnet_folder(subnet_id) / "subnet.json", _subnet)
        return spec

    def subnets_of(self, vpc_id: str) -> list[SubnetSpec]:
        """Return the VPC's subnets in the order of their ids."""
        found = (self.subnet(subnet_id) for subnet_id in self.subnet_ids())
        return [spec for spec in found if spec is not None and spec.vpc_id == vpc_id]

    def ports(self, subnet_id: str) -> dict[str, PortSpec]:
        """Return a copy of the subnet's ports by NIC id; empty when it is absent."""
        ports: dict[str, PortSpec] | None = self._cached(self._subnet_folder(subnet_id) / "ports.json", _ports)
        return dict(ports or {})

    def write_vpc(self, spec: VPCSpec) -> None:
        ensure_folder(self.vpc_folder(spec.vpc_id), mode=0o755)
        self._write(self.vpc_folder(spec.vpc_id) / "vpc.json", asdict(spec))

    def write_subnet(self, spec: SubnetSpec) -> None:
        ensure_folder(self._subnet_folder(spec.subnet_id), mode=0o755)
        self._write(self._subnet_folder(spec.subnet_id) / "subnet.json", asdict(spec))

    def write_ports(self, subnet_id: str, ports: Iterable[PortSpec]) -> None:
        self._write(self._subnet_folder(subnet_id) / "ports.json", {port.nic_id: asdict(port) for port in ports})

    def number_of(self, subnet_id: str, owner: str) -> int:
        """Return a number above 0 that stands for an owner on a subnet for as long as the subnet is known."""
        key = f"{subnet_id} {owner}"
        with self._numbers_lock:
            numbers: dict[str, int] = dict(self._cached(self._numbers_path, dict) or {})
            if key not in numbers:
                numbers[key] = next(number for number in count(1) if number not in numbers.values())
                self._write(self._numbers_path, numbers)
            return numbers[key]

    def forget_vpc(self, vpc_id: str) -> None:
        self._forget(self.vpc_folder(vpc_id))

    def forget_subnet(self, subnet_id: str) -> None:
        self._forget(self._subnet_folder(subnet_id))
        with self._numbers_lock:
            numbers: dict[str, int] = self._cached(self._numbers_path, dict) or {}
            kept = {key: number for key, number in numbers.items() if key.split()[0] != subnet_id}
            if kept != numbers:
                self._write(self._numbers_path, kept)

    def _subnet_folder(self, subnet_id: str) -> Path:
        return self._folder / "subnets" / subnet_id

    def _cached(self, path: Path, parse: Any) -> Any:
        try:
            found = path.stat()
        except FileNotFoundError:
            return None
        stamp = (found.st_ino, found.st_mtime_ns)  # each writing makes a new file
        known = self._read.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        record = read_record(path)
        if record is None:
            return None
        parsed = parse(record)
        self._read[path] = (stamp, parsed)
        return parsed

    def _write(self, path: Path, record: dict[str, Any]) -> None:
        write_text_atomically(path, json.dumps(record) + "\n")

    def _forget(self, folder: Path) -> None:
        for path in [path for path in list(self._read) if folder in path.parents]:
            self._read.pop(path, None)
        if folder.exists():
            shutil.rmtree(folder)


def _names(folder: Path, record: str) -> list[str]:
    entries = folder.iterdir() if folder.is_dir() else ()
    return sorted(entry.name for entry in entries if (entry / record).exists())


def _vpc(record: dict[str, Any]) -> VPCSpec:
    return VPCSpec(
        **record
        | {
            "dns_servers": tuple(record["dns_servers"]),
            "ntp_servers": tuple(record["ntp_servers"]),
            "records": tuple(DNSRecordSpec(**each | {"values": tuple(each["values"])}) for each in record["records"]),
            "forwarders": tuple(
                ForwarderSpec(**each | {"servers": tuple(each["servers"])}) for each in record["forwarders"]
            ),
            "routes": tuple(RouteSpec(**each) for each in record["routes"]),
        }
    )


def _subnet(record: dict[str, Any]) -> SubnetSpec:
    return SubnetSpec(**record | {"reservations": tuple(ReservationSpec(**each) for each in record["reservations"])})


def _ports(record: dict[str, Any]) -> dict[str, PortSpec]:
    return {
        nic_id: PortSpec(
            **port
            | {
                "addresses": tuple(port["addresses"]),
                "names": tuple(port["names"]),
                "allowed_pairs": tuple(AllowedPair(**each) for each in port["allowed_pairs"]),
            }
        )
        for nic_id, port in record.items()
    }
