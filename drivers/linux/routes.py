"""A router's whole routing table, exchanged in one go.

All routes are in one of two tables, chosen by one policy rule. A new set is laid out in the table that is not in
use; adding a rule for it before the other's is the moment at which it holds, for every packet. Both tables end in
a refusal, so nothing is ever looked up behind them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from iaas.drivers.interface import BLACKHOLE, SubnetSpec, VPCSpec
from iaas.drivers.linux import names
from iaas.drivers.linux.namespaces import run_inside
from iaas.drivers.linux.spec_checks import is_guest_address

TABLES = (101, 102)
RULE_PREFERENCE = 1000  # of the rule in force; behind the kernel's "local" (0), before its "main" (32766)
NEXT_PREFERENCE = 999
LAST_METRIC = 1000000


@dataclass(frozen=True, slots=True)
class TableRoute:
    """One entry: on a link (``source`` is the router's own address there), by a gateway, or (no link) refused."""

    destination: str
    link: str = ""
    gateway: str = ""
    source: str = ""

    def command(self) -> str:
        """Return the rest of an ``ip route add``."""
        if not self.link:
            metric = f" metric {LAST_METRIC}" if self.destination == "0.0.0.0/0" else ""
            return f"unreachable {self.destination}{metric}"
        if self.gateway:
            # Whether the gateway is on the link was seen to; the table it would be looked up in is half-made.
            return f"{self.destination} via {self.gateway} dev {self.link} onlink"
        return f"{self.destination} dev {self.link} scope link src {self.source}"


REFUSE_ALL = TableRoute("0.0.0.0/0")


def table_of(vpc: VPCSpec, subnets: Iterable[SubnetSpec]) -> list[TableRoute]:
    """Return the routes of a VPC: its subnets, and for each other destination a gateway on one of them or a refusal.

    A next hop that no guest of a subnet can have (any more, or not yet) refuses: nothing else may catch the packet.
    """
    routes, legs = [], []
    for subnet in subnets:
        if subnet.cidr is not None and subnet.gateway is not None:
            leg = TableRoute(subnet.cidr, names.router_end(subnet.subnet_id), source=subnet.gateway)
            routes.append(leg)
            legs.append((subnet, leg.link))
    own_blocks = {each.destination for each in routes}
    for route in vpc.routes:
        if route.destination in own_blocks:
            continue
        links = (
            link
            for subnet, link in legs
            if route.next_hop != BLACKHOLE and is_guest_address(IPv4Address(route.next_hop), subnet)
        )
        link = next(links, "")
        routes.append(TableRoute(route.destination, link, route.next_hop if link else ""))
    return routes


def apply_routes(router: str, routes: Collection[TableRoute]) -> bool:
    """Make these, and nothing else, the routes of the router's namespace; return whether anything was changed."""
    wanted = {REFUSE_ALL, *routes}
    rules = _our_rules(router)
    active = rules[0][1] if rules else None
    if len(rules) == 1 and rules[0][0] == RULE_PREFERENCE and _read_table(router, rules[0][1]) == wanted:
        return False
    fresh = next(table for table in TABLES if table != active)
    lines = [f"rule del preference {preference} lookup {table}" for preference, table in rules if table != active]
    # Writing into it makes the table, so that emptying it cannot fail.
    lines += [f"route replace {REFUSE_ALL.command()} table {fresh}", f"route flush table {fresh}"]
    # On-link ones first: the kernel has an opinion on gateways.
    lines += [f"route add {route.command()} table {fresh}" for route in sorted(wanted, key=lambda each: each.gateway)]
    if not rules:
        lines.append(f"rule add preference {RULE_PREFERENCE} lookup {fresh}")
    else:
        preference = rules[0][0]
        if preference != NEXT_PREFERENCE:
            lines.append(f"rule add preference {NEXT_PREFERENCE} lookup {fresh}")
            lines += [f"rule del preference {each} lookup {table}" for each, table in rules if table == active]
            lines.append(f"rule add preference {RULE_PREFERENCE} lookup {fresh}")
            lines.append(f"rule del preference {NEXT_PREFERENCE} lookup {fresh}")
        else:  # a change that was cut short has left the rule in the place of the next one
            lines.append(f"rule add preference {RULE_PREFERENCE} lookup {fresh}")
            lines += [f"rule del preference {each} lookup {table}" for each, table in rules if table == active]
        lines.append(f"route flush table {active}")
    run_inside(router, ["ip", "-4", "-batch", "-"], input_text="\n".join(lines) + "\n")
    return True


def _our_rules(router: str) -> list[tuple[int, int]]:
    """Return (preference, table) of our rules, the one in force first."""
    found: list[dict[str, Any]] = json.loads(run_inside(router, ["ip", "-4", "-json", "-N", "rule"]) or "[]")
    return sorted((rule["priority"], int(rule["table"])) for rule in found if int(rule["table"]) in TABLES)


def _read_table(router: str, table: int) -> set[TableRoute]:
    text = run_inside(router, ["ip", "-4", "-json", "-N", "route", "show", "table", str(table)])
    routes = set()
    for each in json.loads(text or "[]"):
        destination = "0.0.0.0/0" if each["dst"] == "default" else each["dst"]
        destination = destination if "/" in destination else f"{destination}/32"
        if "type" in each:
            routes.add(TableRoute(destination))
        else:
            routes.add(TableRoute(destination, each["dev"], each.get("gateway", ""), each.get("prefsrc", "")))
    return routes
