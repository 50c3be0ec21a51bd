"""``ip`` in simulated guests: links, addresses, routes and network namespaces."""

from __future__ import annotations

import sqlite3
from ipaddress import IPv4Address, IPv4Interface
from typing import TYPE_CHECKING

from iaas.drivers.interface import MachineKind
from iaas.drivers.sim.command_table import CommandTable, encoded, wrong
from iaas.drivers.sim.guest_facts import GuestNIC
from iaas.drivers.sim.links import move_link
from iaas.drivers.sim.shell import Outcome

if TYPE_CHECKING:
    from iaas.drivers.sim.guest import Guest

COMMANDS = CommandTable()
SHOWING: tuple[list[str], ...] = ([], ["show"], ["list"], ["ls"])


@COMMANDS.add("ip")
def _ip(guest: Guest, arguments: list[str], stdin: bytes) -> Outcome:
    if arguments[:1] in (["-n"], ["-netns"]) and len(arguments) > 2:
        return _in_namespace(guest, arguments[1], ["ip", *arguments[2:]], stdin)
    words = [each for each in arguments if not each.startswith("-")]
    match words:
        case ["netns", "exec", name, *argv] if argv:
            return _in_namespace(guest, name, arguments[arguments.index("exec") + 2 :], stdin)
        case ["netns", *rest]:
            return _netns(guest, rest)
        case [kind, *rest] if kind and "address".startswith(kind):
            return _address(guest, rest)
        case [kind, *rest] if kind and "link".startswith(kind):
            return _link(guest, rest)
        case [kind, *rest] if kind and "route".startswith(kind):
            return _route(guest, rest)
    return wrong("ip", "only addr, link, route and netns are simulated", 1)


def _address(guest: Guest, words: list[str]) -> Outcome:
    match words:
        case [("add" | "replace" | "del" | "delete") as verb, address, "dev", name]:
            return _change_address(guest, verb, address, name)
    return _show(guest, words, addresses=True)


def _link(guest: Guest, words: list[str]) -> Outcome:
    match [word for word in words if word != "dev"]:
        case ["set", name, "up"]:
            return Outcome(0) if name == "lo" or _nic(guest, name) is not None else _no_device(name)
        case ["set", name, "netns", target]:
            return _move(guest, name, target)
    return _show(guest, words, addresses=False)


def _show(guest: Guest, words: list[str], *, addresses: bool) -> Outcome:
    words = [word for word in words if word not in {"show", "list", "ls", "dev"}]
    if len(words) > 1:
        return wrong("ip", f"{' '.join(words)!r} is not simulated", 1)
    lines: list[str] = []
    if words in ([], ["lo"]):
        lines += [
            "1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536",
            "    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00",
        ]
        lines += ["    inet 127.0.0.1/8 scope host lo"] if addresses else []
    for nic in _nics(guest):
        if words in ([], [nic.name]):
            lines.append(f"{nic.device_index + 2}: {nic.name}: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu {nic.mtu}")
            lines.append(f"    link/ether {nic.mac} brd ff:ff:ff:ff:ff:ff")
            lines += [f"    inet {each} scope global {nic.name}" for each in nic.addresses if addresses]
    return Outcome(0, encoded("\n".join(lines) + "\n")) if lines else _no_device(words[0])


def _change_address(guest: Guest, verb: str, wanted: str, name: str) -> Outcome:
    nic = _nic(guest, name)
    try:
        interface = IPv4Interface(wanted)
    except ValueError:
        return wrong("ip", f"an address is expected rather than {wanted!r}", 1)
    if nic is None:
        return _no_device(name)
    here = str(interface.with_prefixlen)
    key = (guest.facts.machine_id, nic.nic_id, str(interface.ip))
    if verb.startswith("del"):
        removed = guest.connection.execute(
            "DELETE FROM guest_addresses WHERE machine_id = ? AND nic_id = ? AND address = ?", key
        )
        if not removed.rowcount:
            return wrong("RTNETLINK answers", "Cannot assign requested address", 2)
    elif here in nic.addresses:
        return Outcome(0) if verb == "replace" else wrong("RTNETLINK answers", "File exists", 2)
    else:
        guest.connection.execute(
            "INSERT OR REPLACE INTO guest_addresses (machine_id, nic_id, address, prefix_length, subnet_id)"
            " VALUES (?, ?, ?, ?, ?)",
            (*key, interface.network.prefixlen, nic.subnet_id),
        )
    guest.refresh()
    return Outcome(0)


