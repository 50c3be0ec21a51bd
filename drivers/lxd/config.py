"""What we ask LXD for, out of a MachineSpec, and what LXD's answer means as a MachineState."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from iaas.drivers.interface import MachineKind, MachineSpec, MachineState, PermanentError, PowerState
from iaas.drivers.lxd.nics import nic_devices, nic_ids
from iaas.kernel.units import GIB, MIB

KEY_ID = "user.iaas.id"
KEY_TAG = "user.iaas.tag"
KEY_GENERATION = "user.iaas.generation"
KEY_HOST = "user.iaas.host"
KEY_COMPLETE = "user.iaas.complete"  # set last of all: an instance without it is half made

# An image says with this property which file of the guest exists once its boot is through; LXD copies
# the properties of an image into the instances made from it.
READY_FILE_PROPERTY = "iaas.ready_file"
KEY_READY_FILE = f"image.{READY_FILE_PROPERTY}"

SPARE_SUFFIX = "-new"  # the next generation of a machine, until it takes the name of the one before

# Source: RFC 1123, section 2.1; Linux, HOST_NAME_MAX. Checked here because it goes into a line of raw.lxc.
_HOSTNAME = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$")

_SIZE = re.compile(r"^(\d+)\s*([kMGT]i?B)?$")
_SIZE_UNITS = {
    None: 1,
    "kB": 1000,
    "KiB": 1024,
    "kiB": 1024,
    "MB": 1000**2,
    "MiB": MIB,
    "GB": 1000**3,
    "GiB": GIB,
    "TB": 1000**4,
    "TiB": 1024 * GIB,
}

# Source: LXD REST API, instance status strings.
_POWER = {
    "Stopped": PowerState.STOPPED,
    "Starting": PowerState.STARTING,
    "Running": PowerState.RUNNING,
    "Thawed": PowerState.RUNNING,
    "Stopping": PowerState.STOPPING,
    "Aborting": PowerState.STOPPING,
    "Freezing": PowerState.SUSPENDED,
    "Frozen": PowerState.SUSPENDED,
    "Error": PowerState.CRASHED,
}


def spare_name(name: str) -> str:
    """Return the name under which the next generation of ``name`` is made."""
    return name + SPARE_SUFFIX


def instance_request(
    spec: MachineSpec,
    *,
    tag: str,
    instance_name: str,
    image_alias: str,
    pool: str,
    has_quota: bool,
    bridge_name: Callable[[str], str],
) -> dict[str, Any]:
    """Return the body of ``POST /1.0/instances`` for ``spec``.

    Raises:
        PermanentError: the host name is none.
        NoCapacityError: a machine has no room for so many NICs.
    """
    root = {"type": "disk", "path": "/", "pool": pool}
    if has_quota:
        root["size"] = f"{spec.root_disk_gib}GiB"
    return {
        "name": instance_name,
        "type": "container",
        # No profile: what the operator put into "default" (a network, another pool) is not for our machines.
        "profiles": [],
        "source": {"type": "image", "alias": image_alias},
        "config": {
            KEY_ID: spec.machine_id,
            KEY_TAG: tag,
            KEY_GENERATION: str(spec.generation),
            **({} if spec.host_id is None else {KEY_HOST: spec.host_id}),
            "boot.autostart": "false",  # the cloud decides what runs, also after a restart of the host
            "security.nesting": _flag(spec.nesting),
            "security.privileged": _flag(spec.privileged),
            # LXD would call the guest by the instance's name, which the tenant never sees.
            "raw.lxc": f"lxc.uts.name = {check_hostname(spec.hostname)}",
            **shape_config(vcpus=spec.vcpus, memory_mib=spec.memory_mib),
        },
        "devices": {"root": root, **nic_devices(spec.nics, tag=tag, bridge_name=bridge_name)},
    }


def shape_config(*, vcpus: int, memory_mib: int) -> dict[str, str]:
    """Return the limits of a machine; LXD gives all processors where ``vcpus`` is more than there are."""
    return {"limits.cpu": str(vcpus), "limits.memory": f"{memory_mib}MiB"}


def check_hostname(hostname: str) -> str:
    """Return ``hostname`` when it is one.

    Raises:
        PermanentError: it is not.
    """
    if not _HOSTNAME.match(hostname):
        raise PermanentError(f"{hostname!r} is no host name")
    return hostname


def machine_state(instance: Mapping[str, Any], *, is_stopping: bool = False) -> MachineState:
    """Return LXD's ``instance`` as a state. ``is_stopping``: its guest was asked to stop and has not yet."""
    config = instance["config"]
    power = _POWER.get(str(instance["status"]), PowerState.CRASHED)
    if power is PowerState.RUNNING and is_stopping:
        power = PowerState.STOPPING
    return MachineState(
        machine_id=str(config[KEY_ID]),
        kind=MachineKind.CONTAINER if instance["type"] == "container" else MachineKind.VM,
        power=power,
        vcpus=int(config["limits.cpu"]) if str(config.get("limits.cpu", "")).isdigit() else 0,
        memory_mib=size_bytes(str(config.get("limits.memory", "0"))) // MIB,
        generation=generation(instance),
        host_id=config.get(KEY_HOST),
        nic_ids=nic_ids(instance["devices"]),
    )


def generation(instance: Mapping[str, Any]) -> int:
    """Return which root disk ``instance`` has."""
    return int(instance["config"].get(KEY_GENERATION, "0"))


def is_complete(instance: Mapping[str, Any]) -> bool:
    """Return whether the making of ``instance`` came to its end."""
    return bool(instance["config"].get(KEY_COMPLETE) == "true")


def size_bytes(text: str) -> int:
    """Return LXD's size ``text`` ("128MiB") in bytes; 0 for what is not an absolute size."""
    match = _SIZE.match(text.strip())
    return int(match[1]) * _SIZE_UNITS.get(match[2], 0) if match else 0


def _flag(value: bool) -> str:
    return "true" if value else "false"
