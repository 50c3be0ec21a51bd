"""Where the many instances of a batch go: as if each were placed after the other, with one reservation a host."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from iaas.db.repositories import catalog, hosts
from iaas.db.repositories.hosts import Amounts
from iaas.db.store import Tx


@dataclass(slots=True)
class _Room:
    """One host while instances are dealt out."""

    host: Any
    vcpus: int = 0
    memory_mib: int = 0
    disk_gib: int = 0

    def takes(self, wanted: Amounts) -> bool:
        host = self.host
        return bool(
            host.vcpus_used + self.vcpus + wanted.vcpus <= host.vcpus
            and host.memory_mib_used + self.memory_mib + wanted.memory_mib <= host.memory_mib
            and host.disk_gib_used + self.disk_gib + wanted.disk_gib <= host.disk_gib
        )

    def take(self, wanted: Amounts) -> None:
        self.vcpus += wanted.vcpus
        self.memory_mib += wanted.memory_mib
        self.disk_gib += wanted.disk_gib

    def rank(self) -> tuple[float, float, str]:
        host = self.host
        return (
            (host.memory_mib_used + self.memory_mib) / max(1, host.memory_mib),
            (host.vcpus_used + self.vcpus) / max(1, host.vcpus),
            host.id,
        )


def spread(tx: Tx, zone: str, wanted: Sequence[Amounts]) -> list[str] | None:
    """Reserve room for machines that come without rules and return their hosts, in the order of ``wanted``.

    None, with nothing reserved, when it does not work out this way: whoever places them one by one then finds
    the room that was overlooked here, or the reasons why there is none.
    """
    heap = [(room.rank(), room) for room in (_Room(host) for host in hosts.roomiest(tx.connection, zone))]
    heapq.heapify(heap)
    chosen: list[str] = []
    for amounts in wanted:
        too_full: list[tuple[tuple[float, float, str], _Room]] = []
        while heap and not heap[0][1].takes(amounts):
            too_full.append(heapq.heappop(heap))
        if not heap:
            return None
        room = heap[0][1]
        room.take(amounts)
        heapq.heapreplace(heap, (room.rank(), room))
        chosen.append(room.host.id)
        for each in too_full:
            heapq.heappush(heap, each)
    return chosen if _reserve(tx, [room for _, room in heap]) else None


def _reserve(tx: Tx, rooms: Sequence[_Room]) -> bool:
    """Take all that was dealt out, in the order of ids (of locks); give it back when one host was filled meanwhile."""
    dealt = sorted((room for room in rooms if room.memory_mib or room.vcpus or room.disk_gib), key=lambda r: r.host.id)
    for nth, room in enumerate(dealt):
        amounts = Amounts(vcpus=room.vcpus, memory_mib=room.memory_mib, disk_gib=room.disk_gib)
        if not hosts.reserve_new(tx, room.host.id, amounts):
            for done in dealt[:nth]:
                catalog.reserve(
                    tx, done.host.id, vcpus=-done.vcpus, memory_mib=-done.memory_mib, disk_gib=-done.disk_gib
                )
            return False
    return True
