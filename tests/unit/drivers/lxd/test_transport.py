from __future__ import annotations

import datetime
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("pylxd", reason="the extra `real` is not installed")

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from iaas.drivers.interface import BackendDownError
from iaas.drivers.lxd.connection import LXDConnection
from iaas.drivers.lxd.transport import open_socket


def write_certificate(folder: Path, name: str) -> tuple[str, str]:
    """Write a self-signed certificate and its key, as LXD makes its own; return both paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{name}.crt", folder / f"{name}.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(paths[0]), str(paths[1])


@dataclass(frozen=True)
class TLSServer:
    endpoint: str
    certificate: str
    another: str


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TLSServer]:
    """A TLS server on the loopback that greets whoever completes the handshake."""
    certificate, key = write_certificate(tmp_path, "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return  # closed: the test is over
                with plain:
                    try:
                        with context.wrap_socket(plain, server_side=True) as secure:
                            secure.sendall(b"hello")
                    except OSError:
                        continue  # the client did not like us

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        endpoint = f"https://127.0.0.1:{listener.getsockname()[1]}"
        yield TLSServer(endpoint, certificate, write_certificate(tmp_path, "another")[0])
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(timeout=5)


def test_the_daemons_own_certificate_is_enough(server: TLSServer) -> None:
    with open_socket(server.endpoint, cert=None, verify=server.certificate) as connected:
        assert connected.recv(5) == b"hello"


def test_any_other_certificate_is_refused(server: TLSServer) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        open_socket(server.endpoint, cert=None, verify=server.another)
    with pytest.raises(ssl.SSLCertVerificationError):
        open_socket(server.endpoint, cert=None, verify=True)


def test_a_daemon_with_another_certificate_is_down_to_us(server: TLSServer) -> None:
    connection = LXDConnection(server.endpoint, verify=server.another)
    with pytest.raises(BackendDownError):
        connection.open_websocket("events", timeout_s=5)
    with pytest.raises(BackendDownError):
        connection.get("instances", action="list the machines")
    connection.close()
