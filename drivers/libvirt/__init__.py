"""VMs by libvirt and QEMU."""

from iaas.drivers.libvirt.domain_config import VirtType
from iaas.drivers.libvirt.driver import LibvirtComputeDriver
from iaas.drivers.libvirt.probe import VirtTypeChoice

__all__ = ["LibvirtComputeDriver", "VirtType", "VirtTypeChoice"]
