"""The metadata service and the tenant APIs by real packets, from light guests in VPCs of equal blocks."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from iaas.api.app import create_app
from iaas.api.inside.published import PublishedNetworks
from iaas.api.inside.servers import GuestServers
from iaas.api.inside.tenant_api import TenantAPI
from iaas.api.metadata.app import MetadataApp
from iaas.cloud import Cloud
from iaas.drivers.interface import (
    METADATA_ADDRESS,
    SERVICE_ADDRESS,
    NetworkDriver,
    PortSpec,
    ReservationSpec,
    SubnetSpec,
    VPCSpec,
)
from iaas.drivers.linux import names
from iaas.drivers.linux.namespaces import entered, namespace_exists, remove_namespace
from iaas.resources.instances import Instance
from tests.api.guest_places import make_vpc, put
from tests.contract.network_subjects import NetworkSubject
from tests.contract.wire_guest import WireGuest, plug
from tests.factories import TOKEN, create, open_cloud, principal_in
from tests.real_host import RealHost

CIDR = "10.77.0.0/24"
FIRST, SECOND = "10.77.0.10", "10.77.0.11"
INSTANCE_ID = "/latest/meta-data/instance-id"


@dataclass
class Place:
    """A cloud whose metadata and APIs are served in VPCs of the real network driver; its machines are wire guests."""

    cloud: Cloud
    host: RealHost
    subject: NetworkSubject
    servers: GuestServers
    stack: ExitStack
    subnets: dict[int, SubnetSpec] = field(default_factory=dict)

    @property
    def networks(self) -> PublishedNetworks:
        return PublishedNetworks(self.subject.driver, self.servers)

    def vpc_spec(self, number: int) -> VPCSpec:
        return VPCSpec(vpc_id=f"vpc-test{number:04}", cidr=CIDR)

    def make_vpc(self, number: int, *, reservations: tuple[ReservationSpec, ...] = ()) -> None:
        make_vpc(self.cloud, number, cidr=CIDR)
        spec = self.vpc_spec(number)
        self.subnets[number] = SubnetSpec(
            subnet_id=f"net-test{number:04}",
            vpc_id=spec.vpc_id,
            cidr=CIDR,
            gateway="10.77.0.1",
            reservations=reservations,
        )
        self.subject.made_vpcs.append(spec.vpc_id)
        self.subject.made_subnets.append(self.subnets[number].subnet_id)
        self.networks.ensure_vpc(spec)
        self.networks.ensure_subnet(self.subnets[number])

    def make_guest(self, number: int, address: str, name: str, **more: Any) -> tuple[Instance, WireGuest]:
        """Return an instance in the VPC of that number, and the guest that stands for its machine."""
        instance = create(self.cloud, name=name, user_data=f"of {name}".encode(), **more)
        put(self.cloud, instance, f"vpc-test{number:04}", address)
        nic, subnet = instance.nics[0], self.subnets[number]
        port = PortSpec(
            nic_id=nic.id, subnet_id=subnet.subnet_id, mac=nic.mac, owner=instance.project_id, addresses=(address,)
        )
        self.networks.ensure_port(port)
        return instance, self.stack.enter_context(plug(self.host, port, subnet=subnet))

    def serve_anew(self, driver: NetworkDriver) -> None:
        """Be another server process, as after a kill: nothing is known but what is on disk."""
        self.servers.close()
        self.servers = served(self.cloud)
        self.stack.callback(self.servers.close)
        self.subject.driver = driver


def served(cloud: Cloud) -> GuestServers:
    servers = GuestServers()
    servers.connect(MetadataApp(cloud.metadata, cloud.wall))
    servers.connect_api(TenantAPI(create_app(cloud)))
    return servers


@pytest.fixture
def place(wired: NetworkSubject, host: RealHost) -> Iterator[Place]:
    with open_cloud() as cloud, ExitStack() as stack:
        servers = served(cloud)
        stack.callback(servers.close)
        yield Place(cloud, host, wired, servers, stack)


def ask(
    namespace: str,
    path: str,
    *,
    at: str = METADATA_ADDRESS,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    source: str | None = None,
    timeout_s: float = 20,
) -> tuple[int, str]:
    """Return status and body of what somebody in a guest's (or pod's) namespace is answered.

    Raises:
        OSError: nobody answers.
    """
    with entered(namespace):
        connection = socket.create_connection((at, 80), timeout_s, None if source is None else (source, 0))
    with connection:
        lines = [f"{name}: {value}" for name, value in {"Host": at, "Connection": "close", **(headers or {})}.items()]
        connection.sendall("\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode())
        answer = http.client.HTTPResponse(connection, method=method)
        answer.begin()
        return answer.status, answer.read().decode()


def call(namespace: str, path: str, token: str | None) -> tuple[int, Any]:
    """Ask the tenant APIs."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    status, body = ask(namespace, path, at=SERVICE_ADDRESS, headers=headers)
    return status, json.loads(body)


