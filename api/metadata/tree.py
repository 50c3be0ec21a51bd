"""The EC2-style tree, as far as cloud-init, agents of the EC2 kind and our own images read it.

Source: Amazon EC2 user guide, "Instance metadata categories": a path that ends in a slash lists its children,
one a line, folders with a slash; ``public-keys/`` lists ``index=name``. Every version shows the same tree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Union

from iaas.kernel.clock import rfc3339
from iaas.services.metadata import GuestMetadata, NICMetadata

# cloud-init asks for the newest one that it knows, and falls back to the first.
VERSIONS = ("2009-04-04", "2016-09-02", "2018-09-24", "2021-03-23", "latest")
REGION = "local"  # all zones are on one machine

Node = Union[str, bytes, "Folder"]
Folder = Mapping[str, Node]


class _Keys(dict[str, Node]):
    """The one folder that lists its children with a name beside: ``0=laptop``."""

    def __init__(self, children: Folder, lines: list[str]) -> None:
        super().__init__(children)
        self.lines = lines


def lookup(path: str, guest: GuestMetadata) -> bytes | None:
    """Return the content at ``path`` ("/latest/meta-data/instance-id"); None when there is nothing."""
    parts = [part for part in path.split("/") if part]
    if not parts:
        return "\n".join(VERSIONS).encode()
    if parts[0] not in VERSIONS:
        return None
    node: Node = _root(guest)
    for depth, part in enumerate(parts[1:], start=1):
        if not isinstance(node, Mapping):
            return None
        rest = "/".join(parts[depth:])
        if rest in node:  # the keys of labels may hold a slash
            node = node[rest]
            break
        if part not in node:
            return None
        node = node[part]
    if isinstance(node, Mapping):
        return _listing(node)
    return node if isinstance(node, bytes) else node.encode()


def _listing(folder: Folder) -> bytes:
    if isinstance(folder, _Keys):
        return "\n".join(folder.lines).encode()
    return "\n".join(f"{name}/" if isinstance(folder[name], Mapping) else name for name in sorted(folder)).encode()


def _root(guest: GuestMetadata) -> Folder:
    root: dict[str, Node] = {
        "dynamic": {"instance-identity": {"document": _identity_document(guest)}},
        "meta-data": _meta_data(guest),
    }
    if guest.user_data is not None:
        root["user-data"] = guest.user_data
    return root


def _meta_data(guest: GuestMetadata) -> Folder:
    instance = guest.instance
    tree: dict[str, Node] = {
        "ami-id": instance.image_id,
        "ami-launch-index": "0",
        "hostname": instance.hostname,
        "instance-action": "none",
        "instance-id": instance.id,
        "instance-type": _shape(guest),
        "local-hostname": instance.hostname,
        "local-ipv4": instance.address or "",
        "placement": {"availability-zone": instance.zone, "region": REGION},
    }
    if instance.flavor:
        tree["flavor"] = instance.flavor
    if guest.dns_domain:
        tree["services"] = {"domain": guest.dns_domain}
    if guest.nics:
        tree["mac"] = guest.nics[0].mac
        tree["network"] = {"interfaces": {"macs": {nic.mac: _interface(nic, guest) for nic in guest.nics}}}
    if guest.authorized_keys:
        tree["public-keys"] = _public_keys(guest)
    if instance.metadata_labels and instance.labels:
        tree["tags"] = {"instance": dict(instance.labels)}
    return tree


def _interface(nic: NICMetadata, guest: GuestMetadata) -> Folder:
    facts: dict[str, Node] = {
        "device-number": str(nic.device_index),
        "interface-id": nic.id,
        "local-hostname": guest.instance.hostname,
        "mac": nic.mac,
        "owner-id": guest.instance.project_id,
        "security-groups": "",
        "subnet-id": nic.subnet_id,
    }
    if nic.addresses:
        facts["local-ipv4s"] = "\n".join(nic.addresses)
    if nic.subnet_cidr is not None:
        facts["subnet-ipv4-cidr-block"] = nic.subnet_cidr
    if nic.vpc_id is not None:
        facts["vpc-id"] = nic.vpc_id
    if nic.vpc_cidr is not None:
        facts["vpc-ipv4-cidr-block"] = facts["vpc-ipv4-cidr-blocks"] = nic.vpc_cidr
    return facts


def _public_keys(guest: GuestMetadata) -> Folder:
    keys = dict(enumerate(guest.authorized_keys))
    return _Keys(
        {str(index): {"openssh-key": key} for index, key in keys.items()},
        [f"{index}={guest.instance.key_pairs[index]}" for index in keys],
    )


def _shape(guest: GuestMetadata) -> str:
    instance = guest.instance
    return instance.flavor or f"{instance.vcpus}vcpu-{instance.memory_mib}mib"


def _identity_document(guest: GuestMetadata) -> str:
    """Return the identity document. Source: Amazon EC2 user guide, "Instance identity documents"."""
    instance = guest.instance
    document = {
        "accountId": instance.project_id,
        "architecture": "x86_64",
        "availabilityZone": instance.zone,
        "billingProducts": None,
        "devpayProductCodes": None,
        "imageId": instance.image_id,
        "instanceId": instance.id,
        "instanceType": _shape(guest),
        "kernelId": None,
        "marketplaceProductCodes": None,
        "pendingTime": rfc3339(instance.created_at),
        "privateIp": instance.address,
        "ramdiskId": None,
        "region": REGION,
        "version": "2017-09-30",
    }
    return json.dumps(document, indent=2)
