"""What a VPC does for its guests: routing between subnets, DHCP, DNS, the metadata address, counting."""

from __future__ import annotations

import dataclasses
import errno
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from iaas.drivers.interface import (
    METADATA_ADDRESS,
    SERVICE_ADDRESS,
    DNSRecordSpec,
    ForwarderSpec,
    NotFoundError,
    PermanentError,
    ReservationSpec,
    TransientError,
)
from iaas.drivers.linux.namespaces import entered
from iaas.drivers.linux.programs import ProgramError
from tests.contract.network_subjects import OWNER, NetworkSubject
from tests.contract.wire_guest import CONNECT_TIMEOUT_S, WireGuest, plug
from tests.real_host import RealHost


@contextmanager
def answering(guest: WireGuest, address: str, port: int = 80, *, namespace: str | None = None) -> Iterator[None]:
    """Let the guest tell everyone who connects from where he came."""
    with entered(namespace or guest.namespace):
        listener = socket.create_server((address, port))

    def serve() -> None:
        while True:
            try:
                connection, peer = listener.accept()
            except OSError:  # closed
                return
            with connection:
                connection.sendall(peer[0].encode())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def said(connection: socket.socket) -> str:
    with connection:
        connection.settimeout(CONNECT_TIMEOUT_S)
        return connection.recv(100).decode()


def test_dhcp_gives_the_assigned_address_and_the_options(wired: NetworkSubject, host: RealHost) -> None:
    vpc = wired.vpc(dns_domain="lab.test", ntp_servers=("10.77.0.123",), lease_s=600)
    subnets = [wired.subnet(vpc, mtu=1400), wired.subnet(vpc, cidr="10.77.4.0/22")]
    ports = [
        wired.port(subnets[0], "10.77.0.23", "10.77.0.24", names=("db", "i-12345678")),
        wired.port(subnets[1], "10.77.6.7"),
    ]
    with plug(host, ports[0]) as first, plug(host, ports[1]) as second:
        lease = first.lease()
        assert (lease["ip"], lease["subnet"], lease["router"]) == ("10.77.0.23", "255.255.255.0", "10.77.0.1")
        assert (lease["dns"], lease["mtu"], lease["domain"]) == ("10.77.0.1", "1400", "lab.test")
        assert (lease["ntpsrv"], lease["lease"]) == ("10.77.0.123", "600")
        assert "10.77.0.23" in first.resolve("i-12345678.lab.test", "10.77.0.1")
        lease = second.lease()
        assert (lease["ip"], lease["subnet"], lease["router"]) == ("10.77.6.7", "255.255.252.0", "10.77.4.1")
        assert (lease["dns"], lease["mtu"]) == ("10.77.4.1", "1500")
        # Of another subnet of the VPC, by another resolver of it.
        assert "10.77.0.23" in second.resolve("db.lab.test", "10.77.4.1")
    wired.driver.ensure_vpc(dataclasses.replace(vpc, dns_servers=("10.77.0.53", "10.77.0.54"), revision=1))
    with plug(host, ports[0]) as first:
        assert first.lease()["dns"] == "10.77.0.53 10.77.0.54"


def test_a_nic_without_address_gets_none(wired: NetworkSubject, host: RealHost) -> None:
    subnet = wired.subnet(wired.vpc())
    with plug(host, wired.port(subnet)) as guest, pytest.raises(ProgramError):
        guest.lease(tries=2)


def test_an_address_goes_to_its_next_owner_at_once(wired: NetworkSubject, host: RealHost) -> None:
    subnet = wired.subnet(wired.vpc())
    old, new = wired.port(subnet, "10.77.0.10"), wired.port(subnet, "10.77.0.11")
    with plug(host, old) as guest:
        assert guest.lease()["ip"] == "10.77.0.10"
    wired.driver.remove_port(subnet.subnet_id, old.nic_id)
    # One that has been there moves to it, with the lease of its own address still running.
    with plug(host, new) as guest:
        assert guest.lease()["ip"] == "10.77.0.11"
        wired.driver.ensure_port(dataclasses.replace(new, addresses=("10.77.0.10",), revision=1))
        assert guest.lease()["ip"] == "10.77.0.10"
    newest = wired.port(subnet, "10.77.0.11")
    with plug(host, newest) as guest:
        assert guest.lease()["ip"] == "10.77.0.11"


