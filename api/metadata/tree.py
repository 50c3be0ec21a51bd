"""The EC2-style tree, as far as cloud-init and our own images read it.

Source: Amazon EC2 user guide, "Instance metadata categories": a path that ends in a slash lists its children,
one a line, folders with a slash; ``public-keys/`` lists ``index=name``.
"""

from __future__ import annotations

import json

from iaas.services.metadata import GuestMetadata

VERSIONS = ("2009-04-04", "latest")


def lookup(path: str, guest: GuestMetadata) -> bytes | None:
    """Return the content at ``path`` ("/latest/meta-data/instance-id"); None when there is nothing."""
    parts = [part for part in path.split("/") if part]
    if not parts:
        return "\n".join(VERSIONS).encode()
    if parts[0] not in VERSIONS:
        return None
    match parts[1:]:
        case []:
            return b"\n".join([b"dynamic", b"meta-data", *([b"user-data"] if guest.user_data is not None else [])])
        case ["user-data"]:
            return guest.user_data
        case ["dynamic", "instance-identity", "document"]:
            return _identity_document(guest)
        case ["meta-data", *rest]:
            return _meta_data(rest, guest)
        case _:
            return None


def _meta_data(parts: list[str], guest: GuestMetadata) -> bytes | None:
    instance = guest.instance
    leaves: dict[str, str] = {
        "ami-id": instance.image_id,
        "hostname": instance.hostname,
        "instance-id": instance.id,
        "instance-type": instance.flavor or f"{instance.vcpus}vcpu-{instance.memory_mib}mib",
        "local-hostname": instance.hostname,
        "local-ipv4": instance.address or "",
    }
    if instance.nics:
        leaves["mac"] = instance.nics[0].mac
    match parts:
        case []:
            folders = ["placement/", *(["public-keys/"] if guest.authorized_keys else [])]
            return "\n".join(sorted([*leaves, *folders])).encode()
        case ["placement"]:
            return b"availability-zone"
        case ["placement", "availability-zone"]:
            return instance.zone.encode()
        case ["public-keys", *rest] if guest.authorized_keys:
            return _public_keys(rest, guest)
        case [leaf] if leaf in leaves:
            return leaves[leaf].encode()
        case _:
            return None


def _public_keys(parts: list[str], guest: GuestMetadata) -> bytes | None:
    names = guest.instance.key_pairs
    if not parts:
        return "\n".join(f"{index}={names[index]}" for index in range(len(guest.authorized_keys))).encode()
    index = int(parts[0]) if parts[0].isascii() and parts[0].isdigit() and len(parts[0]) < 6 else -1
    if not 0 <= index < len(guest.authorized_keys):
        return None
    match parts[1:]:
        case []:
            return b"openssh-key"
        case ["openssh-key"]:
            return guest.authorized_keys[index].encode()
        case _:
            return None


def _identity_document(guest: GuestMetadata) -> bytes:
    instance = guest.instance
    document = {
        "instanceId": instance.id,
        "imageId": instance.image_id,
        "instanceType": instance.flavor,
        "availabilityZone": instance.zone,
        "privateIp": instance.address,
        "accountId": instance.project_id,
        "architecture": "x86_64",
    }
    return json.dumps(document, indent=2).encode()