def _move(guest: Guest, name: str, target: str) -> Outcome:
    nic = _nic(guest, name)
    if nic is None:
        return _no_device(name)
    namespace = "" if target == "1" else target  # by the number of a process, of which only the first is known
    if namespace and namespace not in guest.facts.namespaces:
        return wrong("ip", f'Invalid "netns" value {target!r}', 1)
    move_link(guest.connection, guest.facts.machine_id, nic.nic_id, namespace)
    guest.refresh()
    return Outcome(0)


def _route(guest: Guest, words: list[str]) -> Outcome:
    match words:
        case [("add" | "replace") as verb, "default", "via", gateway, *device]:
            return _set_gateway(guest, verb, gateway, device)
    if words not in SHOWING:
        return wrong("ip", "only 'ip route' and 'ip route add default via' are simulated", 1)
    lines: list[str] = []
    gateway = guest.facts.namespaces.get(guest.namespace, "") if guest.namespace else guest.facts.gateway or ""
    for nic in _nics(guest):
        for each in nic.addresses:
            interface = IPv4Interface(each)
            if gateway and IPv4Address(gateway) in interface.network:
                lines.insert(0, f"default via {gateway} dev {nic.name}")
                gateway = ""
            lines.append(f"{interface.network} dev {nic.name} scope link src {interface.ip}")
    return Outcome(0, encoded("".join(f"{line}\n" for line in lines)))


def _set_gateway(guest: Guest, verb: str, gateway: str, device: list[str]) -> Outcome:
    if device not in ([], *(["dev", nic.name] for nic in _nics(guest))):
        return wrong("ip", f"{' '.join(device)!r} is not simulated", 1)
    try:
        on_link = any(
            IPv4Address(gateway) in IPv4Interface(each).network for nic in _nics(guest) for each in nic.addresses
        )
    except ValueError:
        return wrong("ip", f"an address is expected rather than {gateway!r}", 1)
    if not on_link:
        return wrong("RTNETLINK answers", "Network unreachable", 2)
    present = guest.facts.namespaces.get(guest.namespace, "") if guest.namespace else guest.facts.gateway
    if verb == "add" and present:
        return wrong("RTNETLINK answers", "File exists", 2)
    if not guest.namespace:
        return wrong("ip", "the first namespace has the default route that DHCP gives", 1)
    guest.connection.execute(
        "UPDATE namespaces SET gateway = ? WHERE machine_id = ? AND name = ?",
        (gateway, guest.facts.machine_id, guest.namespace),
    )
    guest.refresh()
    return Outcome(0)


def _netns(guest: Guest, words: list[str]) -> Outcome:
    machine_id = guest.facts.machine_id
    match words:
        case _ if words in SHOWING:
            return Outcome(0, encoded("".join(f"{name}\n" for name in guest.facts.namespaces)))
        case ["add", name] if name and "/" not in name:
            if name in guest.facts.namespaces:
                return wrong("ip", f'Cannot create namespace file "/run/netns/{name}": File exists', 1)
            guest.connection.execute("INSERT INTO namespaces (machine_id, name) VALUES (?, ?)", (machine_id, name))
        case ["del" | "delete", name]:
            if name not in guest.facts.namespaces:
                return wrong("ip", f'Cannot remove namespace file "/run/netns/{name}": No such file or directory', 1)
            guest.connection.execute("DELETE FROM namespaces WHERE machine_id = ? AND name = ?", (machine_id, name))
            _let_links_go(guest, guest.connection, name)
        case _:
            return wrong("ip", "only netns add, del, exec and list are simulated", 1)
    guest.refresh()
    return Outcome(0)


def _let_links_go(guest: Guest, connection: sqlite3.Connection, namespace: str) -> None:
    """Do what a dying namespace does to its links: a VM's fall back to the first one, a container's die with it."""
    dies = guest.facts.kind is MachineKind.CONTAINER  # the end of a veth pair is no hardware that could come back
    for nic in guest.facts.nics:
        if nic.namespace == namespace:
            move_link(connection, guest.facts.machine_id, nic.nic_id, "", lost=dies)
            if dies:
                guest.lost_nic_ids.append(nic.nic_id)


def _in_namespace(guest: Guest, name: str, argv: list[str], stdin: bytes) -> Outcome:
    if name not in guest.facts.namespaces:
        return wrong("ip", f'Cannot open network namespace "{name}": No such file or directory', 1)
    before = guest.namespace
    guest.enter(name)
    try:
        return guest.command(argv, stdin)
    finally:
        guest.enter(before)


def _nics(guest: Guest) -> list[GuestNIC]:
    return [nic for nic in guest.facts.nics if nic.namespace == guest.namespace]


def _nic(guest: Guest, name: str) -> GuestNIC | None:
    return next((nic for nic in _nics(guest) if nic.name == name), None)


def _no_device(name: str) -> Outcome:
    return wrong("ip", f"can't find device {name!r}", 1)
