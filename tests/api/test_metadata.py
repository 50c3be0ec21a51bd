"""What guests see at 169.254.169.254: their own facts, and never another's."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from iaas.api.metadata.server import ADDRESS, PORT, MetadataServers, PublishedNetworks
from iaas.api.metadata.tree import lookup
from iaas.cloud import Cloud
from iaas.drivers.interface import NetworkCapability, NetworkDriver, NetworkSpec, NetworkState, PortSpec, PortState
from iaas.resources.instances import Instance
from iaas.services.metadata import GuestMetadata
from tests.factories import create, operator, settle

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me"


def guest_of(cloud: Cloud, instance: Instance) -> GuestMetadata:
    assert instance.address is not None
    found = cloud.metadata.of_guest(instance.nics[0].network_id, instance.address)
    assert found is not None
    return found


@pytest.fixture
def web(cloud: Cloud) -> Instance:
    cloud.key_pairs.create(operator(cloud), name="me", public_key=KEY)
    return create(cloud, name="web", key_pairs=("me",), user_data=b"#!/bin/sh\x00\xff")


def test_tree(cloud: Cloud, web: Instance) -> None:
    guest = guest_of(cloud, web)
    for path, content in {
        "/": "2009-04-04\nlatest",
        "": "2009-04-04\nlatest",
        "/latest": "dynamic\nmeta-data\nuser-data",
        "/latest/": "dynamic\nmeta-data\nuser-data",
        "/latest/meta-data/instance-id": web.id,
        "/2009-04-04/meta-data/instance-id": web.id,
        "/latest/meta-data/instance-id/": web.id,
        "//latest//meta-data//instance-id": web.id,
        "/latest/meta-data/hostname": "web",
        "/latest/meta-data/local-hostname": "web",
        "/latest/meta-data/local-ipv4": web.address,
        "/latest/meta-data/mac": web.nics[0].mac,
        "/latest/meta-data/ami-id": web.image_id,
        "/latest/meta-data/instance-type": "nano",
        "/latest/meta-data/placement/": "availability-zone",
        "/latest/meta-data/placement/availability-zone": web.zone,
        "/latest/meta-data/public-keys/": "0=me",
        "/latest/meta-data/public-keys/0/": "openssh-key",
        "/latest/meta-data/public-keys/0/openssh-key": KEY,
    }.items():
        found = lookup(path, guest)
        assert found is not None, path
        assert found.decode() == content, path
    assert lookup("/latest/user-data", guest) == b"#!/bin/sh\x00\xff"
    document = lookup("/latest/dynamic/instance-identity/document", guest)
    assert document is not None
    assert web.id.encode() in document


def test_every_leaf_that_is_listed_is_there(cloud: Cloud, web: Instance) -> None:
    guest = guest_of(cloud, web)

    def walk(path: str) -> int:
        listed = lookup(path, guest)
        assert listed is not None, path
        count = 0
        for name in listed.decode().split("\n"):
            child = f"{path}{name.partition('=')[0]}"
            if name.endswith("/") or "=" in name:
                count += walk(child if child.endswith("/") else f"{child}/")
            else:
                assert lookup(child, guest) is not None, child
                count += 1
        return count

    assert walk("/latest/meta-data/") >= 8


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/latest/nothing",
        "/latest/meta-data/nothing",
        "/latest/meta-data/../user-data",
        "/latest/meta-data/public-keys/1/openssh-key",
        "/latest/meta-data/public-keys/-1/openssh-key",
        "/latest/meta-data/public-keys/x",
        "/latest/meta-data/public-keys/" + "9" * 5000,
        "/latest/meta-data/public-keys/0/other",
        "/latest/user-data/more",
        "/latest/dynamic/instance-identity/signature",
    ],
)
def test_paths_that_lead_nowhere(cloud: Cloud, web: Instance, path: str) -> None:
    assert lookup(path, guest_of(cloud, web)) is None


def test_without_keys_and_user_data(cloud: Cloud) -> None:
    guest = guest_of(cloud, create(cloud))
    assert lookup("/latest/user-data", guest) is None
    assert lookup("/latest/meta-data/public-keys/", guest) is None
    for folder in ("/latest/", "/latest/meta-data/"):
        listed = lookup(folder, guest)
        assert listed is not None
        assert b"user-data" not in listed
        assert b"public-keys" not in listed


def test_empty_user_data_is_user_data(cloud: Cloud) -> None:
    assert lookup("/latest/user-data", guest_of(cloud, create(cloud, user_data=b""))) == b""


def test_the_same_address_in_two_networks_is_two_guests(cloud: Cloud) -> None:
    one, two = create(cloud, name="one", zone="zone-1"), create(cloud, name="two", zone="zone-2")
    assert one.address is not None
    assert two.address is not None
    assert cloud.metadata.of_guest(two.nics[0].network_id, one.address) is None
    assert guest_of(cloud, one).instance.id == one.id
    assert guest_of(cloud, two).instance.id == two.id


def test_a_deleted_guest_is_nobody(cloud: Cloud, web: Instance) -> None:
    cloud.instances.delete(operator(cloud), web.id)
    settle(cloud)
    assert web.address is not None
    assert cloud.metadata.of_guest(web.nics[0].network_id, web.address) is None


class LoopbackNetworks:
    """A network driver whose networks are all this machine's loopback."""

    capabilities = frozenset({NetworkCapability.METADATA})

    def __init__(self) -> None:
        self.listeners: dict[str, socket.socket] = {}
        self.asked: list[tuple[str, int]] = []

    def check_available(self) -> None: ...

    def ensure_network(self, spec: NetworkSpec) -> NetworkState:
        return NetworkState(network_id=spec.network_id)

    def remove_network(self, network_id: str) -> None: ...

    def ensure_port(self, spec: PortSpec) -> PortState:
        return PortState(nic_id=spec.nic_id, network_id=spec.network_id)

    def remove_port(self, network_id: str, nic_id: str) -> None: ...

    def networks(self) -> list[NetworkState]:
        return []

    def ports(self, network_id: str) -> list[PortState]:
        return []

    def dial(self, network_id: str, address: str, port: int, *, timeout_s: float) -> socket.socket:
        raise NotImplementedError

    def listen(self, network_id: str, address: str, port: int) -> socket.socket:
        self.asked.append((address, port))
        self.listeners[network_id] = socket.create_server(("127.0.0.1", 0))
        return self.listeners[network_id]

    def close(self) -> None: ...