def test_who_talked_to_the_last_owner_of_an_address_talks_to_the_next(wired: NetworkSubject, host: RealHost) -> None:
    vpc = wired.vpc()
    subnet, far = wired.subnet(vpc), wired.subnet(vpc, cidr="10.77.1.0/24")
    beside, across = wired.port(subnet, "10.77.0.20"), wired.port(far, "10.77.1.10")
    with plug(host, beside, subnet=subnet) as neighbour, plug(host, across, subnet=far) as distant:
        for _ in range(2):
            port = wired.port_spec(subnet, "10.77.0.10")
            with plug(host, port, subnet=subnet) as owner, answering(owner, "10.77.0.10"):
                wired.driver.ensure_port(port)
                assert said(neighbour.connect("10.77.0.10", 80)) == "10.77.0.20"
                assert said(distant.connect("10.77.0.10", 80)) == "10.77.1.10"
            wired.driver.remove_port(subnet.subnet_id, port.nic_id)


def test_equal_addresses_in_two_vpcs_lead_to_two_guests(wired: NetworkSubject, host: RealHost) -> None:
    vpcs = [wired.vpc(), wired.vpc()]
    subnets = [wired.subnet(vpc) for vpc in vpcs]
    ports = [wired.port(subnet, "10.77.0.10") for subnet in subnets]
    with plug(host, ports[0]) as first, plug(host, ports[1]) as second:
        assert first.lease()["ip"] == second.lease()["ip"] == "10.77.0.10"
        with answering(first, "10.77.0.10"):
            assert said(wired.driver.dial(vpcs[0].vpc_id, "10.77.0.10", 80, timeout_s=5)) == "10.77.0.1"
            with pytest.raises(TransientError):
                wired.driver.dial(vpcs[1].vpc_id, "10.77.0.10", 80, timeout_s=1)


def test_subnets_of_a_vpc_are_routed_and_the_rest_is_refused_at_once(wired: NetworkSubject, host: RealHost) -> None:
    vpc, other = wired.vpc(), wired.vpc(cidr="10.88.0.0/16")
    subnets = [wired.subnet(vpc), wired.subnet(vpc, cidr="10.77.1.0/24"), wired.subnet(other, cidr="10.88.0.0/24")]
    ports = [wired.port(subnet, f"{str(subnet.gateway).removesuffix('.1')}.10") for subnet in subnets]
    with ExitStack() as plugged:
        guests = [
            plugged.enter_context(plug(host, port, subnet=subnet)) for port, subnet in zip(ports, subnets, strict=True)
        ]
        for guest, port in zip(guests, ports, strict=True):
            plugged.enter_context(answering(guest, port.addresses[0]))
        assert said(guests[0].connect("10.77.1.10", 80)) == "10.77.0.10"
        assert said(guests[1].connect("10.77.0.10", 80)) == "10.77.1.10"
        # Another VPC, a part of this one that no subnet has, the rest of the world.
        for nowhere in ("10.88.0.10", "10.77.2.10", "192.0.2.1"):
            with pytest.raises(OSError) as refusal:  # noqa: PT011 - the number is looked at, as the text is the system's
                guests[0].connect(nowhere, 80)
            assert refusal.value.errno in {errno.ENETUNREACH, errno.EHOSTUNREACH}
            with pytest.raises((TransientError, PermanentError)):
                wired.driver.dial(vpc.vpc_id, nowhere, 80, timeout_s=1)


def test_pods_behind_a_bridged_nic_are_seen_by_their_own_addresses(wired: NetworkSubject, host: RealHost) -> None:
    vpc = wired.vpc()
    reserved = ReservationSpec(owner=OWNER, first="10.77.0.100", last="10.77.0.149")
    subnet, far = wired.subnet(vpc, reservations=(reserved,)), wired.subnet(vpc, cidr="10.77.1.0/24")
    node, server, neighbour = wired.port(subnet), wired.port(far, "10.77.1.10"), wired.port(subnet, "10.77.0.10")
    addresses = [f"10.77.0.{number}" for number in range(100, 150)]
    with (
        plug(host, node) as bridged,
        plug(host, server, subnet=far) as across,
        plug(host, neighbour, subnet=subnet) as beside,
        answering(across, "10.77.1.10"),
        answering(beside, "10.77.0.10"),
    ):
        bridged.bridge_nic()
        pods = {address: bridged.add_pod(wired.ids.mac(), address, subnet=subnet) for address in addresses}
        for address, pod in pods.items():
            with entered(pod):
                assert said(socket.create_connection(("10.77.1.10", 80), CONNECT_TIMEOUT_S)) == address
                assert said(socket.create_connection(("10.77.0.10", 80), CONNECT_TIMEOUT_S)) == address
        # And the other way round, nothing translated.
        with answering(bridged, addresses[7], namespace=pods[addresses[7]]):
            assert said(across.connect(addresses[7], 80)) == "10.77.1.10"


