"""The fabric and the private daemons, with machines in them, through kills and clean-ups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from iaas.drivers.interface import PermanentError, SubnetSpec, VPCSpec
from iaas.drivers.linux import names
from iaas.drivers.linux.cleanup import leftovers, remove_deployment
from iaas.drivers.linux.deployment import DeploymentLiveError, find_deployments
from iaas.drivers.linux.fabric import Fabric
from iaas.drivers.linux.host_check import check_host
from iaas.drivers.linux.host_fabric import HostFabric
from iaas.drivers.linux.links import link_names
from iaas.drivers.linux.mounts import mount_points_under
from iaas.drivers.linux.namespaces import entered, namespace_path
from iaas.drivers.linux.network import LinuxNetworkDriver
from iaas.drivers.linux.processes import Process, end_processes, find_processes, namespace_inode
from iaas.drivers.linux.programs import run_program
from iaas.drivers.linux.waiting import wait_until
from tests.e2e.small_machines import SmallContainer, active_vms, define_small_vm
from tests.real_host import PARENT, RealHost, close_real_host, new_test_folder, open_real_host, require_real_host

pytestmark = pytest.mark.real

VPC = VPCSpec(vpc_id="vpc-fabric00", cidr="10.77.0.0/16")
SUBNET = SubnetSpec(subnet_id="net-fabric00", vpc_id=VPC.vpc_id, cidr="10.77.0.0/24", gateway="10.77.0.1")


@pytest.fixture(scope="module")
def host() -> Iterator[RealHost]:
    """A deployment of this module's own: its daemons are killed here, which others would not survive."""
    require_real_host()
    host = open_real_host()
    host.networks.ensure_vpc(VPC)
    host.networks.ensure_subnet(SUBNET)
    yield host
    close_real_host(host)


@pytest.fixture(scope="module")
def container(host: RealHost) -> SmallContainer:
    return SmallContainer(host, bridge=names.bridge(host.tag, SUBNET.subnet_id))


@pytest.fixture(scope="module")
def vm(host: RealHost) -> str:
    return define_small_vm(host, bridge=names.bridge(host.tag, SUBNET.subnet_id))


def daemons(host: RealHost) -> list[Process]:
    def is_ours(process: Process) -> bool:
        return process.program in {"libvirtd", "lxd"} and any(str(host.state_dir) in part for part in process.argv)

    return find_processes(is_ours)


def kill_daemons(host: RealHost) -> None:
    assert len(daemons(host)) == 2
    assert end_processes(daemons(host), grace_s=0) == []


def test_the_machine_sees_nothing_of_it(host: RealHost, container: SmallContainer, vm: str) -> None:
    inside = link_names(host.fabric.namespace)
    assert {container.link, names.bridge(host.tag, SUBNET.subnet_id)} <= set(inside)
    assert [name for name in os.listdir("/sys/class/net") if name in inside and name != "lo"] == []
    routes = run_program(["ip", "route", "show", "table", "all"])
    assert "10.77.0" not in routes


def test_a_probe_of_a_private_address_has_no_way_out(host: RealHost) -> None:
    for namespace in (host.fabric.namespace, names.router_namespace(host.tag, VPC.vpc_id)):
        with entered(namespace):
            routes = run_program(["ip", "-4", "route", "show"])
        assert "default" not in routes


def test_a_second_server_adopts_the_fabric_and_the_daemons(host: RealHost) -> None:
    before = {process.pid for process in daemons(host)}
    type(host.daemons)(Fabric(host.tag, host.state_dir)).ensure()
    assert {process.pid for process in daemons(host)} == before


def test_machines_survive_killed_daemons(host: RealHost, container: SmallContainer, vm: str) -> None:
    init = container.init()
    kill_daemons(host)
    host.daemons.ensure()
    assert len(daemons(host)) == 2
    assert container.init() == init is not None
    assert active_vms(host) == [vm]


def test_a_container_that_died_while_no_lxd_ran_can_start_again(host: RealHost, container: SmallContainer) -> None:
    init = container.init()
    assert init is not None
    end_processes([each for each in daemons(host) if each.program == "lxd"], grace_s=0)
    end_processes([init], grace_s=0)
    monitor = f"[lxc monitor] {host.state_dir}/lxd/containers {container.name}"
    assert wait_until(lambda: not find_processes(lambda each: each.argv[0].startswith(monitor)), timeout_s=20)
    assert container.link in link_names(host.fabric.namespace)
    host.daemons.ensure()
    # LXD itself starts what ran before it ended, and fails to where the old link is in the way.
    assert wait_until(lambda: container.init() is not None, timeout_s=20)


