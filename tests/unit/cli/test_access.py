"""The commands that hand over to sockets, pipes and other programs, each in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.unit.client.fake_cloud import TOKEN, FakeCloud
from tests.unit.client.fake_proxy import FakeProxy
from tests.unit.client.fake_server import FakeServer

CLI = [sys.executable, "-m", "iaas.cli"]


@pytest.fixture
def proxy(cloud: FakeCloud) -> Iterator[FakeProxy]:
    made = FakeProxy()
    cloud.proxy_url = made.url
    yield made
    made.close()


@pytest.fixture
def environment(cloud: FakeCloud, proxy: FakeProxy, tmp_path: Path) -> Iterator[dict[str, str]]:
    server = FakeServer(cloud)
    cloud.add_instance("web")
    # A HOME of its own: no credentials of whoever runs the tests.
    yield {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "IAAS_ENDPOINT": server.url, "IAAS_TOKEN": TOKEN}
    server.close()


def cli(environment: Mapping[str, str], *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*CLI, *words], env=environment, input=stdin, capture_output=True, timeout=60, check=False)


def test_proxy_joins_standard_input_and_output_to_the_guest(environment: dict[str, str]) -> None:
    data = os.urandom(300_000)
    done = cli(environment, "instance", "proxy", "web", "22", stdin=data)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == data.upper()


def test_proxy_to_nowhere_is_one_line(environment: dict[str, str], cloud: FakeCloud) -> None:
    cloud.proxy_url = None
    done = cli(environment, "instance", "proxy", "web", "22")
    assert (done.returncode, done.stdout) == (4, b"")
    assert done.stderr == b"iaas: this cloud has no way into its guests\n"


def test_forward_says_where_it_listens_and_ends_with_ctrl_c(environment: dict[str, str]) -> None:
    words = [*CLI, "instance", "forward", "web", "80", "127.0.0.1:0:81"]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [process.stdout.readline().decode(), process.stdout.readline().decode()]
        assert [line.rpartition("-> ")[2] for line in lines] == ["web:80\n", "web:81\n"]
        host, _, port = lines[0].partition(" ")[0].rpartition(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(b"hello")
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(100) == b"HELLO"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("target", "shown", "asked"),
    [("web", "web:80", b"i-00000001:80"), ("shop/10.0.1.10", "shop/10.0.1.10:80", b"10.0.1.10.vpc-00000001.vpc:80")],
)
def test_forward_to_an_instance_or_to_an_address_of_a_vpc(
    environment: dict[str, str], proxy: FakeProxy, target: str, shown: str, asked: bytes
) -> None:
    words = [*CLI, "forward", target, "80"]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        local, _, remote = process.stdout.readline().decode().strip().partition(" -> ")
        assert remote == shown
        host, _, port = local.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(b"hello")
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(100) == b"HELLO"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
    assert [head.partition(b"\r\n")[0] for head in proxy.heads] == [b"CONNECT " + asked + b" HTTP/1.1"]


def test_forward_to_what_nobody_has(environment: dict[str, str]) -> None:
    for target, name in (("nobody", b"nobody"), ("nothing/10.0.1.10", b"nothing")):
        done = cli(environment, "forward", target, "80")
        assert (done.returncode, done.stdout) == (3, b"")
        assert name in done.stderr


def test_port_that_is_taken_is_one_line(environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = cli(environment, "instance", "forward", "web", f"{taken.getsockname()[1]}:80")
    assert done.returncode == 1
    assert done.stderr.startswith(b"iaas: cannot listen on 127.0.0.1:")


FAKE_SSH = """#!/bin/sh
# Shows what it was called with, then does what ssh does with a ProxyCommand.
for word in "$@"; do
    echo "$word"
    case $word in ProxyCommand=*) command=${word#ProxyCommand=} ;; esac
done
command=$(echo "$command" | sed "s/%h/i-00000001/; s/%p/22/")
echo hello | sh -c "$command"
exit 9
"""


def test_ssh_gets_a_proxy_command_that_works(environment: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "ssh").write_text(FAKE_SSH)
    (folder / "ssh").chmod(0o755)
    endpoint = environment.pop("IAAS_ENDPOINT")
    environment["PATH"] = f"{folder}:{environment['PATH']}"
    done = cli(environment, "--endpoint", endpoint, "instance", "ssh", "web", "-i", "k", "--", "ls", "-l")
    words = done.stdout.decode().splitlines()
    assert done.returncode == 9
    assert words[-1] == "HELLO"
    assert words[-5:-1] == ["22", "i-00000001", "ls", "-l"]
    assert "UserKnownHostsFile=/dev/null" in words
    assert words[words.index("-i") + 1] == "k"
    assert words[words.index("-l") + 1] == "root"
    assert TOKEN not in done.stdout.decode()


def test_reader_that_goes_away_is_no_traceback(environment: dict[str, str], cloud: FakeCloud) -> None:
    for number in range(3000):
        cloud.add_instance(f"n{number}")
    with subprocess.Popen(
        [*CLI, "instance", "list", "-o", "json"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        assert process.stderr.read() == b""
