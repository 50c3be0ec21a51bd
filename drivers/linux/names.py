"""Names of everything real: a kind letter pair, the deployment's tag, the suffix of our id.

At most 15 characters for links (the kernel's IFNAMSIZ less the NUL). Clean-up touches only names that
carry its own deployment's tag; anything else on the machine belongs to somebody else.
"""

from __future__ import annotations

import re

from iaas.kernel.ids import suffix

TAG_PATTERN = re.compile(r"^[a-z0-9]{4}$")

BRIDGE = "vx"
TAP = "tp"  # a VM's end of a NIC; libvirt throws away names that begin with "vnet"
CONTAINER_VETH = "ct"
ROUTER_VETH = "rt"


def check_tag(tag: str) -> str:
    """Return ``tag`` when it is four of ``[a-z0-9]``.

    Raises:
        ValueError: it is not.
    """
    if not TAG_PATTERN.match(tag):
        raise ValueError(f"a deployment tag is four of [a-z0-9], not {tag!r}")
    return tag


def bridge(tag: str, network_id: str) -> str:
    """Return the name of a network's bridge."""
    return f"{BRIDGE}{tag}{suffix(network_id)}"


def tap(tag: str, nic_id: str) -> str:
    """Return the name of a VM NIC's host end."""
    return f"{TAP}{tag}{suffix(nic_id)}"


def container_veth(tag: str, nic_id: str) -> str:
    """Return the name of a container NIC's host end."""
    return f"{CONTAINER_VETH}{tag}{suffix(nic_id)}"


def router_veth(tag: str, network_id: str) -> str:
    """Return the name of a router leg's end at the bridge."""
    return f"{ROUTER_VETH}{tag}{suffix(network_id)}"


def fabric_namespace(tag: str) -> str:
    """Return the network namespace that holds all links of a deployment."""
    return f"iaas-{tag}"


def router_namespace(tag: str, network_id: str) -> str:
    """Return the network namespace of a network's router."""
    return f"iaas-{tag}-{suffix(network_id)}"


def machine(tag: str, machine_id: str) -> str:
    """Return the name of a libvirt domain or LXD instance (a valid host name)."""
    return f"iaas-{tag}-{suffix(machine_id)}"


def machine_suffix(tag: str, name: str) -> str | None:
    """Return the id suffix in a name made by :func:`machine`, None for names of others."""
    prefix = f"iaas-{tag}-"
    return name[len(prefix) :] if name.startswith(prefix) and len(name) == len(prefix) + 8 else None
