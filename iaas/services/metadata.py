"""What a guest may know of itself. The asker is known by the network it asks from and its address there."""

from __future__ import annotations

from dataclasses import dataclass

from iaas.db.repositories import instances
from iaas.db.store import Store
from iaas.resources.instances import Instance


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestMetadata:
    instance: Instance
    authorized_keys: list[str]
    user_data: bytes | None


class MetadataService:
    def __init__(self, store: Store) -> None:
        self._store = store

    def of_guest(self, network_id: str, address: str) -> GuestMetadata | None:
        """Return the metadata of whoever has ``address`` on the network; None when nobody has."""
        with self._store.read() as connection:
            instance = instances.instance_at(connection, network_id, address)
            if instance is None:
                return None
            user_data, keys = instances.guest_secrets(connection, instance.id)
        return GuestMetadata(instance=instance, authorized_keys=keys, user_data=user_data)
