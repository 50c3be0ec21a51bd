"""Two VPCs of one CIDR with machines of both kinds, on a server of the real backend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from iaas.client import VPC, Client, Instance, InstanceSpec, NICSpec, Subnet
from tests.e2e.cloud_server import CloudServer
from tests.real_host import PARENT, new_test_folder, remove_killed_runs

READY_TIMEOUT_S = 180
CIDR = "10.20.0.0/16"
BLOCKS = {"one": "10.20.1.0/24", "two": "10.20.2.0/24", "elsewhere": "10.20.1.0/24"}


@dataclass(frozen=True, kw_only=True)
class Place:
    """One machine of the world."""

    kind: str
    subnet: str
    address: str


PLACES = {
    # VPC "here": two on one subnet, one on another.
    "vm": Place(kind="vm", subnet="one", address="10.20.1.11"),
    "container": Place(kind="container", subnet="one", address="10.20.1.12"),
    "across": Place(kind="container", subnet="two", address="10.20.2.12"),
    # VPC "there": the same addresses once more.
    "vm-twin": Place(kind="container", subnet="elsewhere", address="10.20.1.11"),
    "container-twin": Place(kind="container", subnet="elsewhere", address="10.20.1.12"),
}


@dataclass(frozen=True)
class NetworkWorld:
    """The server, its networks, and the machines by their names in ``PLACES``."""

    server: CloudServer
    client: Client
    vpcs: dict[str, VPC]
    subnets: dict[str, Subnet]
    machines: dict[str, Instance]


@contextmanager
def real_server() -> Iterator[CloudServer]:
    """A server of the real backend that is removed without a trace."""
    from iaas.drivers.linux.cleanup import leftovers, remove_deployment

    remove_killed_runs()
    PARENT.mkdir(parents=True, exist_ok=True)
    tag, state_dir = new_test_folder()
    server = CloudServer("real", state_dir, tag)
    try:
        server.start()
        yield server
    finally:
        server.close()
        remove_deployment(tag, state_dir)
        assert leftovers(tag, state_dir) == []


def make_machines(client: Client, places: dict[str, Place]) -> dict[str, Instance]:
    """Create all the machines in one call, and return them when their guests have answered."""
    specs = [
        InstanceSpec(
            kind=place.kind,
            image="tiny",
            flavor="nano",
            name=name,
            nesting=True if place.kind == "container" else None,
            nics=[NICSpec(subnet=place.subnet, address=place.address)],
        )
        for name, place in places.items()
    ]
    made = [action.wait(timeout_s=120) for action in client.instances.create_many(specs)]
    return {name: each.wait_until_ready(timeout_s=READY_TIMEOUT_S) for name, each in zip(places, made, strict=True)}


@contextmanager
def network_world() -> Iterator[NetworkWorld]:
    """Return the world of ``PLACES``."""
    with real_server() as server, server.client() as client:
        vpcs = {name: client.vpcs.create(cidr=CIDR, name=name).wait() for name in ("here", "there")}
        subnets = {
            name: client.subnets.create(name=name, vpc="there" if name == "elsewhere" else "here", cidr=block).wait()
            for name, block in BLOCKS.items()
        }
        yield NetworkWorld(server, client, vpcs, subnets, make_machines(client, PLACES))
