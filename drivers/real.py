"""The real backend, wired: libvirt, LXD and Linux networking of one deployment on this host."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from iaas.drivers.interface import Backend, HostReport, MachineKind, PermanentError
from iaas.kernel.units import GIB, MIB

VCPU_OVERCOMMIT = 8.0  # processors are shared well, memory is not


@dataclass(frozen=True, slots=True, kw_only=True)
class RealOptions:
    """Where the real backend lives and whom it talks to.

    ``libvirt_uri`` and ``lxd_endpoint`` point at daemons that somebody else runs; without them private ones
    are started inside the deployment's own namespaces.
    """

    tag: str
    state_dir: Path
    zones: tuple[str, ...]
    image_cache: Path | None = None
    virt_type: str = "auto"
    libvirt_uri: str | None = None
    lxd_endpoint: str | None = None
    lxd_pool: str = "default"


def build_real_backend(options: RealOptions) -> Backend:
    """Bring up (or adopt) the deployment's namespaces and daemons and return its drivers.

    Raises:
        BackendDownError: a daemon does not start or does not answer.
        PermanentError: this host cannot run it; the message says what to mend.
    """
    # Imported here: the simulated server needs none of it, and has none of it installed.
    from iaas.drivers.images.store import ImageStore
    from iaas.drivers.libvirt.driver import LibvirtComputeDriver
    from iaas.drivers.linux.daemons import PrivateDaemons
    from iaas.drivers.linux.fabric import Fabric
    from iaas.drivers.linux.host_fabric import HostFabric
    from iaas.drivers.linux.network import LinuxNetworkDriver
    from iaas.drivers.lxd.driver import LXDComputeDriver

    if (options.libvirt_uri is None) != (options.lxd_endpoint is None):
        raise PermanentError(
            "the host's own daemons can be used only together: both must see the same bridges; "
            "give libvirt_uri and lxd_endpoint, or neither"
        )
    fabric: Fabric
    revive: Callable[[], None] | None = None
    if options.libvirt_uri is not None and options.lxd_endpoint is not None:
        fabric = HostFabric(options.tag, options.state_dir)
        fabric.ensure()
        libvirt_uri, lxd_endpoint, lxd_pool = options.libvirt_uri, options.lxd_endpoint, options.lxd_pool
        stop_daemons: Callable[[], None] | None = None
    else:
        fabric = Fabric(options.tag, options.state_dir)
        daemons = PrivateDaemons(fabric)
        daemons.ensure()
        libvirt_uri, lxd_endpoint, lxd_pool = daemons.libvirt_uri, daemons.lxd_endpoint, daemons.lxd_pool
        stop_daemons = daemons.stop
        revive = daemons.ensure
    vms = LibvirtComputeDriver(libvirt_uri, tag=options.tag, state_dir=options.state_dir, virt_type=options.virt_type)
    containers = LXDComputeDriver(lxd_endpoint, tag=options.tag, pool=lxd_pool, state_dir=options.state_dir)
    networks = LinuxNetworkDriver(fabric, options.tag, options.state_dir)

    def close() -> None:
        """Let go; machines run on without their daemons and are adopted by the next start."""
        vms.close()
        containers.close()
        networks.close()
        if stop_daemons is not None:
            stop_daemons()

    return Backend(
        name="real",
        blocking=True,
        compute={MachineKind.VM: vms, MachineKind.CONTAINER: containers},
        networks=networks,
        images=ImageStore(options.image_cache, {MachineKind.VM: vms, MachineKind.CONTAINER: containers}),
        hosts=report_hosts(options.zones, options.state_dir),
        close=close,
        revive=revive,
    )


def remove_real_backend(options: RealOptions) -> list[str]:
    """Remove all that the deployment has on this host, its state folder included; return what that was.

    Private daemons go with their machines. The host's own daemons are asked, and keep everything else.
    """
    from iaas.drivers.linux.cleanup import remove_deployment

    removed: list[str] = []
    if options.libvirt_uri is not None:
        backend = build_real_backend(options)
        try:
            for driver in backend.compute.values():
                for machine in driver.inventory():
                    driver.remove_machine(machine.machine_id)
                    removed.append(f"machine {machine.machine_id}")
            for image in backend.images.inventory():
                backend.images.remove_image(image.image_id)
                removed.append(f"image {image.image_id}")
            for subnet in backend.networks.subnets():
                backend.networks.remove_subnet(subnet.subnet_id)
                removed.append(f"subnet {subnet.subnet_id}")
            for vpc in backend.networks.vpcs():
                backend.networks.remove_vpc(vpc.vpc_id)
                removed.append(f"VPC {vpc.vpc_id}")
        finally:
            backend.close()
    return removed + remove_deployment(options.tag, options.state_dir)


def report_hosts(zones: tuple[str, ...], state_dir: Path) -> tuple[HostReport, ...]:
    """Return this machine as one host per zone, each with its share: zones of one machine are make-believe."""
    page_bytes, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
    place = next(folder for folder in (state_dir, *state_dir.parents) if folder.exists())
    disk_gib = shutil.disk_usage(place).free // GIB
    return tuple(
        HostReport(
            name=f"{os.uname().nodename}-{zone}",
            zone=zone,
            vcpus=os.cpu_count() or 1,
            vcpu_overcommit=VCPU_OVERCOMMIT,
            memory_mib=page_bytes * pages // MIB // len(zones),
            disk_gib=disk_gib // len(zones),
        )
        for zone in zones
    )
