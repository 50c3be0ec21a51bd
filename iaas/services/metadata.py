"""What a guest may know of itself. The asker is known by the VPC it asks from and its address there."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from iaas.db.repositories import instances, nics, subnets, vpcs
from iaas.db.store import Store
from iaas.resources.instances import Instance
from iaas.resources.networks import NIC


@dataclass(frozen=True, slots=True, kw_only=True)
class NICMetadata:
    """One of the guest's NICs, with what its networks are. A bare subnet has no block and no VPC."""

    id: str
    mac: str
    device_index: int
    addresses: tuple[str, ...]
    subnet_id: str
    subnet_cidr: str | None = None
    vpc_id: str | None = None
    vpc_cidr: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestMetadata:
    """``nics`` in the order of their device indexes; ``dns_domain`` is that of the VPC it asks from."""

    instance: Instance
    authorized_keys: list[str]
    user_data: bytes | None
    nics: tuple[NICMetadata, ...] = ()
    dns_domain: str | None = None


class MetadataService:
    def __init__(self, store: Store) -> None:
        self._store = store

    def nic_at(self, vpc_id: str, address: str) -> NIC | None:
        """Return whose address this is in the VPC; None when it is nobody's, or the NIC is not attached."""
        with self._store.read() as connection:
            return _attached_nic(connection, vpc_id, address)

    def of_guest(self, vpc_id: str, address: str) -> GuestMetadata | None:
        """Return the metadata of whoever has ``address`` in the VPC; None when nobody has."""
        with self._store.read() as connection:
            nic = _attached_nic(connection, vpc_id, address)
            instance = instances.get(connection, nic.instance_id) if nic is not None and nic.instance_id else None
            if instance is None:
                return None
            user_data, keys = instances.guest_secrets(connection, instance.id)
            vpc = vpcs.get(connection, vpc_id)
            return GuestMetadata(
                instance=instance,
                authorized_keys=keys,
                user_data=user_data,
                nics=tuple(_facts(connection, each) for each in instance.nics),
                dns_domain=None if vpc is None else vpc.dns_domain,
            )


def _attached_nic(connection: Connection, vpc_id: str, address: str) -> NIC | None:
    nic = nics.nic_at(connection, vpc_id, address)
    return nic if nic is not None and nic.instance_id is not None else None


def _facts(connection: Connection, nic: NIC) -> NICMetadata:
    subnet = subnets.get(connection, nic.subnet_id)
    vpc = None if nic.vpc_id is None else vpcs.get(connection, nic.vpc_id)
    return NICMetadata(
        id=nic.id,
        mac=nic.mac,
        device_index=nic.device_index or 0,
        addresses=nic.addresses,
        subnet_id=nic.subnet_id,
        subnet_cidr=None if subnet is None else subnet.cidr,
        vpc_id=nic.vpc_id,
        vpc_cidr=None if vpc is None else vpc.cidr,
    )
