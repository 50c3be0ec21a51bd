"""The Ec2 source of Debian's cloud-init takes our metadata service for what it looks for, with tokens and without."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iaas.api.inside.servers import GuestServers
from iaas.api.metadata.app import MetadataApp
from iaas.cloud import Cloud
from iaas.drivers.interface import METADATA_ADDRESS
from iaas.resources.instances import Instance
from tests.api.guest_places import make_vpc, put
from tests.factories import create, operator
from tests.unit.api.loopback_networks import LoopbackNetworks

PYTHON = "/usr/bin/python3"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me"
USER_DATA = b"#cloud-config\nruncmd: [true]\n\xff"
LABELS = {"team": "web", "app.kubernetes.io/name": "shop"}


def clean_environment() -> dict[str, str]:
    """Return an environment without this project's Python; IAAS_CLOUD_INIT may name a folder with the package."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return {**kept, "NO_PROXY": "*", "PYTHONPATH": os.environ.get("IAAS_CLOUD_INIT", "")}


@pytest.fixture(scope="module")
def cloud_init() -> None:
    """Skip where cloud-init is not installed."""
    if not Path(PYTHON).exists():
        pytest.skip(f"no {PYTHON}, which Debian's cloud-init runs by")
    imported = [PYTHON, "-c", "import cloudinit.sources.DataSourceEc2"]
    if subprocess.run(imported, env=clean_environment(), capture_output=True, timeout=60, check=False).returncode:
        pytest.skip("cloud-init is not installed (Debian package cloud-init; or IAAS_CLOUD_INIT=FOLDER)")


@pytest.fixture
def guest(cloud: Cloud) -> Instance:
    cloud.key_pairs.create(operator(cloud), name="me", public_key=KEY)
    made = create(cloud, name="web", key_pairs=("me",), user_data=USER_DATA, labels=LABELS, metadata_labels=True)
    put(cloud, made, make_vpc(cloud, 1), "127.0.0.1", secondary=("127.0.0.9",))
    return cloud.instances.get(operator(cloud), made.id)


@pytest.fixture
def url(cloud: Cloud) -> Iterator[str]:
    """The metadata service, as the guest at 127.0.0.1 reaches it."""
    driver, servers = LoopbackNetworks(), GuestServers()
    servers.connect(MetadataApp(cloud.metadata, cloud.wall))
    servers.serve("vpc-test0001", driver)
    yield f"http://127.0.0.1:{driver.port_of('vpc-test0001', METADATA_ADDRESS)}"
    servers.close()


def read(url: str, platform: str, guest: Instance, folder: Path) -> Any:
    """Return what cloud-init read."""
    script = Path(__file__).with_name("read_as_cloud_init.py")
    argv = [PYTHON, str(script), url, platform, guest.nics[0].mac, str(folder)]
    done = subprocess.run(argv, env=clean_environment(), capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.mark.usefixtures("cloud_init")
@pytest.mark.parametrize("platform", ["unknown", "aws"])
def test_cloud_init_accepts_the_metadata(guest: Instance, url: str, platform: str, tmp_path: Path) -> None:
    found = read(url, platform, guest, tmp_path)
    assert found["accepted"] is True
    assert found["has_token"] is (platform == "aws"), "only there it asks for one"
    assert found["version"] == "2021-03-23"
    assert found["instance_id"] == guest.id
    assert found["hostname"] == "web"
    assert found["keys"] == [KEY]
    assert found["zone"] == guest.zone
    assert base64.b64decode(found["user_data"]) == USER_DATA
    assert found["is_classic"] is False
    assert found["metadata"]["tags"]["instance"] == LABELS
    nic = found["metadata"]["network"]["interfaces"]["macs"][guest.nics[0].mac]
    assert nic["interface-id"] == guest.nics[0].id
    assert nic["local-ipv4s"] == ["127.0.0.1", "127.0.0.9"]
    assert found["network"]["ethernets"]["eth0"]["addresses"] == ["127.0.0.9/8"], "the first one is DHCP's"
    assert found["network"]["ethernets"]["eth0"]["match"] == {"macaddress": guest.nics[0].mac}
    if platform == "aws":
        assert found["identity"]["instanceId"] == guest.id
