"""The server as a process: how it starts, refuses to start, ends, is killed, and goes on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from iaas.api.requests import MAX_BODY_BYTES
from iaas.api.server import MAX_WAITERS
from tests.api.calling import NEW
from tests.api.server_process import Server, first_line, receive_all, refused, running, spawn
from tests.factories import wait_for


def test_ready_line_credentials_and_a_clean_end(tmp_path: Path) -> None:
    state = tmp_path / "deep" / "state"
    with running(state) as server:
        assert server.ready_line == f"ready {server.url}\n"
        assert httpx.get(f"{server.url}/v1/health", trust_env=False).json()["status"] == "ok"
        document = json.loads((state / "credentials.json").read_text())
        assert document.keys() == {"endpoint", "api_token", "access_key_id", "secret_access_key", "zone"}
        assert document["endpoint"] == server.url
        assert document["zone"] == "zone-1"
        for path in state.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        assert stat.S_IMODE((state / "credentials.json").stat().st_mode) == 0o600
        assert server.get("/v1/instances")["items"] == []
        assert server.stop() == 0
        assert server.errors == ""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks Linux what a process has loaded")
def test_a_start_loads_no_library_for_one_secret(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        server.post("/v1/key_pairs", {"name": "made-here"}, status=201)
        assert "cryptography" in _maps(server)  # so the absence below is no accident of how files are mapped
    with running(tmp_path / "other") as server:
        assert "cryptography" not in _maps(server)


def _maps(server: Server) -> str:
    return Path(f"/proc/{server.process.pid}/maps").read_text()


def test_a_second_start_keeps_credentials_and_instances(tmp_path: Path) -> None:
    with running(tmp_path) as first:
        made = first.post("/v1/instances", {**NEW, "name": "web"})
        assert first.get(f"/v1/jobs/{made['job']['id']}", wait=30)["status"] == "succeeded"
        assert first.stop() == 0
    with running(tmp_path) as second:
        assert second.token == first.token
        kept = second.get("/v1/instances/web")
        assert (kept["id"], kept["status"]) == (made["instance"]["id"], "running")
        answer = second.post("/v1/instances/web/actions/exec", {"command": ["hostname"]}, status=200)
        assert answer["stdout"] == "web\n"


def test_killed_in_the_middle_of_creates(tmp_path: Path) -> None:
    with running(tmp_path) as first:
        batch = {
            "instances": [
                {**NEW, "kind": kind, "name": f"{kind}-{n}"} for kind in ("vm", "container") for n in range(20)
            ]
        }
        accepted = first.post("/v1/instances:batch", batch)
        first.post("/v1/instances", {**NEW, "name": "late"})
        first.kill()
    with running(tmp_path) as second:
        for job in accepted["jobs"]:
            assert second.get(f"/v1/jobs/{job['id']}", wait=30)["status"] == "succeeded"
        wait_for(
            lambda: all(each["guest_ready_at"] for each in second.get("/v1/instances")["items"]), what="all guests"
        )
        found = second.get("/v1/instances")["items"]
        assert len(found) == 41
        assert {each["status"] for each in found} == {"running"}
        used = sum(host["vcpus_used"] for host in second.get("/v1/hosts")["items"])
        assert used == 41
        for each in found:
            second.client.delete(f"/v1/instances/{each['id']}")
        wait_for(lambda: second.get("/v1/instances")["items"] == [], what="the end of all instances")
        assert {host["vcpus_used"] for host in second.get("/v1/hosts")["items"]} == {0}
        assert second.stop() == 0


def test_credentials_from_the_environment(tmp_path: Path) -> None:
    given = {
        "IAAS_TOKEN": "a-token-given-by-the-ci",
        "IAAS_ACCESS_KEY_ID": "MYKEY",
        "IAAS_SECRET_ACCESS_KEY": "MYSECRET",
    }
    with running(tmp_path, environment=given) as server:
        assert server.token == given["IAAS_TOKEN"]
        assert server.get("/v1/zones")["items"]
        document = json.loads((tmp_path / "credentials.json").read_text())
        assert (document["access_key_id"], document["secret_access_key"]) == ("MYKEY", "MYSECRET")
        server.stop()
    with running(tmp_path, environment={**given, "IAAS_TOKEN": "another-token-by-the-ci"}) as server:
        assert server.get("/v1/zones")["items"]
    with running(tmp_path) as server:  # the file of the last start counts
        assert server.token == "another-token-by-the-ci"
        assert server.get("/v1/zones")["items"]


def test_lost_credentials_are_made_anew(tmp_path: Path) -> None:
    with running(tmp_path) as first:
        first.stop()
    (tmp_path / "credentials.json").unlink()
    with running(tmp_path) as second:
        assert second.token != first.token
        assert second.get("/v1/zones")["items"]
        second.stop()
    (tmp_path / "credentials.json").write_text("no json")
    with running(tmp_path) as third:
        assert third.get("/v1/zones")["items"]
        assert stat.S_IMODE((tmp_path / "credentials.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("listen", ["nonsense", "127.0.0.1:", ":80", "127.0.0.1:65536", "127.0.0.1:-1", "::1:80"])
def test_a_listen_address_that_is_none(tmp_path: Path, listen: str) -> None:
    assert "--listen" in refused(tmp_path / "state", "--listen", listen)
    assert not (tmp_path / "state").exists()


def test_an_address_that_is_not_ours(tmp_path: Path) -> None:
    assert "cannot listen on 192.0.2.1" in refused(tmp_path / "state", "--listen", "192.0.2.1:0")
    assert "cannot listen on" in refused(tmp_path / "state", "--listen", "no-such-host.invalid:0")


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert f"cannot listen on {address}" in refused(tmp_path / "state", "--listen", address)
    with running(tmp_path / "one") as server:
        address = server.url.removeprefix("http://")
        assert f"cannot listen on {address}" in refused(tmp_path / "two", "--listen", address)


def test_a_state_directory_in_use(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        assert "in use by another server" in refused(tmp_path)
        assert server.get("/v1/zones")["items"]
        assert json.loads((tmp_path / "credentials.json").read_text())["api_token"] == server.token


def test_a_file_in_place_of_the_state_directory(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    assert "cannot be used" in refused(tmp_path / "state")
    assert "cannot be used" in refused(tmp_path / "state" / "below")


def test_a_state_directory_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    # Root writes everywhere but in /proc.
    state = Path("/proc/iaas") if os.geteuid() == 0 else tmp_path / "state"
    assert "cannot be used" in refused(state)


@pytest.mark.parametrize("name", ["cloud.db", "sim.db"])
def test_a_database_that_is_none(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"this is no database, and it is long enough to be looked at" * 20)
    assert refused(tmp_path)


def test_a_database_url_that_is_none(tmp_path: Path) -> None:
    for url in ("nonsense", "nosuchdb://x/y", "sqlite:////proc/none/x.db"):
        assert refused(tmp_path / "state", "--database", url)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--backend", "magic"), "--backend"),
        (("--zones", ","), "--zones"),
        (("--zones", "a,a"), "--zones"),
        (("--log-level", "loud"), "--log-level"),
    ],
)
def test_options_that_are_wrong(tmp_path: Path, options: tuple[str, ...], word: str) -> None:
    assert word in refused(tmp_path / "state", *options)


def test_a_short_token_from_the_environment(tmp_path: Path) -> None:
    assert "IAAS_TOKEN" in refused(tmp_path / "state", environment={"IAAS_TOKEN": "short"})
    assert list(tmp_path.iterdir()) == [], "it was refused before anything was made"


def test_a_hosts_file_that_is_none_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "hosts.toml"
    file.write_text("hosts = 1")
    assert "[[hosts]]" in refused(tmp_path / "state", "--hosts", str(file))
    assert list(tmp_path.iterdir()) == [file]


def test_other_zones(tmp_path: Path) -> None:
    with running(tmp_path, "--zones", "north, south") as server:
        assert [zone["name"] for zone in server.get("/v1/zones", sort="name")["items"]] == ["north", "south"]


def test_ctrl_c_ends_it_cleanly(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        server.client.close()
        server.process.send_signal(signal.SIGINT)
        server.process.communicate(timeout=30)
        assert server.process.returncode in (0, 130)


def test_a_server_that_is_asked_to_end_does_not_wait_for_long_polls(tmp_path: Path) -> None:
    with running(tmp_path, program="tests.api.frozen_server") as server:
        job = server.post("/v1/instances", NEW)["job"]["id"]
        with ThreadPoolExecutor(4) as pool:
            polls = [pool.submit(poll, server, job) for _ in range(4)]
            wait_for(lambda: server.get("/v1/health")["status"] == "ok", what="an answer")
            server.process.terminate()
            server.process.wait(timeout=20)
            assert {poll.result(20) for poll in polls} <= {"queued", "running", "cut off"}


def poll(server: Server, job: str) -> str:
    try:
        return str(server.get(f"/v1/jobs/{job}", wait=60)["status"])
    except httpx.HTTPError:
        return "cut off"


def test_long_polls_never_starve_other_requests(tmp_path: Path) -> None:
    beyond = 24
    with running(tmp_path, program="tests.api.frozen_server") as server:
        server.client = httpx.Client(
            base_url=server.url,
            headers=server.client.headers,
            timeout=60,
            trust_env=False,
            limits=httpx.Limits(max_connections=None),
        )
        job = server.post("/v1/instances", NEW)["job"]["id"]
        with ThreadPoolExecutor(MAX_WAITERS + beyond) as pool:
            polls = [pool.submit(poll, server, job) for _ in range(MAX_WAITERS + beyond)]
            try:
                wait_for(lambda: sum(each.done() for each in polls) == beyond, what="answers to those beyond the cap")
                # Time stands in this cloud, so the others wait on, and everybody else is served meanwhile.
                for _ in range(20):
                    assert server.get("/v1/instances")["items"]
                    assert server.get(f"/v1/jobs/{job}", wait=60)["status"] in ("queued", "running")
                assert sum(each.done() for each in polls) == beyond
                assert {each.result() for each in polls if each.done()} <= {"queued", "running"}
                server.process.terminate()
                server.process.wait(timeout=20)
            finally:
                server.kill()


def test_bodies_in_chunks(tmp_path: Path) -> None:
    with running(tmp_path) as server:

        def chunks(body: bytes) -> Iterator[bytes]:
            for start in range(0, len(body), 60_000):
                yield body[start : start + 60_000]

        def send(body: bytes) -> httpx.Response:
            headers = {"Content-Type": "application/json"}
            return server.client.post("/v1/instances", content=chunks(body), headers=headers)

        answer = send(json.dumps({**NEW, "user_data": "x" * 65_536}).encode())
        assert answer.status_code == 202, answer.text
        answer = send(b'{"kind": "vm"')
        assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
        try:
            answer = send(b'{"user_data": "' + b"x" * (MAX_BODY_BYTES + 1_000_000) + b'"}')
        except httpx.WriteError:
            return  # the server hung up before all was sent, which it may
        assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")


def test_a_huge_body_over_the_wire(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        headers = {"Content-Type": "application/json"}
        body = b'{"user_data": "' + b"x" * MAX_BODY_BYTES + b'"}'
        with contextlib.suppress(httpx.WriteError):
            answer = server.client.post("/v1/instances", content=body, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
        assert server.get("/v1/instances")["items"] == []


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /v1/instances/%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /v1/instances?name=%00%ff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /v1/\xff\xfe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"POST /v1/instances HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\nConnection: close\r\n\r\n",
        b"POST /v1/instances HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\nConnection: close\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET http://other.example/v1/zones HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ],
)
def test_raw_nonsense_is_no_fault(shared_server: Server, request_bytes: bytes) -> None:
    host, _, port = shared_server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(request_bytes)
        answer = receive_all(connection)
    assert not answer or 400 <= int(answer.split()[1]) < 500, answer
    assert shared_server.get("/v1/health")["status"] == "ok"


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("state")) as server:
        yield server


def test_nothing_but_the_ready_line_is_printed(tmp_path: Path) -> None:
    process = spawn(tmp_path)
    line = first_line(process)
    assert httpx.get(line.split()[1] + "/v1/zones", trust_env=False).status_code == 401
    process.terminate()
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 0
