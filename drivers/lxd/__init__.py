"""Container machines through LXD (or Incus), over its REST API with pylxd."""

from iaas.drivers.lxd.driver import LXDComputeDriver

__all__ = ["LXDComputeDriver"]
