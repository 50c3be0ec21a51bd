"""The private daemons of a deployment, started and stopped together."""

from __future__ import annotations

import threading

from iaas.drivers.linux.fabric import Fabric
from iaas.drivers.linux.private_libvirtd import PrivateLibvirtd
from iaas.drivers.linux.private_lxd import POOL, PrivateLXD


class PrivateDaemons:
    """libvirtd and LXD of one deployment, inside its fabric.

    They are no children of ours: a server that was killed leaves them, and the machines they run, to be
    adopted by the next one. ``ensure`` may be called again at any time to mend what died.
    """

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self._libvirtd = PrivateLibvirtd(fabric)
        self._lxd = PrivateLXD(fabric)
        self._lock = threading.Lock()

    @property
    def libvirt_uri(self) -> str:
        """The connection URI for libvirt-python."""
        return self._libvirtd.uri

    @property
    def lxd_endpoint(self) -> str:
        """The endpoint for pylxd."""
        return self._lxd.endpoint

    @property
    def lxd_pool(self) -> str:
        """The name of LXD's storage pool."""
        return POOL

    def ensure(self) -> None:
        """Bring the fabric and both daemons up, or adopt them as they run.

        Raises:
            BackendDownError: one of them does not start or does not answer.
            PermanentError: the fabric cannot be made, or a daemon is not installed.
        """
        with self._lock:
            self.fabric.ensure()
            self._libvirtd.ensure()
            self._lxd.ensure()

    def stop(self) -> None:
        """Stop both and wait for their end; machines run on. Already stopped is success."""
        with self._lock:
            self._lxd.stop()
            self._libvirtd.stop()
