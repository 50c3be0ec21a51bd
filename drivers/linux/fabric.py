"""The fabric: one network namespace for all links of a deployment, and one mount namespace for its daemons.

The machine's own links, routes, tables and daemons are never touched, and a packet to a guest's address
has no way out (see ADR 0004). The network namespace has ``lo`` and our bridges only. The mount namespace
has a /sys that shows those bridges (LXD looks for them there) and libvirt folders of its own (a second
libvirtd stops at the first one's pid file otherwise). It hears of mounts made under the state folder later,
and nothing mounted in it is seen outside.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from iaas.drivers.interface import PermanentError
from iaas.drivers.linux.deployment import claim_state_dir
from iaas.drivers.linux.mounts import is_mount_point, unmount_all
from iaas.drivers.linux.names import check_tag, fabric_namespace
from iaas.drivers.linux.namespaces import (
    create_namespace,
    is_machine_namespace,
    is_namespace_file,
    namespace_exists,
    namespace_path,
    remove_namespace,
)
from iaas.drivers.linux.programs import run_program
from iaas.drivers.linux.records import ensure_folder, read_record, write_record

LIBVIRT_PARENTS = ("etc", "run", "var/lib", "var/cache", "var/log")

# A fresh /sys hides what is mounted below the old one; the daemons need these two where the host has them.
KEPT_UNDER_SYS = ("fs/cgroup", "kernel/security")

logger = logging.getLogger(__name__)


class Fabric:
    """The namespaces of one deployment.

    Args:
        tag: the deployment's tag, four of ``[a-z0-9]``.
        state_dir: the deployment's folder, an absolute path; made when absent. All of it is the
            deployment's, and removed with it.
    """

    def __init__(self, tag: str, state_dir: Path) -> None:
        self.tag = check_tag(tag)
        self.state_dir = state_dir
        self.namespace = fabric_namespace(tag)
        self._record_path = state_dir / "fabric.json"
        self._lock = threading.Lock()

    @property
    def mount_namespace_path(self) -> Path:
        """Where the mount namespace is bound."""
        return self.state_dir / "ns" / "mnt"

    @property
    def libvirt_dir(self) -> Path:
        """What the private libvirtd sees as /etc/libvirt is ``etc`` in here; ``run``, ``var/lib``, ... alike."""
        return self.state_dir / "libvirt"

    @property
    def is_up(self) -> bool:
        """Whether both namespaces stand, finished."""
        return (
            namespace_exists(self.namespace)
            and is_namespace_file(self.mount_namespace_path)
            and read_record(self._record_path) == self._finished_record()
        )

    def ensure(self) -> None:
        """Make the namespaces, or mend them, or adopt the ones of an earlier server with all that lives in them.

        Raises:
            PermanentError: the tag is in use by a deployment with another state folder, or the state
                folder cannot serve (see ``claim_state_dir``).
        """
        with self._lock:
            claim_state_dir(self.tag, self.state_dir)
            if self.is_up:
                return
            if is_machine_namespace(self.namespace):
                raise PermanentError(f"deployment {self.tag} was made with the host's daemons; remove it first")
            if namespace_exists(self.namespace) and read_record(self._record_path) is None:
                raise PermanentError(
                    f"the network namespace {self.namespace} is there and is not of {self.state_dir}: "
                    f"another deployment uses the tag {self.tag!r}"
                )
            # Said before anything is made: what a kill leaves half-made is then known to be ours.
            write_record(self._record_path, {"stage": "making"})
            create_namespace(self.namespace)
            self._make_mount_namespace()
            write_record(self._record_path, self._finished_record())
            logger.info("fabric %s is up", self.namespace)

    def argv_inside(self, argv: Sequence[str]) -> list[str]:
        """Return the argument list that runs ``argv`` in both namespaces (no extra process stays)."""
        return [
            "nsenter",
            f"--net={namespace_path(self.namespace)}",
            f"--mount={self.mount_namespace_path}",
            "--",
            *argv,
        ]

    def remove(self) -> None:
        """Take both namespaces away. What still runs in them lives on unreachable: end it first."""
        with self._lock:
            unmount_all(self.state_dir)
            remove_namespace(self.namespace)
            self._record_path.unlink(missing_ok=True)

    def _finished_record(self) -> dict[str, object]:
        """Name the very namespace that /sys was mounted for: another one of the same name needs a fresh mount."""
        inode = namespace_path(self.namespace).stat().st_ino
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return {"stage": "finished", "network_namespace": inode, "boot": boot}

    def _make_mount_namespace(self) -> None:
        mount_file = self.mount_namespace_path
        if is_mount_point(mount_file):
            run_program(["umount", "--lazy", str(mount_file)])
        if not is_mount_point(self.state_dir):
            # Shared, so that volumes mounted below later are seen by the daemons; first private, to leave
            # the peers that a shared root file system (the rule under systemd) would give it.
            run_program(["mount", "--bind", str(self.state_dir), str(self.state_dir)])
            run_program(["mount", "--make-private", str(self.state_dir)])
            run_program(["mount", "--make-shared", str(self.state_dir)])
        ensure_folder(mount_file.parent, mode=0o700)
        if not is_mount_point(mount_file.parent):
            # The kernel refuses to bind a mount namespace below a shared mount.
            run_program(["mount", "--bind", str(mount_file.parent), str(mount_file.parent)])
            run_program(["mount", "--make-private", str(mount_file.parent)])
        mount_file.touch(mode=0o600)
        run_program(["unshare", f"--mount={mount_file}", "--propagation=slave", "true"])
        self._mount_sys()
        self._mount_libvirt_folders()

    def _run_inside(self, *argv: str) -> None:
        run_program(self.argv_inside(argv))

    def _mount_sys(self) -> None:
        kept = [Path("/sys") / part for part in KEPT_UNDER_SYS if is_mount_point(Path("/sys") / part)]
        parking = self.state_dir / "kept-sys"
        for place in kept:
            parked = parking / place.name
            parked.mkdir(parents=True, exist_ok=True)
            self._run_inside("mount", "--rbind", str(place), str(parked))
        self._run_inside("mount", "-t", "sysfs", "iaas", "/sys")
        for place in kept:
            self._run_inside("mount", "--rbind", str(parking / place.name), str(place))
            self._run_inside("umount", "--recursive", "--lazy", str(parking / place.name))

    def _mount_libvirt_folders(self) -> None:
        ensure_folder(self.libvirt_dir, mode=0o711)
        for parent in LIBVIRT_PARENTS:
            own, usual = self.libvirt_dir / parent, Path("/") / parent / "libvirt"
            ensure_folder(own.parent, mode=0o711)
            ensure_folder(own, mode=0o711)
            if not usual.is_dir():
                ensure_folder(usual, mode=0o755)
            self._run_inside("mount", "--bind", str(own), str(usual))
