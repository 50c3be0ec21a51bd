from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from iaas.drivers.interface import (
    MachineSpec,
    NetworkSpec,
    NotFoundError,
    PermanentError,
    PortSpec,
    TransientError,
    UnsupportedError,
)
from iaas.drivers.sim.compute import SimComputeDriver
from iaas.drivers.sim.network import SimNetworkDriver
from iaas.kernel.clock import CloudClock
from tests.unit.drivers.sim.conftest import ADDRESS, VM_ID

NETWORK = "net-00000001"
PORT = PortSpec(nic_id="nic-00000001", network_id=NETWORK, mac="52:54:00:00:00:01", address=ADDRESS, hostname="web-1")


def ask(networks: SimNetworkDriver, request: bytes) -> bytes:
    answer = b""
    with networks.dial(NETWORK, ADDRESS, 80, timeout_s=10) as connection:
        connection.sendall(request)
        while received := connection.recv(4096):
            answer += received
    return answer


def get(networks: SimNetworkDriver, path: str) -> tuple[str, bytes]:
    head, _, body = ask(networks, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()).partition(b"\r\n\r\n")
    return head.split(b"\r\n")[0].decode(), body


def test_a_ready_guest_answers_http_and_says_who_it_is(ready_vm: SimComputeDriver, networks: SimNetworkDriver) -> None:
    assert get(networks, "/") == ("HTTP/1.0 200 OK", b"id=i-vm000001 host=web-1 kind=vm kernel=sim\n")
    assert get(networks, "/nothing")[0] == "HTTP/1.0 404 Not Found"


def test_the_page_serves_what_the_guest_has_written(ready_vm: SimComputeDriver, networks: SimNetworkDriver) -> None:
    ready_vm.execute(VM_ID, ["sh", "-c", "echo hello > /var/www/hello.txt"], timeout_s=5)
    assert get(networks, "/hello.txt?a=b") == ("HTTP/1.0 200 OK", b"hello\n")
    assert get(networks, "/../../etc/hostname")[0] == "HTTP/1.0 404 Not Found"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST / HTTP/1.0\r\n\r\n", b"405"),
        (b"\xff\xfe\r\n\r\n", b"405"),
        (b"GET / HTTP/1.0\r\n" + b"X: y\r\n" * 4000, b"413"),
    ],
)
def test_the_page_refuses_what_is_no_get(
    ready_vm: SimComputeDriver, networks: SimNetworkDriver, request_bytes: bytes, status: bytes
) -> None:
    try:
        answer = ask(networks, request_bytes)
    except ConnectionError:
        assert status == b"413"  # refused in the middle of the request
        return
    assert answer.split()[1] == status


def test_head_has_no_body(ready_vm: SimComputeDriver, networks: SimNetworkDriver) -> None:
    assert ask(networks, b"HEAD / HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\n")


def test_who_hangs_up_at_once_disturbs_nobody(ready_vm: SimComputeDriver, networks: SimNetworkDriver) -> None:
    networks.dial(NETWORK, ADDRESS, 80, timeout_s=1).close()
    assert get(networks, "/")[0] == "HTTP/1.0 200 OK"


def test_only_a_running_guest_that_is_ready_can_be_reached(
    vms: SimComputeDriver, networks: SimNetworkDriver, spec: MachineSpec, clock: CloudClock
) -> None:
    def dial(port: int = 80) -> socket.socket:
        return networks.dial(NETWORK, ADDRESS, port, timeout_s=1)

    with pytest.raises(TransientError, match="no machine"):
        dial()
    vms.ensure_machine(spec)
    with pytest.raises(TransientError, match="does not run"):
        dial()
    vms.start_machine(VM_ID)
    with pytest.raises(TransientError, match="does not run"):
        dial()
    clock.advance(2)
    with pytest.raises(TransientError, match="refused"):
        dial()
    clock.advance(10)
    dial().close()
    with pytest.raises(TransientError, match="refused"):
        dial(port=22)
    vms.stop_machine(VM_ID, force=True)
    with pytest.raises(TransientError, match="does not run"):
        dial()


def test_what_cannot_be_dialled_is_told_apart(networks: SimNetworkDriver) -> None:
    with pytest.raises(NotFoundError):
        networks.dial("net-absent00", ADDRESS, 80, timeout_s=1)
    for address in ("10.0.0.1", "192.0.2.1", "nonsense"):
        with pytest.raises(PermanentError, match="no guest address"):
            networks.dial(NETWORK, address, 80, timeout_s=1)


def test_nothing_can_listen_in_a_simulated_network(networks: SimNetworkDriver) -> None:
    with pytest.raises(UnsupportedError):
        networks.listen(NETWORK, "169.254.169.254", 80)


def test_a_network_keeps_its_addresses(networks: SimNetworkDriver) -> None:
    spec = NetworkSpec(network_id=NETWORK, cidr="10.0.0.0/24", gateway="10.0.0.1", mtu=1400)
    networks.ensure_network(spec)
    with pytest.raises(PermanentError):
        networks.ensure_network(replace(spec, gateway="10.0.0.2"))


@pytest.mark.parametrize(("cidr", "gateway"), [("x", "10.0.0.1"), ("10.0.0.0/24", "10.1.0.1"), ("10.0.0.0/24", "x")])
def test_addresses_that_make_no_sense_are_refused(networks: SimNetworkDriver, cidr: str, gateway: str) -> None:
    with pytest.raises(PermanentError):
        networks.ensure_network(NetworkSpec(network_id="net-other000", cidr=cidr, gateway=gateway))
    assert [network.network_id for network in networks.networks()] == [NETWORK]


def test_an_address_and_a_mac_have_one_owner(networks: SimNetworkDriver) -> None:
    networks.ensure_port(replace(PORT, hostname="renamed"))
    for other in (
        replace(PORT, address="10.0.0.11"),
        replace(PORT, mac="52:54:00:00:00:02"),
        replace(PORT, nic_id="nic-00000002"),
        replace(PORT, nic_id="nic-00000002", mac="52:54:00:00:00:02"),
        replace(PORT, nic_id="nic-00000002", address="10.0.0.11"),
        replace(PORT, nic_id="nic-00000002", address="10.0.0.1", mac="52:54:00:00:00:02"),
        replace(PORT, nic_id="nic-00000002", address="10.9.0.1", mac="52:54:00:00:00:02"),
    ):
        with pytest.raises(PermanentError):
            networks.ensure_port(other)
    assert [port.nic_id for port in networks.ports(NETWORK)] == ["nic-00000001"]
