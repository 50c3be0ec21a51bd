"""The fabric for an operator who points the drivers at the host's own libvirtd and LXD.

Those look for bridges in the machine's network namespace, so the bridges must be there; routers stay in
namespaces of their own. The deployment's namespace name is then a second name of the machine's namespace.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from iaas.drivers.interface import PermanentError
from iaas.drivers.linux.deployment import claim_state_dir
from iaas.drivers.linux.fabric import Fabric
from iaas.drivers.linux.namespaces import is_machine_namespace, namespace_exists, remove_namespace
from iaas.drivers.linux.programs import run_program


class HostFabric(Fabric):
    """The machine's own namespaces in the place of private ones; our links there carry the deployment's tag."""

    @property
    def is_up(self) -> bool:
        """Whether the name is there."""
        return is_machine_namespace(self.namespace)

    def ensure(self) -> None:
        """Give the machine's namespace the deployment's name. Nothing else of the machine is changed.

        Raises:
            PermanentError: the deployment has a private fabric, or the state folder cannot serve.
        """
        with self._lock:
            claim_state_dir(self.tag, self.state_dir)
            if self.is_up:
                return
            if namespace_exists(self.namespace):
                raise PermanentError(f"deployment {self.tag} was made with private daemons; remove it first")
            remove_namespace(self.namespace)
            run_program(["ip", "netns", "attach", self.namespace, str(os.getpid())])

    def argv_inside(self, argv: Sequence[str]) -> list[str]:
        """Return ``argv``: this is the inside."""
        return list(argv)

    def remove(self) -> None:
        """Take the name away. Links are their makers' to remove."""
        with self._lock:
            remove_namespace(self.namespace)