@pytest.fixture
def driver() -> LoopbackNetworks:
    return LoopbackNetworks()


@pytest.fixture
def published(cloud: Cloud, driver: LoopbackNetworks) -> Iterator[NetworkDriver]:
    servers = MetadataServers()
    servers.connect(cloud.metadata)
    networks = PublishedNetworks(driver, servers)
    yield networks
    networks.close()


def request(port: int, path: str, source: str, method: str = "GET") -> tuple[int, bytes]:
    """Ask from an address of the loopback, which stands for the guest's."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20, source_address=(source, 0))) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()


def move_to_loopback(cloud: Cloud, instance: Instance, address: str) -> None:
    """Give the instance's NIC an address of the loopback."""
    from sqlalchemy import update

    from iaas.db.models import NICRow

    nic = instance.nics[0].id
    cloud.store.write(
        lambda tx: tx.connection.execute(update(NICRow).where(NICRow.id == nic).values(address=address)) and None
    )


def test_over_the_wire(cloud: Cloud, web: Instance, driver: LoopbackNetworks, published: NetworkDriver) -> None:
    other = create(cloud, name="other", user_data=b"of the other")
    move_to_loopback(cloud, web, "127.0.0.7")
    move_to_loopback(cloud, other, "127.0.0.8")
    network_id = web.nics[0].network_id
    spec = NetworkSpec(network_id=network_id, cidr="127.0.0.0/8", gateway="127.0.0.1")
    published.ensure_network(spec)
    published.ensure_network(spec)
    assert driver.asked == [(ADDRESS, PORT)]
    port = driver.listeners[network_id].getsockname()[1]
    assert request(port, "/latest/meta-data/instance-id", "127.0.0.7") == (200, web.id.encode())
    assert request(port, "/latest/user-data", "127.0.0.7") == (200, b"#!/bin/sh\x00\xff")
    assert request(port, "/latest/meta-data/instance-id", "127.0.0.8") == (200, other.id.encode())
    assert request(port, "/latest/user-data", "127.0.0.8") == (200, b"of the other")
    assert request(port, "/latest/meta-data/instance-id", "127.0.0.9")[0] == 404
    assert request(port, "/latest/nothing", "127.0.0.7")[0] == 404
    assert request(port, "/latest/meta-data/%00%ff", "127.0.0.7")[0] == 404
    assert request(port, "/latest/meta-data/instance-id?x=y", "127.0.0.7") == (200, web.id.encode())
    assert request(port, "/latest/meta-data/", "127.0.0.7", "HEAD") == (200, b"")
    for method in ("POST", "PUT", "DELETE"):
        assert request(port, "/latest/user-data", "127.0.0.7", method)[0] == 405
    published.remove_network(network_id)
    with pytest.raises(OSError, match=r"refused|reset|closed"):
        request(port, "/", "127.0.0.7")


def test_a_stopped_server_leaves_its_address_and_no_thread(
    cloud: Cloud, driver: LoopbackNetworks, published: NetworkDriver
) -> None:
    before = set(threading.enumerate())
    published.ensure_network(NetworkSpec(network_id="net-1", cidr="127.0.0.0/8", gateway="127.0.0.1"))
    port = driver.listeners["net-1"].getsockname()[1]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as idle:
        assert request(port, "/", "127.0.0.7")[0] == 404
        published.remove_network("net-1")
        assert idle.recv(1) == b"", "the server's end is closed too"
    with socket.socket() as next_one:
        next_one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        next_one.bind(("127.0.0.1", port))
        next_one.listen()
    assert {thread.name for thread in set(threading.enumerate()) - before} == set()


def test_a_guest_cannot_say_that_it_is_another(
    cloud: Cloud, web: Instance, driver: LoopbackNetworks, published: NetworkDriver
) -> None:
    move_to_loopback(cloud, web, "127.0.0.7")
    network_id = web.nics[0].network_id
    published.ensure_network(NetworkSpec(network_id=network_id, cidr="127.0.0.0/8", gateway="127.0.0.1"))
    port = driver.listeners[network_id].getsockname()[1]
    with closing(
        http.client.HTTPConnection("127.0.0.1", port, timeout=20, source_address=("127.0.0.9", 0))
    ) as connection:
        headers = {"X-Forwarded-For": "127.0.0.7", "Forwarded": "for=127.0.0.7", "X-Real-IP": "127.0.0.7"}
        connection.request("GET", "/latest/user-data", headers=headers)
        answer = connection.getresponse()
        assert answer.status == 404
        assert b"bin/sh" not in answer.read()
