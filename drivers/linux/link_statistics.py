"""What a NIC's link has counted, as the machine behind it sees it."""

from __future__ import annotations

from collections.abc import Iterable

from iaas.drivers.interface import PortStatistics
from iaas.drivers.linux.namespaces import netlink


def read_statistics(namespace: str, link_names: Iterable[str]) -> PortStatistics | None:
    """Return the counters of the first of these links that is there; None when there is none."""
    with netlink(namespace) as handle:
        for name in link_names:
            for index in handle.link_lookup(ifname=name):
                counted = handle.get_links(index)[0].get_attr("IFLA_STATS64")
                return PortStatistics(  # what the host's end sends is what the machine receives
                    received_bytes=counted["tx_bytes"],
                    received_packets=counted["tx_packets"],
                    received_dropped=counted["tx_dropped"],
                    sent_bytes=counted["rx_bytes"],
                    sent_packets=counted["rx_packets"],
                    sent_dropped=counted["rx_dropped"],
                )
    return None
