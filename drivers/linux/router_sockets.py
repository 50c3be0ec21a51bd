"""TCP sockets inside a VPC's router. Never one of ours: a packet to a guest must not leave the machine (ADR 0004)."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Network

from iaas.drivers.interface import NotFoundError, PermanentError, SubnetSpec, TransientError, VPCSpec
from iaas.drivers.linux.namespaces import entered

LISTEN_BACKLOG = 128


def dial(
    router: str, vpc: VPCSpec, subnets: Iterable[SubnetSpec], address: str, port: int, *, timeout_s: float
) -> socket.socket:
    """Return a connected socket to an address inside the VPC; raises as ``NetworkDriver.dial`` does."""
    _check_inside(vpc, subnets, address)
    with ExitStack() as undo:
        connection = undo.enter_context(_router_socket(router))
        connection.settimeout(timeout_s)
        try:
            connection.connect((address, port))
        except OSError as exc:  # refused, timed out, unreachable: the guest may come up yet
            raise TransientError(f"no connection to {address}:{port}: {exc}") from exc
        undo.pop_all()
        return connection


def listen(router: str, address: str, port: int) -> socket.socket:
    """Return a listening socket at one of the router's addresses.

    Raises:
        PermanentError: the router has no such address, or the port is taken.
        TransientError: the router is not up.
    """
    with ExitStack() as undo:
        listener = undo.enter_context(_router_socket(router))
        # Connections of a server that was killed may linger; they must not keep the next one out.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
        except OSError as exc:
            raise PermanentError(f"cannot listen at {address}:{port} in the router: {exc}") from exc
        listener.listen(LISTEN_BACKLOG)
        undo.pop_all()
        return listener


def _router_socket(router: str) -> socket.socket:
    """Return a socket that belongs to the router's namespace for good."""
    try:
        with entered(router):
            return socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    except NotFoundError as exc:
        raise TransientError("the VPC's router is not up") from exc


def _check_inside(vpc: VPCSpec, subnets: Iterable[SubnetSpec], address: str) -> None:
    try:
        target = IPv4Address(address)
    except ipaddress.AddressValueError as exc:
        raise PermanentError(f"{address!r} is no address") from exc
    known = list(subnets)
    blocks = [vpc.cidr, *(subnet.cidr for subnet in known if subnet.cidr), *(route.destination for route in vpc.routes)]
    is_local = target.is_loopback or target.is_link_local or target.is_multicast or target.is_unspecified
    if is_local or not any(target in IPv4Network(block) for block in blocks):
        raise PermanentError(f"{address} is no address inside VPC {vpc.vpc_id}")
    if any(subnet.gateway == address for subnet in known):
        raise PermanentError(f"{address} is the router of VPC {vpc.vpc_id}")
