"""The contract of NetworkDriver."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from iaas.drivers.interface import NetworkCapability, NotFoundError, PermanentError, TransientError
from iaas.drivers.linux import names
from iaas.drivers.linux.links import link_names
from iaas.drivers.linux.namespaces import list_namespaces, namespace_exists, remove_namespace
from iaas.drivers.linux.processes import Process, end_processes, find_processes
from iaas.drivers.linux.programs import ProgramError
from tests.contract.network_subjects import NETWORK_SUBJECTS, PACKET_SUBJECTS, NetworkSubject, subject_params
from tests.contract.wire_guest import plugged
from tests.real_host import RealHost


@pytest.fixture(params=subject_params(NETWORK_SUBJECTS))
def subject(request: pytest.FixtureRequest) -> Iterator[NetworkSubject]:
    made = NETWORK_SUBJECTS[request.param](request)
    yield made
    made.close()


@pytest.fixture(params=subject_params(PACKET_SUBJECTS))
def wired(request: pytest.FixtureRequest) -> Iterator[NetworkSubject]:
    made = NETWORK_SUBJECTS[request.param](request)
    yield made
    made.close()


@pytest.fixture
def host(wired: NetworkSubject) -> RealHost:
    assert wired.host is not None
    return wired.host


def dhcp_servers(network_id: str) -> list[Process]:
    return find_processes(lambda each: each.program == "dnsmasq" and any(network_id in part for part in each.argv))


def test_ensuring_a_network_again_changes_nothing(subject: NetworkSubject) -> None:
    network = subject.network()
    first = subject.driver.ensure_network(network)
    assert subject.driver.ensure_network(network) == first
    assert [state.network_id for state in subject.driver.networks()].count(network.network_id) == 1


def test_a_network_keeps_its_addresses(subject: NetworkSubject) -> None:
    network = subject.network()
    subject.driver.ensure_network(network)
    other = type(network)(network_id=network.network_id, cidr="10.78.0.0/24", gateway="10.78.0.1")
    with pytest.raises(PermanentError):
        subject.driver.ensure_network(other)


def test_removing_what_is_absent_succeeds(subject: NetworkSubject) -> None:
    network = subject.network()
    subject.driver.remove_network(network.network_id)
    subject.driver.remove_port(network.network_id, "nic-absent00")
    subject.driver.ensure_network(network)
    subject.driver.remove_port(network.network_id, "nic-absent00")
    subject.driver.remove_network(network.network_id)
    subject.driver.remove_network(network.network_id)
    assert network.network_id not in [state.network_id for state in subject.driver.networks()]


def test_a_removed_network_has_no_ports_and_cannot_be_dialled(subject: NetworkSubject) -> None:
    network = subject.network()
    subject.driver.ensure_network(network)
    port = subject.port(network)
    subject.driver.ensure_port(port)
    assert [state.nic_id for state in subject.driver.ports(network.network_id)] == [port.nic_id]
    subject.driver.remove_network(network.network_id)
    assert subject.driver.ports(network.network_id) == []
    if NetworkCapability.DIAL in subject.driver.capabilities:
        with pytest.raises(NotFoundError):
            subject.driver.dial(network.network_id, port.address, 80, timeout_s=1)


def test_a_port_needs_its_network(subject: NetworkSubject) -> None:
    with pytest.raises(NotFoundError):
        subject.driver.ensure_port(subject.port(subject.network()))


def test_ensuring_and_removing_a_port_again_changes_nothing(subject: NetworkSubject) -> None:
    network = subject.network()
    subject.driver.ensure_network(network)
    port = subject.port(network)
    first = subject.driver.ensure_port(port)
    assert subject.driver.ensure_port(port) == first
    assert subject.driver.ports(network.network_id) == [first]
    subject.driver.remove_port(network.network_id, port.nic_id)
    subject.driver.remove_port(network.network_id, port.nic_id)
    assert subject.driver.ports(network.network_id) == []


def test_two_networks_may_have_the_same_addresses(subject: NetworkSubject) -> None:
    networks = [subject.network(), subject.network()]
    for network in networks:
        subject.driver.ensure_network(network)
        subject.driver.ensure_port(subject.port(network))
    assert all(len(subject.driver.ports(network.network_id)) == 1 for network in networks)


def test_networks_and_ports_survive_a_restart_of_the_driver(subject: NetworkSubject) -> None:
    network = subject.network()
    subject.driver.ensure_network(network)
    port = subject.port(network)
    subject.driver.ensure_port(port)
    subject.driver.close()
    subject.driver = subject.reopen()
    assert network.network_id in [state.network_id for state in subject.driver.networks()]
    assert [state.nic_id for state in subject.driver.ports(network.network_id)] == [port.nic_id]


def test_ports_can_be_had_in_parts(subject: NetworkSubject) -> None:
    network = subject.network()
    subject.driver.ensure_network(network)
    for number in range(3):
        subject.driver.ensure_port(subject.port(network, address=f"10.77.0.{10 + number}", hostname=f"web{number}"))
    everything = subject.driver.ports(network.network_id)
    made = [state.nic_id for state in everything]
    assert made == sorted(made)
    assert subject.driver.ports(network.network_id, limit=2) == everything[:2]
    assert subject.driver.ports(network.network_id, after=made[1], limit=2) == everything[2:]
    assert subject.driver.ports(network.network_id, only={made[2], "nic-zzzz9999"}) == everything[2:]


def test_calls_may_come_from_many_threads(subject: NetworkSubject) -> None:
    networks = [subject.network() for _ in range(3)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(subject.driver.ensure_network, networks * 2))
        ports = [
            subject.port(network, address=f"10.77.0.{10 + number}", hostname=f"web{number}")
            for network in networks
            for number in range(4)
        ]
        list(pool.map(subject.driver.ensure_port, ports))
    for network in networks:
        expected = {port.nic_id for port in ports if port.network_id == network.network_id}
        assert {state.nic_id for state in subject.driver.ports(network.network_id)} == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("address", "10.99.0.10"),
        ("address", "10.77.0.1"),
        ("mac", "52:54:00:00:00:01,10.77.0.9"),
        ("hostname", "web\nlog-queries"),
    ],
)
def test_a_port_that_does_not_fit_is_refused(wired: NetworkSubject, field: str, value: str) -> None:
    network = wired.network()
    wired.driver.ensure_network(network)
    port = wired.port(network)
    wrong = {"mac": port.mac, "address": port.address, "hostname": port.hostname, field: value}
    with pytest.raises(PermanentError):
        wired.driver.ensure_port(type(port)(nic_id=port.nic_id, network_id=port.network_id, **wrong))
    assert wired.driver.ports(network.network_id) == []


def test_an_address_has_one_owner(wired: NetworkSubject) -> None:
    network = wired.network()
    wired.driver.ensure_network(network)
    wired.driver.ensure_port(wired.port(network))
    with pytest.raises(PermanentError):
        wired.driver.ensure_port(wired.port(network))


def test_dhcp_gives_the_reserved_address_and_dns_knows_the_name(
    wired: NetworkSubject, host: RealHost, tmp_path: Path
) -> None:
    network = wired.network(mtu=1400)
    wired.driver.ensure_network(network)
    port = wired.port(network, address="10.77.0.23", hostname="db")
    wired.driver.ensure_port(port)
    with plugged(host, port, tmp_path) as guest:
        lease = guest.lease()
        assert lease["ip"] == "10.77.0.23"
        assert (lease["router"], lease["dns"], lease["mtu"]) == (network.gateway, network.gateway, "1400")
        assert lease["domain"] == "internal"
        assert "10.77.0.23" in guest.resolve("db.internal", network.gateway)


def test_a_stranger_gets_no_address(wired: NetworkSubject, host: RealHost, tmp_path: Path) -> None:
    network = wired.network()
    wired.driver.ensure_network(network)
    with plugged(host, wired.port(network), tmp_path) as guest, pytest.raises(ProgramError):
        guest.lease()


def test_equal_addresses_in_two_networks_lead_to_two_guests(
    wired: NetworkSubject, host: RealHost, tmp_path: Path
) -> None:
    networks = [wired.network(), wired.network()]
    ports = [wired.port(network) for network in networks]
    for network, port in zip(networks, ports, strict=True):
        wired.driver.ensure_network(network)
        wired.driver.ensure_port(port)
    with plugged(host, ports[0], tmp_path) as first, plugged(host, ports[1], tmp_path) as second:
        assert first.lease()["ip"] == second.lease()["ip"] == "10.77.0.10"
        with first.listen("10.77.0.10", 80) as listener:
            with wired.driver.dial(networks[0].network_id, "10.77.0.10", 80, timeout_s=5) as connection:
                accepted, peer = listener.accept()
                accepted.sendall(b"first")
                accepted.close()
                assert connection.recv(10) == b"first"
                assert peer[0] == networks[0].gateway
            with pytest.raises(TransientError):
                wired.driver.dial(networks[1].network_id, "10.77.0.10", 80, timeout_s=5)


def test_dialling_a_closed_port_fails_at_once(wired: NetworkSubject, host: RealHost, tmp_path: Path) -> None:
    network = wired.network()
    wired.driver.ensure_network(network)
    port = wired.port(network)
    wired.driver.ensure_port(port)
    with plugged(host, port, tmp_path) as guest:
        guest.lease()
        before_s = time.monotonic()
        with pytest.raises(TransientError):
            wired.driver.dial(network.network_id, port.address, 4444, timeout_s=10)
        assert time.monotonic() - before_s < 5


def test_dialling_nobody_ends_with_the_timeout(wired: NetworkSubject) -> None:
    network = wired.network()
    wired.driver.ensure_network(network)
    before_s = time.monotonic()
    with pytest.raises(TransientError):
        wired.driver.dial(network.network_id, "10.77.0.99", 80, timeout_s=0.5)
    assert time.monotonic() - before_s < 3


def test_dialling_never_leaves_the_network(wired: NetworkSubject) -> None:
    network = wired.network()
    wired.driver.ensure_network(network)
    for address in ("192.0.2.1", "127.0.0.1", "169.254.169.254", network.gateway):
        with pytest.raises(PermanentError):
            wired.driver.dial(network.network_id, address, 80, timeout_s=1)


def test_guests_reach_the_metadata_address(wired: NetworkSubject, host: RealHost, tmp_path: Path) -> None:
    network = wired.network()
    wired.driver.ensure_network(network)
    port = wired.port(network)
    wired.driver.ensure_port(port)
    for _ in range(2):  # a listener that was closed can be opened again
        with (
            wired.driver.listen(network.network_id, "169.254.169.254", 80) as listener,
            plugged(host, port, tmp_path) as guest,
        ):
            guest.lease()
            with guest.connect("169.254.169.254", 80) as connection:
                accepted, peer = listener.accept()
                assert peer[0] == port.address
                accepted.close()
                assert connection.recv(1) == b""


def test_listening_needs_a_network_and_an_address_of_its_router(wired: NetworkSubject) -> None:
    network = wired.network()
    with pytest.raises(NotFoundError):
        wired.driver.listen(network.network_id, "169.254.169.254", 80)
    wired.driver.ensure_network(network)
    with pytest.raises(PermanentError):
        wired.driver.listen(network.network_id, "10.77.0.9", 80)


def test_a_killed_dhcp_server_is_mended(wired: NetworkSubject, host: RealHost, tmp_path: Path) -> None:
    network = wired.network()
    wired.driver.ensure_network(network)
    port = wired.port(network)
    wired.driver.ensure_port(port)
    assert len(dhcp_servers(network.network_id)) == 1
    assert end_processes(dhcp_servers(network.network_id), grace_s=0) == []
    wired.driver.ensure_network(network)
    assert len(dhcp_servers(network.network_id)) == 1
    with plugged(host, port, tmp_path) as guest:
        assert guest.lease()["ip"] == port.address


def test_a_lost_router_is_mended(wired: NetworkSubject, host: RealHost, tmp_path: Path) -> None:
    network = wired.network()
    wired.driver.ensure_network(network)
    port = wired.port(network)
    wired.driver.ensure_port(port)
    remove_namespace(names.router_namespace(host.tag, network.network_id))
    wired.driver.ensure_network(network)
    assert len(dhcp_servers(network.network_id)) == 1
    with plugged(host, port, tmp_path) as guest:
        assert guest.lease()["ip"] == port.address


def test_an_address_goes_to_its_next_owner_at_once(wired: NetworkSubject, host: RealHost, tmp_path: Path) -> None:
    network = wired.network()
    wired.driver.ensure_network(network)
    old = wired.port(network)
    wired.driver.ensure_port(old)
    with plugged(host, old, tmp_path) as guest:
        assert guest.lease()["ip"] == old.address
    wired.driver.remove_port(network.network_id, old.nic_id)
    new = wired.port(network)
    wired.driver.ensure_port(new)
    with plugged(host, new, tmp_path) as guest:
        assert guest.lease()["ip"] == new.address == old.address


def test_a_removed_network_leaves_nothing(wired: NetworkSubject, host: RealHost) -> None:
    network = wired.network()
    links_before = link_names(host.fabric.namespace)
    namespaces_before = list_namespaces(host.fabric.namespace)
    wired.driver.ensure_network(network)
    wired.driver.ensure_port(wired.port(network))
    with wired.driver.listen(network.network_id, "169.254.169.254", 80):
        wired.driver.remove_network(network.network_id)
        assert link_names(host.fabric.namespace) == links_before
    assert list_namespaces(host.fabric.namespace) == namespaces_before
    assert dhcp_servers(network.network_id) == []
    assert not namespace_exists(names.router_namespace(host.tag, network.network_id))
