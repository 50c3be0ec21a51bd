"""The real backend, wired: libvirt, LXD and Linux networking of one deployment on this host."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from iaas.drivers.interface import Backend, HostReport, MachineKind
from iaas.kernel.units import GIB, MIB

VCPU_OVERCOMMIT = 8  # processors are shared well, memory is not


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
    from iaas.drivers.linux.network import LinuxNetworkDriver
    from iaas.drivers.lxd.driver import LXDComputeDriver

    fabric = Fabric(options.tag, options.state_dir)
    daemons = PrivateDaemons(fabric)
    daemons.ensure()
    vms = LibvirtComputeDriver(
        options.libvirt_uri or daemons.libvirt_uri,
        tag=options.tag,
        state_dir=options.state_dir,
        virt_type=options.virt_type,
    )
    containers = LXDComputeDriver(
        options.lxd_endpoint or daemons.lxd_endpoint,
        tag=options.tag,
        pool=options.lxd_pool if options.lxd_endpoint else daemons.lxd_pool,
        state_dir=options.state_dir,
    )
    networks = LinuxNetworkDriver(fabric, options.tag, options.state_dir)

    def close() -> None:
        vms.close()
        containers.close()
        networks.close()

    return Backend(
        name="real",
        blocking=True,
        compute={MachineKind.VM: vms, MachineKind.CONTAINER: containers},
        networks=networks,
        images=ImageStore(options.image_cache, {MachineKind.VM: vms, MachineKind.CONTAINER: containers}),
        hosts=report_hosts(options.zones, options.state_dir),
        close=close,
    )


def remove_real_backend(options: RealOptions) -> list[str]:
    """Remove all that the deployment has on this host, its state folder included; return what that was."""
    from iaas.drivers.linux.cleanup import remove_deployment

    return remove_deployment(options.tag, options.state_dir)


def report_hosts(zones: tuple[str, ...], state_dir: Path) -> tuple[HostReport, ...]:
    """Return this machine as one host per zone, each with its share: zones of one machine are make-believe."""
    page_bytes, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
    place = next(folder for folder in (state_dir, *state_dir.parents) if folder.exists())
    disk_gib = shutil.disk_usage(place).free // GIB
    return tuple(
        HostReport(
            name=f"{os.uname().nodename}-{zone}",
            zone=zone,
            vcpus=(os.cpu_count() or 1) * VCPU_OVERCOMMIT,
            memory_mib=page_bytes * pages // MIB // len(zones),
            disk_gib=disk_gib // len(zones),
        )
        for zone in zones
    )
