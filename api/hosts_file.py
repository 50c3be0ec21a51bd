"""Simulated hosts as declared in a TOML file: one ``[[hosts]]`` table each."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iaas.api.state import StartError
from iaas.drivers.interface import HostReport

_SIZES = ("vcpus", "memory_mib", "disk_gib")
_RATIOS = ("vcpu_overcommit", "memory_overcommit", "disk_overcommit")
_MOST = 2**31 - 1


def read_hosts(path: Path, zones: Sequence[str]) -> tuple[HostReport, ...]:
    """Return the hosts that the file declares.

    Raises:
        StartError: the file cannot be read, or says something else; the message names file and host.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"the hosts file {path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise StartError(f"the hosts file {path} is not TOML: {error}") from error
    tables = document.pop("hosts", None)
    if document or not isinstance(tables, list) or not tables:
        raise StartError(f"the hosts file {path} must hold [[hosts]] tables and nothing else")
    hosts = tuple(_host(table, f"{path}: host {number}", zones) for number, table in enumerate(tables, start=1))
    if len({host.name for host in hosts}) != len(hosts):
        raise StartError(f"{path}: two hosts have the same name")
    return hosts


def _host(table: Any, place: str, zones: Sequence[str]) -> HostReport:
    if not isinstance(table, dict):
        raise StartError(f"{place} is not a table")
    unknown = sorted(table.keys() - {"name", "zone", *_SIZES, *_RATIOS})
    if unknown:
        raise StartError(f"{place}: {unknown[0]} is not known; there are name, zone, {', '.join(_SIZES + _RATIOS)}")
    name, zone = table.get("name"), table.get("zone", zones[0])
    if not isinstance(name, str) or not 1 <= len(name) <= 128 or not name.isprintable():
        raise StartError(f"{place}: name must be 1 to 128 printable characters")
    if zone not in zones:
        raise StartError(f"{place} ({name}): there is no zone {zone}; there are {', '.join(zones)} (--zones)")
    sizes: dict[str, int] = {}
    for key in _SIZES:
        value = table.get(key)
        if type(value) is not int or not 0 < value <= _MOST:
            raise StartError(f"{place} ({name}): {key} must be a whole number above 0")
        sizes[key] = value
    ratios: dict[str, float] = {}
    for key in _RATIOS:
        ratio = table.get(key, 1)
        if type(ratio) not in (int, float) or not 0 < ratio <= 1000:
            raise StartError(f"{place} ({name}): {key} must be a number above 0 and at most 1000")
        ratios[key] = float(ratio)
    return HostReport(
        name=name,
        zone=zone,
        vcpus=sizes["vcpus"],
        memory_mib=sizes["memory_mib"],
        disk_gib=sizes["disk_gib"],
        vcpu_overcommit=ratios["vcpu_overcommit"],
        memory_overcommit=ratios["memory_overcommit"],
        disk_overcommit=ratios["disk_overcommit"],
    )
