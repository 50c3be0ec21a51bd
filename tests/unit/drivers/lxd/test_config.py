from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("pylxd", reason="the extra `real` is not installed")

from iaas.drivers.interface import (
    BackendDownError,
    GuestUnavailableError,
    MachineKind,
    MachineSpec,
    NICSpec,
    NoCapacityError,
    NotFoundError,
    PermanentError,
    PowerState,
    TransientError,
)
from iaas.drivers.lxd import config
from iaas.drivers.lxd.errors import BusyError, driver_error, public_text
from iaas.kernel.units import GIB, MIB

SPEC = MachineSpec(
    machine_id="i-aaaa1111",
    kind=MachineKind.CONTAINER,
    hostname="web-1",
    vcpus=2,
    memory_mib=512,
    root_disk_gib=4,
    image_id="img-tiny0000",
    nics=(
        NICSpec(nic_id="nic-bbbb2222", subnet_id="net-cccc3333", mac="52:54:00:00:00:01"),
        NICSpec(nic_id="nic-dddd4444", subnet_id="net-eeee5555", mac="52:54:00:00:00:02", device_index=1),
    ),
    generation=3,
)


def request_of(spec: MachineSpec, *, has_quota: bool = True) -> dict[str, Any]:
    return config.instance_request(
        spec,
        tag="unit",
        instance_name="iaas-unit-aaaa1111",
        image_alias="iaas-unit-img-tiny0000",
        pool="iaas",
        has_quota=has_quota,
        bridge_name=lambda subnet_id: f"br-{subnet_id}",
    )


def test_every_nic_is_a_bridged_device_with_our_names() -> None:
    devices = request_of(SPEC)["devices"]
    assert devices["eth1"] == {
        "type": "nic",
        "nictype": "bridged",
        "parent": "br-net-eeee5555",
        "name": "eth1",
        "hwaddr": "52:54:00:00:00:02",
        "host_name": "ctunitdddd4444",
        "mtu": "1500",
    }
    assert devices["eth0"]["host_name"] == "ctunitbbbb2222"


def test_the_root_disk_is_bounded_where_the_pool_can() -> None:
    assert request_of(SPEC)["devices"]["root"] == {"type": "disk", "path": "/", "pool": "iaas", "size": "4GiB"}
    assert "size" not in request_of(SPEC, has_quota=False)["devices"]["root"]


def test_a_machine_is_unprivileged_and_not_started_by_lxd_unless_asked() -> None:
    plain = request_of(SPEC)["config"]
    assert (plain["security.privileged"], plain["security.nesting"], plain["boot.autostart"]) == ("false",) * 3
    both = request_of(replace(SPEC, privileged=True, nesting=True))["config"]
    assert (both["security.privileged"], both["security.nesting"]) == ("true", "true")


@pytest.mark.parametrize("hostname", ["web\nlxc.apparmor.profile = unconfined", "", "-web", "web-", "a b", "x" * 64])
def test_a_host_name_cannot_carry_more_than_a_name(hostname: str) -> None:
    with pytest.raises(PermanentError):
        request_of(replace(SPEC, hostname=hostname))


def test_the_state_shows_what_was_asked_for() -> None:
    instance = request_of(SPEC) | {"status": "Running"}
    state = config.machine_state(instance)
    assert (state.machine_id, state.kind, state.power) == ("i-aaaa1111", MachineKind.CONTAINER, PowerState.RUNNING)
    assert (state.vcpus, state.memory_mib, state.generation) == (2, 512, 3)
    assert state.nic_ids == ("nic-bbbb2222", "nic-dddd4444")
    assert config.machine_state(instance, is_stopping=True).power is PowerState.STOPPING


@pytest.mark.parametrize(
    ("status", "power"),
    [
        ("Stopped", PowerState.STOPPED),
        ("Frozen", PowerState.SUSPENDED),
        ("Error", PowerState.CRASHED),
        ("Something new", PowerState.CRASHED),
    ],
)
def test_lxd_states_are_ours(status: str, power: PowerState) -> None:
    assert config.machine_state(request_of(SPEC) | {"status": status}, is_stopping=True).power is power


@pytest.mark.parametrize(
    ("text", "size"), [("128MiB", 128 * MIB), ("2GiB", 2 * GIB), ("1GB", 10**9), ("4096", 4096), ("50%", 0), ("", 0)]
)
def test_sizes_are_read_with_their_units(text: str, size: int) -> None:
    assert config.size_bytes(text) == size


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (400, "Failed creating: write /var/lib/x: no space left on device", NoCapacityError),
        (500, 'Failed to create instance update operation: Instance is busy running a "stop" operation', BusyError),
        (400, 'Instance is busy running a "create" operation', BusyError),
        (404, "Instance not found", NotFoundError),
        (500, "database disk image is malformed", TransientError),
        (503, "LXD is shutting down", BackendDownError),
        (500, 'sftp: "open /etc: is a directory"', PermanentError),
        (400, 'Failed to start device "eth0": Parent device "vx" doesn\'t exist', PermanentError),
        (403, "not authorized", PermanentError),
        (400, "Instance is not running", GuestUnavailableError),
        (412, "Precondition failed", BusyError),
    ],
)
def test_refusals_are_told_apart(status: int, text: str, kind: type[Exception]) -> None:
    assert type(driver_error("do it", status, text)) is kind


def test_a_tenant_reads_no_path_of_the_host() -> None:
    text = 'Failed to run: /usr/sbin/lxd forkstart web /var/lib/lxd/containers "/var/log/x": exit status 1'
    assert public_text(text) == 'Failed to run: (path) forkstart web (path) "(path)": exit status 1'
    assert len(public_text("x" * 5000)) == 300