def test_dns_knows_names_records_and_nothing_of_the_outside(wired: NetworkSubject, host: RealHost) -> None:
    records = (
        DNSRecordSpec(name="www.example.test", type="A", values=("10.77.0.81", "10.77.0.82"), ttl_s=7),
        DNSRecordSpec(name="shop.example.test", type="CNAME", values=("www.example.test",)),
        DNSRecordSpec(name="alias.internal", type="CNAME", values=("web.internal",)),
        DNSRecordSpec(name="_acme.example.test", type="TXT", values=('say "no", or\nserver=/#/192.0.2.1', "two")),
    )
    vpc = wired.vpc(records=records)
    subnet = wired.subnet(vpc)
    port = wired.port(subnet, "10.77.0.10", names=("web", "i-12345678"))
    gateway = "10.77.0.1"
    with plug(host, port, subnet=subnet) as guest:
        assert "10.77.0.10" in guest.resolve("web.internal", gateway)
        assert "10.77.0.10" in guest.resolve("i-12345678", gateway)
        answer = guest.resolve("www.example.test", gateway)
        assert "10.77.0.81" in answer
        assert "10.77.0.82" in answer
        assert "10.77.0.82" in guest.resolve("shop.example.test", gateway)
        assert "10.77.0.10" in guest.resolve("alias.internal", gateway)
        answer = guest.resolve("_acme.example.test", gateway, kind="txt")
        assert "two" in answer
        assert "server=/#/192.0.2.1" in answer
        for unknown in ("nobody.internal", "example.test", "debian.org"):
            with pytest.raises(ProgramError) as failure:
                guest.resolve(unknown, gateway)
            assert "timed out" not in failure.value.stderr
        wired.driver.ensure_vpc(dataclasses.replace(vpc, records=(), revision=1))
        with pytest.raises(ProgramError):
            guest.resolve("www.example.test", gateway)
        wired.driver.remove_port(subnet.subnet_id, port.nic_id)
    with plug(host, wired.port(subnet, "10.77.0.11"), subnet=subnet) as guest, pytest.raises(ProgramError):
        guest.resolve("web.internal", gateway)


def test_a_domain_is_forwarded_to_a_server_inside(wired: NetworkSubject, host: RealHost) -> None:
    vpc = wired.vpc(forwarders=(ForwarderSpec(domain="cluster.test", servers=("10.77.1.53",)),))
    subnet, far = wired.subnet(vpc), wired.subnet(vpc, cidr="10.77.1.0/24")
    client, server = wired.port(subnet, "10.77.0.10"), wired.port(far, "10.77.1.53")
    argv = ["dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--user=root"]
    argv += ["--pid-file=", "--bind-interfaces", "--listen-address=10.77.1.53"]
    argv += ["--host-record=api.cluster.test,10.96.0.1"]
    with (
        plug(host, client, subnet=subnet) as asker,
        plug(host, server, subnet=far) as answerer,
        answerer.running(argv, is_ready=lambda: answerer.has_listener(53)),
    ):
        assert "10.96.0.1" in asker.resolve("api.cluster.test", "10.77.0.1")
        with pytest.raises(ProgramError):
            asker.resolve("api.other.test", "10.77.0.1")


def test_guests_reach_the_service_addresses(wired: NetworkSubject, host: RealHost) -> None:
    vpc = wired.vpc()
    subnets = [wired.subnet(vpc), wired.subnet(vpc, cidr="10.77.1.0/24")]
    ports = [wired.port(subnets[0], "10.77.0.10"), wired.port(subnets[1], "10.77.1.10")]
    for address in (METADATA_ADDRESS, SERVICE_ADDRESS) * 2:  # a listener that was closed can be opened again
        with (
            wired.driver.listen(vpc.vpc_id, address, 80) as listener,
            plug(host, ports[0], subnet=subnets[0]) as first,
            plug(host, ports[1], subnet=subnets[1]) as second,
        ):
            for guest, port in ((first, ports[0]), (second, ports[1])):
                with guest.connect(address, 80) as connection:
                    accepted, peer = listener.accept()
                    assert peer[0] == port.addresses[0]
                    accepted.close()
                    assert connection.recv(1) == b""


