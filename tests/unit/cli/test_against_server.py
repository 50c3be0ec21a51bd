"""The whole way once, CLI and SDK against the real server with the simulated backend: no fake can drift from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from iaas.client import Client, InvalidInput, NotFound

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    state = tmp_path_factory.mktemp("server") / "state"
    words = ["serve", "--backend", "sim", "--listen", "127.0.0.1:0", "--state", str(state)]
    with subprocess.Popen([sys.executable, "-m", "iaas.cli", *words], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("ready http://127.0.0.1:")
        yield state / "credentials.json"
        server.terminate()
        server.wait(timeout=30)


@pytest.fixture(scope="module")
def cli(credentials: Path) -> Cli:
    environment = {"PATH": os.environ["PATH"], "IAAS_CREDENTIALS": str(credentials)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "iaas.cli", *words], env=environment, capture_output=True, text=True, timeout=90
        )

    return run


def test_life_of_a_machine_by_the_command_line(cli: Cli) -> None:
    made = cli("instance", "create", "--kind", "container", "--image", "tiny", "--name", "web", "--ready", "-o", "json")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["instance"]["guest_ready_at"]
    assert json.loads(made.stdout)["job"]["status"] == "succeeded"
    done = cli("instance", "exec", "web", "--", "hostname")
    assert (done.returncode, done.stdout.strip()) == (0, "web")
    assert cli("instance", "exec", "web", "no-such-command").returncode == 127
    assert cli("instance", "console", "web").stdout
    assert cli("instance", "start", "web").returncode == 4
    assert "running" in cli("instance", "list", "--label", "!x", "--kind", "container", "--sort", "name").stdout
    assert cli("instance", "update", "web", "--name", "db", "--label", "a=b").returncode == 0
    assert cli("instance", "stop", "db", "--wait").returncode == 0
    assert cli("instance", "resize", "db", "--flavor", "small", "--wait").returncode == 0
    assert cli("instance", "rebuild", "db", "--wait").returncode == 0
    assert cli("instance", "delete", "db", "--wait").returncode == 0
    assert cli("instance", "get", "db").returncode == 3
    assert "instance.created" in cli("event", "list").stdout


def test_every_list_filter_is_one_that_the_server_knows(cli: Cli) -> None:
    for noun in ("instance", "image", "flavor", "key-pair", "project", "api-token", "access-key", "host"):
        assert cli(noun, "list", "--name", "x", "--limit", "5").returncode == 0, noun
    for line in (
        *("vpc list --name x --status active --label a --sort name", "vpc route list basic --limit 1"),
        *(
            "subnet list --name x --status active --zone zone-1 --vpc x --label a",
            "reservation list --subnet x --name x",
        ),
        *("nic list --name x --status in_use --instance x --subnet x --vpc x --mac x --address x --label a",),
    ):
        assert cli(*line.split()).returncode == (3 if "route" in line else 0), line
    for noun in ("instance", "image", "flavor", "key-pair", "project"):
        assert cli(noun, "list", "--label", "a=b").returncode == 0, noun
    for line in ("zone list --sort name", "job list --status failed", "event list --after 0", "health", "capabilities"):
        assert cli(*line.split()).returncode == 0, line


def test_credentials_and_keys(cli: Cli, tmp_path: Path) -> None:
    token = json.loads(cli("api-token", "create", "ci", "--role", "reader", "-o", "json").stdout)
    assert cli("zone", "list", "--token", token["token"]).returncode == 0
    assert cli("key-pair", "create", "x", "--out", str(tmp_path / "x"), "--token", token["token"]).returncode == 5
    assert cli("api-token", "delete", "ci").returncode == 0
    assert cli("zone", "list", "--token", token["token"]).returncode == 5
    assert cli("key-pair", "create", "me", "--out", str(tmp_path / "key")).returncode == 0
    assert "PRIVATE KEY" in (tmp_path / "key").read_text()
    assert cli("key-pair", "create", "me", "--out", str(tmp_path / "other")).returncode == 4
    assert cli("key-pair", "delete", "me").returncode == 0
    key = json.loads(cli("access-key", "create", "k", "-o", "json").stdout)
    assert key["secret_access_key"]
    assert cli("access-key", "delete", key["id"]).returncode == 0
    assert cli("project", "create", "team").returncode == 0
    assert cli("project", "update", "team", "--description", "d").returncode == 0
    assert cli("project", "delete", "team").returncode == 0
    assert cli("flavor", "create", "odd", "--vcpus", "1", "--memory-mib", "64", "--root-disk-gib", "1").returncode == 0
    assert cli("flavor", "delete", "odd").returncode == 0


def test_sdk(credentials: Path) -> None:
    with Client(credentials_file=credentials) as client:
        assert client.capabilities().backend == "sim"
        for number in range(3):
            client.key_pairs.create(name=f"k{number}", labels={"n": str(number)})
        assert {key.name for key in client.key_pairs.iterate(page_size=1)} == {"k0", "k1", "k2"}
        found = client.key_pairs.find("k1")
        assert found is not None
        assert client.key_pairs.list(label_selector={"n": "1"}).items == (found,)
        with pytest.raises(InvalidInput) as caught:
            client.instances.create(kind="vm", image="none", flavor="nano")
        assert caught.value.errors[0].field == "image"
        with pytest.raises(NotFound):
            client.jobs.get("job-00000000")
        for event in client.events.iterate(page_size=2):
            assert event.type
