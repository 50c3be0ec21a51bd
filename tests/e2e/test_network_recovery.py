"""The data plane of networks is destroyed behind the server's back, as a reboot does it, and comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from iaas.client import Client, Instance, InstanceSpec, NICSpec
from iaas.drivers.linux import names
from iaas.drivers.linux.filters import remove_filters
from iaas.drivers.linux.links import link_names, remove_link
from iaas.drivers.linux.namespaces import list_namespaces, remove_namespace
from tests.e2e.cloud_server import CloudServer
from tests.e2e.guests import pings, shell_succeeds
from tests.e2e.network_world import READY_TIMEOUT_S, real_server

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

PODS = "10.30.1.200"
NEAR, FAR = "10.30.1.10", "10.30.2.10"


@dataclass
class Town:
    """Two container machines on two subnets of a VPC, one router between them.

    The first has a second NIC, and speaks for a reservation.
    """

    server: CloudServer
    client: Client

    @property
    def near(self) -> Instance:
        return self.client.instances.get("near")

    @property
    def far(self) -> Instance:
        return self.client.instances.get("far")

    def restart(self) -> None:
        """Stop the server and start it again, which then listens at another port."""
        self.server.stop()
        self.client.close()
        self.server.start()
        self.client = self.server.client()

    def destroy_data_plane(self) -> None:
        """Take routers with their servers, and what packets are held to."""
        tag = self.server.tag
        fabric = names.fabric_namespace(tag)
        for name in link_names(fabric):
            if name.startswith(f"{names.ROUTER_VETH}{tag}"):
                remove_link(fabric, name)
        for namespace in list_namespaces(f"{fabric}-"):
            remove_namespace(namespace)
        remove_filters(fabric, tag)

    def wrong(self) -> list[str]:
        """Return what is not as it should be: routing, names, DHCP, what may be spoken for, and what may not."""
        gateway = f"{NEAR[:-2]}1"
        speak = f"ip addr replace {{0}}/32 dev lo; ping -c 1 -W 1 -I {{0}} {gateway}"
        near = self.near
        seen = {
            "routed": pings(near, FAR),
            "known by name": shell_succeeds(near, f"nslookup {self.far.name}.internal {gateway}"),
            "given its address": shell_succeeds(near, "udhcpc -i eth1 -n -q -t 5 -s /bin/true"),
            "speaks for what is reserved": shell_succeeds(near, speak.format(PODS)),
            "speaks for nothing else": not shell_succeeds(near, speak.format("10.30.1.99")),
        }
        return [what for what, holds in seen.items() if not holds]


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    with real_server() as server:
        client = server.client()
        client.vpcs.create(cidr="10.30.0.0/16", name="prod").wait()
        client.subnets.create(name="near", vpc="prod", cidr="10.30.1.0/24").wait()
        client.subnets.create(name="far", vpc="prod", cidr="10.30.2.0/24").wait()
        client.subnets.create(name="spare", vpc="prod", cidr="10.30.3.0/24").wait()
        client.address_reservations.create(subnet="near", address=PODS).wait()
        wanted = {"near": [("near", NEAR), ("spare", "10.30.3.10")], "far": [("far", FAR)]}
        specs = [
            InstanceSpec(
                kind="container",
                image="tiny",
                flavor="nano",
                name=name,
                nics=[NICSpec(subnet=subnet, address=address) for subnet, address in places],
            )
            for name, places in wanted.items()
        ]
        made = [action.wait(timeout_s=120) for action in client.instances.create_many(specs)]
        for each in made:
            each.wait_until_ready(timeout_s=READY_TIMEOUT_S)
        it = Town(server, client)
        yield it
        it.client.close()


def repair(town: Town) -> None:
    town.client.doctor.repair()


def restart(town: Town) -> None:
    town.restart()


@pytest.mark.parametrize("bring_back", [repair, restart])
def test_a_destroyed_data_plane_comes_back(town: Town, bring_back: Callable[[Town], None]) -> None:
    assert town.wrong() == []
    town.destroy_data_plane()
    assert not pings(town.near, FAR)
    bring_back(town)
    assert town.wrong() == []
    assert town.client.doctor.check().is_clean


def test_a_lost_bridge_comes_back_with_what_is_plugged_into_it(town: Town) -> None:
    fabric = names.fabric_namespace(town.server.tag)
    subnet = town.client.subnets.get("near")
    remove_link(fabric, names.bridge(town.server.tag, subnet.id))
    assert not pings(town.near, FAR)
    repair(town)
    assert town.wrong() == []