def test_dialling_needs_somebody_who_listens_and_an_address_of_the_vpc(wired: NetworkSubject, host: RealHost) -> None:
    vpc = wired.vpc()
    subnet = wired.subnet(vpc)
    with pytest.raises(TransientError), plug(host, wired.port(subnet, "10.77.0.10"), subnet=subnet):
        wired.driver.dial(vpc.vpc_id, "10.77.0.10", 81, timeout_s=2)
    for address in ("192.0.2.1", "127.0.0.1", METADATA_ADDRESS, SERVICE_ADDRESS, "10.77.0.1", "nowhere"):
        with pytest.raises(PermanentError):
            wired.driver.dial(vpc.vpc_id, address, 80, timeout_s=1)


def test_listening_needs_a_vpc_and_an_address_of_its_router(wired: NetworkSubject) -> None:
    vpc = wired.vpc_spec()
    with pytest.raises(NotFoundError):
        wired.driver.listen(vpc.vpc_id, METADATA_ADDRESS, 80)
    wired.driver.ensure_vpc(vpc)
    with pytest.raises(PermanentError):
        wired.driver.listen(vpc.vpc_id, "10.77.0.9", 80)


def test_a_subnet_that_joins_has_a_gateway_and_one_that_left_has_none(wired: NetworkSubject, host: RealHost) -> None:
    vpc = wired.vpc()
    far = wired.subnet(vpc, cidr="10.77.1.0/24")
    subnet = wired.subnet(None)
    port = wired.port(subnet, "10.77.0.10")
    server = wired.port(far, "10.77.1.10")
    joined = dataclasses.replace(subnet, vpc_id=vpc.vpc_id, cidr="10.77.0.0/24", gateway="10.77.0.1", revision=1)
    with plug(host, port) as guest, plug(host, server, subnet=far) as across, answering(across, "10.77.1.10"):
        with pytest.raises(ProgramError):
            guest.lease(tries=2)
        wired.driver.ensure_subnet(joined)
        assert guest.lease()["ip"] == "10.77.0.10"
        assert said(guest.connect("10.77.1.10", 80)) == "10.77.0.10"
        wired.driver.ensure_subnet(dataclasses.replace(subnet, revision=2))
        assert not guest.can_connect("10.77.1.10", 80)
        wired.driver.ensure_subnet(dataclasses.replace(joined, revision=3))
        assert said(guest.connect("10.77.1.10", 80)) == "10.77.0.10"


def test_the_mtu_is_that_of_all_links(wired: NetworkSubject, host: RealHost) -> None:
    vpc = wired.vpc()
    subnet, far = wired.subnet(vpc, mtu=9000), wired.subnet(vpc, cidr="10.77.1.0/24", mtu=9000)
    ports = [wired.port(subnet, "10.77.0.10"), wired.port(far, "10.77.1.10")]
    with plug(host, ports[0], subnet=subnet) as first, plug(host, ports[1], subnet=far) as second:
        assert first.largest_datagram("10.77.1.10", to=second) == 9000
        wired.driver.ensure_subnet(dataclasses.replace(far, mtu=1400, revision=1))
        assert first.largest_datagram("10.77.1.10", to=second) == 1400


def test_a_nic_counts_what_its_machine_sent_and_received(wired: NetworkSubject, host: RealHost) -> None:
    vpc = wired.vpc()
    subnet = wired.subnet(vpc)
    ports = [wired.port(subnet, "10.77.0.10"), wired.port(subnet, "10.77.0.20")]
    assert wired.driver.statistics(subnet.subnet_id, ports[0].nic_id) is None
    with plug(host, ports[0], subnet=subnet) as sender, plug(host, ports[1], subnet=subnet, as_vm=True) as receiver:
        with receiver.listen("10.77.0.20", 80) as listener, sender.connect("10.77.0.20", 80) as connection:
            accepted, _ = listener.accept()
            with accepted:
                connection.sendall(bytes(100_000))
                got = 0
                while got < 100_000:
                    got += len(accepted.recv(65536))
        counted = [wired.driver.statistics(subnet.subnet_id, port.nic_id) for port in ports]
        assert counted[0] is not None
        assert counted[1] is not None
        assert counted[0].sent_bytes > 100_000 > counted[0].received_bytes > 0
        assert counted[1].received_bytes > 100_000 > counted[1].sent_bytes > 0
        assert counted[1].received_packets > 0
        assert wired.driver.statistics(subnet.subnet_id, "nic-absent00") is None
