"""What a tenant does, on both backends: machines of both kinds made by curl, SDK and CLI, used, and deleted."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from iaas.client import Client, ExecResult, InvalidState, NotFound
from tests.e2e.cloud_server import CloudServer, wait_for
from tests.real_host import PARENT, new_test_folder, remove_killed_runs, require_real_host

READY_TIMEOUT_S = 180
MAKERS = ("curl", "sdk", "cli")


@dataclass
class World:
    """A server with one VM and one container machine by each way of asking."""

    server: CloudServer
    key_file: Path
    machines: dict[str, str]  # name -> id

    @property
    def is_real(self) -> bool:
        return self.server.backend == "real"


@pytest.fixture(scope="module", params=["sim", pytest.param("real", marks=pytest.mark.real)])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("cloud")
    if request.param == "real":
        require_real_host()
        remove_killed_runs()
        PARENT.mkdir(parents=True, exist_ok=True)
        tag, state_dir = new_test_folder()
    else:
        tag, state_dir = "", folder / "state"
    server = CloudServer(request.param, state_dir, tag)
    try:
        server.start()
        yield make_machines(server, folder)
    finally:
        server.close()
        if request.param == "real":
            remove_and_check(tag, state_dir)


def remove_and_check(tag: str, state_dir: Path) -> None:
    from iaas.drivers.linux.cleanup import leftovers, remove_deployment

    remove_deployment(tag, state_dir)
    assert leftovers(tag, state_dir) == []


def make_machines(server: CloudServer, folder: Path) -> World:
    key_file = folder / "key"
    server.cli("key-pair", "create", "laptop", "--out", str(key_file))
    script = "#!/bin/sh\necho user data ran > /var/www/told.html\n"
    user_data = folder / "user-data"
    user_data.write_text(script)
    with server.client() as client:
        for kind in ("vm", "container"):
            body = {"kind": kind, "image": "tiny", "flavor": "nano", "key_pairs": ["laptop"], "user_data": script}
            accepted = server.curl("POST", "/v1/instances", {**body, "name": f"curl-{kind}", "labels": {"by": "curl"}})
            assert accepted["instance"]["transition"] == "creating"
            assert accepted["job"]["action"] == "instance.create"
            client.instances.create(
                kind=kind,
                image="tiny",
                flavor="nano",
                name=f"sdk-{kind}",
                key_pairs=["laptop"],
                user_data=script,
                labels={"by": "sdk"},
            )
            created = server.cli(
                *("instance", "create", "--kind", kind, "--image", "tiny", "--flavor", "nano"),
                *("--name", f"cli-{kind}", "--key-pair", "laptop", "--user-data", str(user_data), "--label", "by=cli"),
            )
            assert f"cli-{kind}" in created.stdout
        machines = {}
        for kind in ("vm", "container"):
            for maker in MAKERS:
                instance = client.instances.get(f"{maker}-{kind}")
                instance.wait_until_ready(timeout_s=READY_TIMEOUT_S)
                machines[instance.name] = instance.id
    return World(server, key_file, machines)


@pytest.fixture
def client(world: World) -> Iterator[Client]:
    with world.server.client() as client:
        yield client


def names() -> list[str]:
    return [f"{maker}-{kind}" for kind in ("vm", "container") for maker in MAKERS]


@pytest.mark.parametrize("name", names())
def test_machine_runs_and_says_who_it_is(world: World, client: Client, name: str) -> None:
    instance = client.instances.get(name)
    assert (instance.status, instance.transition) == ("running", None)
    assert instance.guest_ready_at is not None
    page = world.server.page_of(name)
    assert f"id={world.machines[name]} host={name} kind={instance.kind}" in page
    answer = instance.execute(["cat", "/etc/qingcloud/instance-id"])
    assert (answer.exit_code, answer.stdout) == (0, world.machines[name])
    assert f"READY {instance.id}" in instance.console()


@pytest.mark.parametrize("name", names())
def test_ssh_with_the_key_of_the_pair(world: World, name: str) -> None:
    command = ("instance", "ssh", "-i", str(world.key_file), name, "--", "hostname")
    done = world.server.cli(*command, check=False)
    if not world.is_real:  # a simulated guest has no SSH server, and says so
        assert done.returncode != 0
        return
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == name


def test_key_file_is_private(world: World) -> None:
    assert stat.S_IMODE(world.key_file.stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", ["vm", "container"])
def test_user_data_ran_once(world: World, client: Client, kind: str) -> None:
    if not world.is_real:
        pytest.skip("a simulated guest runs no user data; documented in docs/simulation.md")
    answer = client.instances.get(f"sdk-{kind}").execute(["cat", "/var/www/told.html"])
    assert answer.stdout == "user data ran\n"


@pytest.mark.parametrize("kind", ["vm", "container"])
def test_exec_by_the_cli_passes_exit_status_and_streams_through(world: World, kind: str) -> None:
    done = world.server.cli(
        "instance", "exec", f"cli-{kind}", "--", "sh", "-c", "echo out; echo err >&2; exit 7", check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


@pytest.mark.parametrize("kind", ["vm", "container"])
def test_stop_start_and_restart(client: Client, kind: str) -> None:
    instance = client.instances.get(f"curl-{kind}")
    stopped = instance.stop(timeout_s=60).wait(timeout_s=120)
    assert (stopped.status, stopped.guest_ready_at) == ("stopped", None)
    with pytest.raises(InvalidState):
        stopped.execute(["true"])
    started = stopped.start().wait(timeout_s=120)
    started = started.wait_until_ready(timeout_s=READY_TIMEOUT_S)
    again = started.restart(force=True).wait(timeout_s=120).wait_until_ready(timeout_s=READY_TIMEOUT_S)
    assert again.status == "running"
    assert again.address == instance.address


@pytest.mark.parametrize("kind", ["vm", "container"])
def test_resize_is_seen_by_the_guest(world: World, client: Client, kind: str) -> None:
    instance = client.instances.get(f"curl-{kind}").stop(force=True).wait(timeout_s=120)
    resized = instance.resize(vcpus=1, memory_mib=192).wait(timeout_s=60)
    assert (resized.memory_mib, resized.flavor) == (192, None)
    running = resized.start().wait(timeout_s=120).wait_until_ready(timeout_s=READY_TIMEOUT_S)
    if kind == "vm":
        text = running.execute(["cat", "/proc/meminfo"]).stdout
        total_kib = int(text.split("MemTotal:")[1].split()[0])
        assert 128 * 1024 < total_kib <= 192 * 1024


@pytest.mark.parametrize("kind", ["vm", "container"])
def test_rebuild_gives_a_fresh_disk_and_keeps_the_address(client: Client, kind: str) -> None:
    instance = client.instances.get(f"curl-{kind}")
    instance.execute(["sh", "-c", "echo mine > /root/mark"])
    assert instance.execute(["cat", "/root/mark"]).stdout == "mine\n"
    rebuilt = instance.rebuild().wait(timeout_s=180).wait_until_ready(timeout_s=READY_TIMEOUT_S)
    assert rebuilt.execute(["cat", "/root/mark"]).exit_code != 0
    assert (rebuilt.id, rebuilt.address, rebuilt.nics) == (instance.id, instance.address, instance.nics)


@pytest.mark.parametrize("kind", ["vm", "container"])
def test_guest_that_powers_itself_off_shows_as_stopped(world: World, client: Client, kind: str) -> None:
    instance = client.instances.get(f"curl-{kind}")
    # A real guest answers first and goes down after; the simulated shell knows no background jobs.
    later = ["sh", "-c", "(sleep 1; poweroff) > /dev/null 2>&1 &"]
    instance.execute(later if world.is_real else ["poweroff"])
    stopped = wait_for(
        lambda: (found := client.instances.get(instance.id)).status == "stopped" and found, 60, "the guest's end"
    )
    assert stopped.transition is None
    stopped.start().wait(timeout_s=120).wait_until_ready(timeout_s=READY_TIMEOUT_S)


def test_privileged_and_nesting_reach_the_container(client: Client) -> None:
    instance = client.instances.create(
        kind="container", image="tiny", flavor="nano", name="node", privileged=True, nesting=True
    ).wait(timeout_s=120)
    instance = instance.wait_until_ready(timeout_s=READY_TIMEOUT_S)
    assert (instance.privileged, instance.nesting) == (True, True)
    if client.capabilities().backend == "real":
        # Root of a privileged machine is the host's root: its map covers everything. Source: user_namespaces(7).
        assert instance.execute(["cat", "/proc/self/uid_map"]).stdout.split() == ["0", "0", "4294967295"]
    instance.delete().wait(timeout_s=60)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_machines_survive_a_restart_of_the_server(world: World, how: signal.Signals) -> None:
    world.server.stop(how)
    world.server.start()
    with world.server.client() as client:
        for name in ("sdk-vm", "sdk-container"):
            assert client.instances.get(name).status == "running"
            assert f"id={world.machines[name]}" in wait_for(lambda name=name: world.server.page_of(name), 30, "a page")
            assert client.instances.get(name).execute(["hostname"]).stdout.strip() == name


@pytest.mark.parametrize("kind", ["vm", "container"])
def test_guests_call_the_cloud_from_inside(world: World, client: Client, kind: str) -> None:
    if not world.is_real:
        pytest.skip("a simulated guest sends no packets; documented in docs/simulation.md")
    instance = client.instances.get(f"sdk-{kind}")

    def fetch(path: str) -> ExecResult:
        header = f"Authorization: Bearer {world.server.credentials['api_token']}"
        return instance.execute(["wget", "-O", "-", "--header", header, f"http://169.254.169.250{path}"])

    assert json.loads(fetch(f"/v1/instances/sdk-{kind}").stdout)["id"] == instance.id
    refused = fetch("/v1/hosts")  # though the credential is the operator's
    assert refused.exit_code != 0
    assert "404" in refused.stderr


def test_forward_brings_a_port_of_the_guest_to_the_host(world: World) -> None:
    import os
    import sys

    environment = {**os.environ, "IAAS_CREDENTIALS": str(world.server.credentials_file)}
    forward = subprocess.Popen(
        [sys.executable, "-m", "iaas.cli", "instance", "forward", "sdk-container", "0:80"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert forward.stdout is not None
        line = forward.stdout.readline()
        address = next(word for word in line.replace(",", " ").split() if word.startswith("127.0.0.1:"))
        done = subprocess.run(
            ["curl", "-sS", "-m", "10", f"http://{address}/"], capture_output=True, text=True, timeout=20, check=True
        )
        assert f"id={world.machines['sdk-container']}" in done.stdout
    finally:
        forward.terminate()
        forward.wait(10)
        if forward.stdout is not None:
            forward.stdout.close()


def test_deleted_machines_are_gone_and_leave_nothing(world: World, client: Client) -> None:
    actions = [instance.delete() for instance in client.instances.iterate()]
    assert len(actions) == len(world.machines)
    for action in actions:
        action.wait(timeout_s=120)
    assert list(client.instances.iterate()) == []
    for machine_id in world.machines.values():
        with pytest.raises(NotFound):
            client.instances.get(machine_id)
    assert all(host.vcpus_used == host.memory_mib_used == 0 for host in client.hosts.iterate())
    if world.is_real:
        assert real_objects(world.server) == []


def real_objects(server: CloudServer) -> list[str]:
    """Return what libvirt, LXD and the kernel still have of this deployment's machines."""
    import libvirt
    import pylxd

    from iaas.drivers.linux import names as real_names
    from iaas.drivers.linux.links import link_names

    found: list[str] = []
    connection = libvirt.open(f"qemu:///system?socket={server.state_dir}/sock/libvirt-sock")
    try:
        found += [domain.name() for domain in connection.listAllDomains()]
    finally:
        connection.close()
    from urllib.parse import quote

    lxd = pylxd.Client(endpoint=f"http+unix://{quote(str(server.state_dir / 'lxd' / 'unix.socket'), safe='')}")
    found += [instance.name for instance in lxd.instances.all()]
    lxd.api.session.close()
    fabric = real_names.fabric_namespace(server.tag)
    ours = (real_names.TAP + server.tag, real_names.CONTAINER_VETH + server.tag)
    found += [name for name in link_names(fabric) if name.startswith(ours)]
    found += [str(path) for path in (server.state_dir / "vm").glob("*")]
    return found
