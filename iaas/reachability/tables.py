"""Routing tables: the longest prefix wins, the first entry where two are equal."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Generic, TypeVar

E = TypeVar("E")


class RoutingTable(Generic[E]):
    """Destinations and what is known of the way there."""

    def __init__(self) -> None:
        self._by_length: dict[int, dict[int, E]] = {}
        self._lengths: list[int] = []

    def add(self, destination: IPv4Network, entry: E) -> None:
        """Add an entry; the one that is there already for the same destination stays."""
        if destination.prefixlen not in self._by_length:
            self._by_length[destination.prefixlen] = {}
            self._lengths = sorted(self._by_length, reverse=True)
        self._by_length[destination.prefixlen].setdefault(int(destination.network_address), entry)

    def find(self, address: IPv4Address) -> E | None:
        """Return the entry of the longest prefix that has the address."""
        number = int(address)
        for length in self._lengths:
            shift = 32 - length
            entry = self._by_length[length].get(number >> shift << shift)
            if entry is not None:
                return entry
        return None