def test_daemons_follow_into_a_new_mount_namespace(host: RealHost, container: SmallContainer, vm: str) -> None:
    init = container.init()
    run_program(["umount", "--lazy", str(host.fabric.mount_namespace_path)])
    assert not host.fabric.is_up
    host.daemons.ensure()
    home = host.fabric.mount_namespace_path.stat().st_ino
    assert [namespace_inode(process.pid, "mnt") for process in daemons(host)] == [home, home]
    assert container.init() == init
    assert active_vms(host) == [vm]


def test_mounts_made_later_are_seen_inside_and_none_of_the_inner_ones_outside(host: RealHost) -> None:
    folder = host.state_dir / "later"
    folder.mkdir()
    run_program(["mount", "-t", "tmpfs", "iaas-test", str(folder)])
    try:
        (folder / "file").write_text("seen")
        assert run_program(host.fabric.argv_inside(["cat", str(folder / "file")])) == "seen"
    finally:
        run_program(["umount", str(folder)])
    assert not [point for point in mount_points_under(host.state_dir) if "lxd" in point.parts]
    assert not mount_points_under(Path("/etc/libvirt"))


def test_a_tag_has_one_state_folder(host: RealHost) -> None:
    other = PARENT / f"other-{host.tag}"
    try:
        with pytest.raises(PermanentError, match="another deployment"):
            Fabric(host.tag, other).ensure()
        with pytest.raises(PermanentError, match="belongs to"):
            Fabric("tzzz", host.state_dir).ensure()
    finally:
        assert not mount_points_under(other)
        (other / "deployment.json").unlink()
        other.rmdir()


def test_a_folder_closed_to_qemu_is_refused_with_the_remedy(tmp_path: Path) -> None:
    require_real_host()
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(PermanentError, match="chmod o"):
        Fabric("tzzz", closed / "state").ensure()
    assert list(closed.iterdir()) == []


def test_the_host_check_names_a_remedy_for_each_problem(tmp_path: Path) -> None:
    require_real_host()
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    findings = check_host(closed / "state")
    assert [each.name for each in findings if not each.ok and not each.remedy] == []
    assert [each.name for each in findings if each.blocks] == ["state"]
    assert not [name for name in os.listdir("/run/netns") if name.startswith("iaas-check-")]


def test_a_live_deployment_is_never_removed(host: RealHost) -> None:
    with pytest.raises(DeploymentLiveError):
        remove_deployment(host.tag, host.state_dir)
    assert len(daemons(host)) == 2
    assert [each.is_live for each in find_deployments(PARENT) if each.tag == host.tag] == [True]


def test_a_killed_deployment_is_removed_without_a_trace() -> None:
    require_real_host()
    host = open_real_host()
    try:
        host.networks.ensure_vpc(VPC)
        host.networks.ensure_subnet(SUBNET)
        bridge = names.bridge(host.tag, SUBNET.subnet_id)
        container = SmallContainer(host, bridge=bridge)
        init = container.init()
        define_small_vm(host, bridge=bridge)
        fabric_inode = namespace_path(host.fabric.namespace).stat().st_ino
        kill_daemons(host)
    finally:
        host.lock.release()  # as the kernel does for a server that was killed
        removed = remove_deployment(host.tag, host.state_dir)
    assert leftovers(host.tag, host.state_dir) == []
    assert any("qemu" in what for what in removed)
    assert any("dnsmasq" in what for what in removed)
    assert init is not None
    assert not Path(f"/proc/{init.pid}").exists()
    assert find_processes(lambda each: namespace_inode(each.pid, "net") == fabric_inode) == []
    assert remove_deployment(host.tag, host.state_dir) == []


def test_with_the_hosts_own_daemons_only_our_links_are_touched() -> None:
    require_real_host()
    tag, state_dir = new_test_folder()
    fabric = HostFabric(tag, state_dir)
    links_before = set(os.listdir("/sys/class/net"))
    try:
        fabric.ensure()
        fabric.ensure()
        with pytest.raises(PermanentError):
            Fabric(tag, state_dir).ensure()
        networks = LinuxNetworkDriver(fabric, tag, state_dir)
        networks.ensure_vpc(VPC)
        networks.ensure_subnet(SUBNET)
        bridge = names.bridge(tag, SUBNET.subnet_id)
        assert bridge in os.listdir("/sys/class/net")
        assert "10.77.0" not in run_program(["ip", "address", "show"])
        # What removal would end: our DHCP server, and nobody else of those who live in the machine's namespace.
        doomed = [what for what in leftovers(tag, state_dir) if what.startswith("process")]
        assert [what.split()[2] for what in doomed] == ["dnsmasq"]
    finally:
        remove_deployment(tag, state_dir)
    assert leftovers(tag, state_dir) == []
    assert links_before <= set(os.listdir("/sys/class/net"))
