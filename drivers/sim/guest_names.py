"""How simulated guests find addresses by names: their own hosts file, then the DNS of their VPC."""

from __future__ import annotations

import sqlite3
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, NamedTuple

from iaas.drivers.sim.guest_facts import GuestFacts
from iaas.drivers.sim.network_documents import VPCDocument, read_vpc
from iaas.drivers.sim.reach import way_from_guest

if TYPE_CHECKING:
    from iaas.drivers.sim.guest import Guest

ALIAS_LIMIT = 8
"""So many CNAME records one after another are followed."""


class NoAnswerError(Exception):
    """No DNS server answers: there is none, or it is a guest's own, and those are not simulated."""


class Found(NamedTuple):
    """What a name stands for: its full form, and its addresses or texts."""

    name: str
    values: tuple[str, ...]


def addresses_of(guest: Guest, name: str) -> Found:
    """Return the addresses of a name, none for an unknown one; an address stands for itself.

    Raises:
        NoAnswerError: it would have to be asked of a DNS server, and none answers.
    """
    try:
        return Found(name, (str(IPv4Address(name)),))
    except ValueError:
        pass
    if guest.files.is_file("/etc/hosts"):
        for line in guest.files.read("/etc/hosts").decode(errors="replace").splitlines():
            address, *names = line.partition("#")[0].split() or [""]
            if name in names:
                return Found(name, (address,))
    return ask(guest, name, "A")


def ask(guest: Guest, name: str, record_type: str) -> Found:
    """Return what the VPC's DNS knows of a name; no values for an unknown one.

    Raises:
        NoAnswerError: no server answers, or the name is to be asked of one inside the VPC.
    """
    facts = guest.facts
    if facts.vpc_id is None or not facts.dns_servers or not _is_router(guest, facts.dns_servers[0]):
        raise NoAnswerError("no server could be reached")
    row = guest.connection.execute("SELECT document FROM vpcs WHERE vpc_id = ?", (facts.vpc_id,)).fetchone()
    document = read_vpc(row[0])
    asked = name.lower().rstrip(".")
    candidates = [asked] if "." in asked else [f"{asked}.{document.dns_domain}", asked]
    for each in candidates:
        if values := _look_up(guest.connection, facts, document, each, record_type):
            return Found(each, values)
    return Found(candidates[0], ())


def _is_router(guest: Guest, server: str) -> bool:
    return way_from_guest(guest.connection, guest.facts, guest.namespace, server).way.router


def _look_up(
    connection: sqlite3.Connection, facts: GuestFacts, document: VPCDocument, name: str, record_type: str
) -> tuple[str, ...]:
    for _ in range(ALIAS_LIMIT):
        records = [(kind, values) for each, kind, values, _ in document.records if each.lower().rstrip(".") == name]
        if found := [value for kind, values in records if kind == record_type for value in values]:
            return tuple(found)
        alias = next((values[0] for kind, values in records if kind == "CNAME"), None)
        if alias is None:
            break
        if record_type == "CNAME":
            return (alias,)
        name = alias.lower().rstrip(".")
    host, _, domain = name.partition(".")
    if record_type == "A" and domain in {"", document.dns_domain.lower()}:
        rows = connection.execute(
            "SELECT DISTINCT port_names.address FROM subnets"
            " JOIN port_names ON port_names.subnet_id = subnets.subnet_id AND port_names.name = ?"
            " WHERE subnets.vpc_id = ?",
            (host, facts.vpc_id),
        ).fetchall()
        if rows:
            return tuple(sorted((row[0] for row in rows), key=IPv4Address))
    if any(name == each.lower() or name.endswith(f".{each.lower()}") for each, _ in document.forwarders):
        raise NoAnswerError("the server that is asked for this domain does not answer")
    return ()