def test_guests_of_equal_addresses_read_their_own(place: Place) -> None:
    for number in (1, 2):
        place.make_vpc(number)
    (one, guest_one), (two, guest_two) = place.make_guest(1, FIRST, "one"), place.make_guest(2, FIRST, "two")
    for instance, guest in ((one, guest_one), (two, guest_two)):
        assert ask(guest.namespace, INSTANCE_ID) == (200, instance.id)
        assert ask(guest.namespace, "/latest/user-data") == (200, f"of {instance.name}")
        assert ask(
            guest.namespace, f"/latest/meta-data/network/interfaces/macs/{instance.nics[0].mac}/local-ipv4s"
        ) == (
            200,
            FIRST,
        )
    token = ask(
        guest_one.namespace, "/latest/api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    )
    assert token[0] == 200
    assert ask(guest_one.namespace, INSTANCE_ID, headers={"X-aws-ec2-metadata-token": token[1]}) == (200, one.id)
    assert ask(guest_two.namespace, INSTANCE_ID, headers={"X-aws-ec2-metadata-token": token[1]})[0] == 401


def test_a_guest_cannot_take_its_neighbours_place(place: Place) -> None:
    place.make_vpc(1)
    (one, guest_one), (_, guest_two) = place.make_guest(1, FIRST, "one"), place.make_guest(1, SECOND, "two")
    status, said = ask(
        guest_two.namespace, "/latest/user-data", headers={"X-Forwarded-For": FIRST, "Forwarded": f"for={FIRST}"}
    )
    assert (status, said) == (200, "of two")
    guest_two.add_address(FIRST, 24)
    with pytest.raises(TimeoutError):  # what it sends in the other's name is dropped
        ask(guest_two.namespace, INSTANCE_ID, source=FIRST, timeout_s=2)
    assert ask(guest_one.namespace, INSTANCE_ID) == (200, one.id)


def test_guests_call_the_cloud_with_their_own_credentials(place: Place) -> None:
    place.make_vpc(1)
    somebody, token = principal_in(place.cloud, "team")
    instance = create(place.cloud, somebody, name="of-the-team")
    _, guest = place.make_guest(1, FIRST, "node")
    status, listed = call(guest.namespace, "/v1/instances", token)
    assert (status, [each["id"] for each in listed["items"]]) == (200, [instance.id])
    assert call(guest.namespace, "/v1/instances", None)[0] == 401
    for hidden in ("/v1/health", "/v1/hosts", "/v1/doctor", "/metrics", "/v1/nothing"):
        assert call(guest.namespace, hidden, TOKEN)[0] == 404, hidden


def test_pods_call_the_cloud_too_and_have_no_metadata(place: Place) -> None:
    owner = create(place.cloud, name="owner").project_id
    place.make_vpc(1, reservations=(ReservationSpec(owner=owner, first="10.77.0.100", last="10.77.0.109"),))
    _, node = place.make_guest(1, FIRST, "node")
    node.bridge_nic()
    pod = node.add_pod("02:00:00:00:00:64", "10.77.0.100", subnet=place.subnets[1])
    assert call(pod, "/v1/instances", TOKEN)[0] == 200
    assert ask(pod, INSTANCE_ID)[0] == 404


def test_slow_guests_of_one_vpc_hold_no_other_up(place: Place) -> None:
    for number in (1, 2):
        place.make_vpc(number)
    (_, slow), (two, quick) = place.make_guest(1, FIRST, "slow"), place.make_guest(2, FIRST, "quick")
    with ExitStack() as stack:
        for address in (METADATA_ADDRESS, SERVICE_ADDRESS):
            for _ in range(12):
                stack.enter_context(slow.connect(address, 80)).sendall(b"GET /half")
        assert ask(quick.namespace, INSTANCE_ID) == (200, two.id)
        assert call(quick.namespace, "/v1/instances", TOKEN)[0] == 200
        assert ask(slow.namespace, INSTANCE_ID)[0] == 200


def test_a_killed_server_and_a_lost_router_are_made_up_for(place: Place) -> None:
    place.make_vpc(1)
    one, guest = place.make_guest(1, FIRST, "one")
    with guest.connect(METADATA_ADDRESS, 80):  # lingers when its server has gone
        place.serve_anew(place.subject.reopen())
        assert not guest.can_connect(METADATA_ADDRESS, 80)
        place.networks.ensure_vpc(place.vpc_spec(1))
        assert ask(guest.namespace, INSTANCE_ID) == (200, one.id)
    remove_namespace(names.router_namespace(place.host.tag, "vpc-test0001"))
    place.networks.ensure_vpc(place.vpc_spec(1))
    assert ask(guest.namespace, INSTANCE_ID) == (200, one.id)
    assert call(guest.namespace, "/v1/instances", TOKEN)[0] == 200


def test_nothing_of_a_removed_vpc_is_left(place: Place) -> None:
    place.make_vpc(1)
    _, guest = place.make_guest(1, FIRST, "one")
    with guest.connect(METADATA_ADDRESS, 80):
        assert ask(guest.namespace, INSTANCE_ID)[0] == 200
        place.networks.remove_subnet("net-test0001")
        place.networks.remove_vpc("vpc-test0001")
    assert not namespace_exists(names.router_namespace(place.host.tag, "vpc-test0001"))
    assert not guest.can_connect(METADATA_ADDRESS, 80)
