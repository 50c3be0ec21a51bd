"""The NICs among an LXD instance's devices: written, read back, changed.

A NIC is known by the host's end of its link (``host_name``), which holds its id; device and interface are both
called eth<device index>. LXD is left out of all filtering (no ``security.*_filtering``): what a port may send is
the network driver's affair, for both kinds of machine alike.
Source: LXD documentation, "Type: nic", bridged.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from iaas.drivers.interface import NICSpec, NoCapacityError, PermanentError
from iaas.drivers.interface.compute import NICS_PER_MACHINE
from iaas.drivers.linux import names
from iaas.kernel import ids

Device = Mapping[str, str]

NAME_PREFIX = "eth"
# Means nothing to a container, and LXD cannot change it in place: it takes the device out and puts it in again.
REPLUG_KEY = "boot.priority"
REPLUGGED = "1"


def nic_device(nic: NICSpec, *, tag: str, bridge_name: Callable[[str], str]) -> tuple[str, dict[str, str]]:
    """Return the name and the content of the device for ``nic``."""
    name = f"{NAME_PREFIX}{nic.device_index}"
    return name, {
        "type": "nic",
        "nictype": "bridged",
        "parent": bridge_name(nic.subnet_id),
        "name": name,
        "hwaddr": nic.mac,
        "host_name": names.container_veth(tag, nic.nic_id),
        "mtu": str(nic.mtu),
    }


def nic_devices(
    specs: Collection[NICSpec], *, tag: str, bridge_name: Callable[[str], str]
) -> dict[str, dict[str, str]]:
    """Return the devices for all NICs of a new machine.

    Raises:
        NoCapacityError: they are too many.
    """
    check_count(len(specs))
    return dict(nic_device(nic, tag=tag, bridge_name=bridge_name) for nic in specs)


def check_count(count: int) -> None:
    """Return when a machine can have ``count`` NICs.

    Raises:
        NoCapacityError: those are too many.
    """
    if count > NICS_PER_MACHINE:
        raise NoCapacityError(f"a machine has room for {NICS_PER_MACHINE} NICs")


def present_nics(devices: Mapping[str, Device]) -> dict[str, str]:
    """Return the names of the NICs among ``devices`` by the host's link, in the order of their device indexes."""
    found = {device["host_name"]: name for name, device in devices.items() if device.get("host_name")}
    return dict(sorted(found.items(), key=lambda item: _index(item[1])))


def nic_ids(devices: Mapping[str, Device]) -> tuple[str, ...]:
    """Return the ids of the NICs among ``devices``, in the order of their device indexes."""
    return tuple(f"{ids.NIC}-{link[-ids.SUFFIX_LENGTH :]}" for link in present_nics(devices))


def _index(name: str) -> int:
    number = name.removeprefix(NAME_PREFIX)
    return int(number) if number.isdigit() else NICS_PER_MACHINE


def device_to_add(devices: Mapping[str, Device], name: str, wanted: Device) -> Mapping[str, Device]:
    """Return what has to be put into ``devices`` for the NIC ``wanted`` under ``name``: nothing if it is there.

    Raises:
        PermanentError: another NIC has the device index, or this one is there with another MAC or index.
        NoCapacityError: the machine has no room for another NIC.
    """
    present = present_nics(devices)
    same = present.get(wanted["host_name"])
    if same is not None:
        if same != name or devices[same].get("hwaddr") != wanted["hwaddr"]:
            raise PermanentError("the machine has this NIC with another MAC or device index")
        return {}
    if name in devices:
        raise PermanentError(f"another NIC of the machine has the device index {_index(name)}")
    check_count(len(present) + 1)
    return {name: wanted}


def replugged(device: Device) -> dict[str, str]:
    """Return ``device`` in the form that LXD takes for another one, hence plugs anew."""
    changed = dict(device)
    if changed.pop(REPLUG_KEY, None) is None:
        changed[REPLUG_KEY] = REPLUGGED
    return changed


def devices_with_macs(instance: Mapping[str, Any], macs: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the devices of ``instance`` that would change if its NICs had these MACs, by the host's link.

    Raises:
        PermanentError: it has no NIC with such a link.
    """
    devices: Mapping[str, Device] = instance["devices"]
    present = present_nics(devices)
    if missing := macs.keys() - present.keys():
        raise PermanentError(f"the machine has no NIC {', '.join(sorted(missing))}")
    changed = {}
    for link, mac in macs.items():
        device = devices[present[link]]
        if device.get("hwaddr") != mac:
            changed[present[link]] = {**device, "hwaddr": mac}
    return changed
