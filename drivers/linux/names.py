"""Names of everything real: a kind letter pair, the deployment's tag, the suffix of our id.

At most 15 characters for links (the kernel's IFNAMSIZ less the NUL). Clean-up touches only names that
carry its own deployment's tag; anything else on the machine belongs to somebody else.
"""

from __future__ import annotations

import re

from iaas.kernel.ids import SUFFIX_LENGTH, suffix

TAG_PATTERN = re.compile(r"^[a-z0-9]{4}$")

BRIDGE = "vx"
TAP = "tp"  # a VM's end of a NIC; libvirt throws away names that begin with "vnet"
CONTAINER_VETH = "ct"
ROUTER_VETH = "rt"
PROBE_INNER = "pi"
PROBE_OUTER = "po"
ROUTER_END = "gw"  # the other end of a router leg; it is alone in the router's namespace and needs no tag


def check_tag(tag: str) -> str:
    """Return ``tag`` when it is four of ``[a-z0-9]``.

    Raises:
        ValueError: it is not.
    """
    if not TAG_PATTERN.match(tag):
        raise ValueError(f"a deployment tag is four of [a-z0-9], not {tag!r}")
    return tag


def bridge(tag: str, subnet_id: str) -> str:
    """Return the name of a subnet's bridge."""
    return f"{BRIDGE}{tag}{suffix(subnet_id)}"


def tap(tag: str, nic_id: str) -> str:
    """Return the name of a VM NIC's host end."""
    return f"{TAP}{tag}{suffix(nic_id)}"


def container_veth(tag: str, nic_id: str) -> str:
    """Return the name of a container NIC's host end."""
    return f"{CONTAINER_VETH}{tag}{suffix(nic_id)}"


def port_links(tag: str, nic_id: str) -> tuple[str, str]:
    """Return the names that a NIC's host end may have: in a VM, in a container."""
    return tap(tag, nic_id), container_veth(tag, nic_id)


def container_nic_suffix(tag: str, name: str) -> str | None:
    """Return the id suffix in a name made by :func:`container_veth`, None for other names."""
    prefix = f"{CONTAINER_VETH}{tag}"
    return name[len(prefix) :] if name.startswith(prefix) and len(name) == len(prefix) + SUFFIX_LENGTH else None


def router_veth(tag: str, subnet_id: str) -> str:
    """Return the name of a router leg's end at the subnet's bridge."""
    return f"{ROUTER_VETH}{tag}{suffix(subnet_id)}"


def probe_veths(tag: str, mark: str) -> tuple[str, str]:
    """Return the names of the veth by which a probe's frames come in; ``mark`` is eight of ``[a-z0-9]``."""
    return f"{PROBE_INNER}{tag}{mark}", f"{PROBE_OUTER}{tag}{mark}"


def router_end(subnet_id: str) -> str:
    """Return the name of a router leg's end in the router's namespace."""
    return f"{ROUTER_END}{suffix(subnet_id)}"


def filter_table(tag: str) -> str:
    """Return the name of the deployment's nftables table (bridge family, in the fabric)."""
    return f"iaas_{tag}"


def fabric_namespace(tag: str) -> str:
    """Return the network namespace that holds all links of a deployment."""
    return f"iaas-{tag}"


def router_namespace(tag: str, vpc_id: str) -> str:
    """Return the network namespace of a VPC's router."""
    return f"iaas-{tag}-{suffix(vpc_id)}"


def machine(tag: str, machine_id: str) -> str:
    """Return the name of a libvirt domain or LXD instance (a valid host name)."""
    return f"iaas-{tag}-{suffix(machine_id)}"


def machine_suffix(tag: str, name: str) -> str | None:
    """Return the id suffix in a name made by :func:`machine`, None for names of others."""
    prefix = f"iaas-{tag}-"
    return name[len(prefix) :] if name.startswith(prefix) and len(name) == len(prefix) + SUFFIX_LENGTH else None
