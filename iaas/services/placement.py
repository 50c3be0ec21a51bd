"""Where a new instance goes. The reservation itself is a conditional update, so two cannot take the same room."""

from __future__ import annotations

from iaas.db.repositories import catalog
from iaas.db.store import Tx
from iaas.kernel.errors import OutOfCapacity


def place(tx: Tx, *, zone: str, vcpus: int, memory_mib: int, disk_gib: int) -> str:
    """Reserve room on a host of the zone, the emptiest first, and return its id.

    Raises:
        OutOfCapacity: no host of the zone has it.
    """
    hosts = catalog.hosts_in_zone(tx.connection, zone)
    for host in hosts:
        if catalog.reserve(tx, host.id, vcpus=vcpus, memory_mib=memory_mib, disk_gib=disk_gib):
            return host.id
    free = ", ".join(
        f"{host.name} has {host.vcpus - host.vcpus_used} vCPUs, {host.memory_mib - host.memory_mib_used} MiB,"
        f" {host.disk_gib - host.disk_gib_used} GiB free"
        for host in hosts[:8]
    )
    wanted = f"{vcpus} vCPUs, {memory_mib} MiB of memory and {disk_gib} GiB of disk"
    raise OutOfCapacity(f"no host in {zone} has room for {wanted}: {free or 'no host takes instances there'}")
