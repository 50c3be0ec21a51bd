"""A libvirtd of our own inside the fabric; the machine's own, if there is one, is not concerned."""

from __future__ import annotations

import logging

from iaas.drivers.interface import BackendDownError
from iaas.drivers.linux.fabric import Fabric
from iaas.drivers.linux.processes import Process, end_processes, find_processes, namespace_inode
from iaas.drivers.linux.programs import ProgramError, run_program
from iaas.drivers.linux.records import ensure_folder, write_text_atomically
from iaas.drivers.linux.unix_sockets import is_accepting
from iaas.drivers.linux.waiting import wait_until

START_TIMEOUT_S = 60  # 0.1 s when all is well; the first start on a loaded machine may read its disk for long
STOP_GRACE_S = 5  # one that hangs is killed: it keeps nothing in memory alone, and a stopping server has no time

# stdio_handler: else the consoles need a virtlogd. namespaces: else QEMU gets a private /dev, which tells it
# nothing it should not know here and breaks files that are added later. cgroup_controllers: else its cgroup
# names clash with those of the machine's own libvirtd. remember_owner: the old owners of our own files are
# of no use to anybody, and the extended attributes that hold them are lost when a file is copied.
QEMU_CONF = """\
stdio_handler = "file"
security_driver = "none"
namespaces = []
cgroup_controllers = []
remember_owner = 0
"""

logger = logging.getLogger(__name__)


class PrivateLibvirtd:
    """The private libvirtd of one deployment. QEMU runs as the distribution's unprivileged user."""

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self._pid_path = fabric.state_dir / "libvirtd.pid"
        self._socket_dir = fabric.state_dir / "sock"
        self.socket_path = self._socket_dir / "libvirt-sock"
        self.log_path = fabric.state_dir / "libvirtd.log"

    @property
    def uri(self) -> str:
        """The connection URI for libvirt-python and virsh, good from any namespace."""
        return f"qemu:///system?socket={self.socket_path}"

    def processes(self) -> list[Process]:
        """Return the daemon's process (a list of none or one), recognised by its arguments."""
        return find_processes(lambda each: each.program == "libvirtd" and str(self._pid_path) in each.argv)

    def ensure(self) -> None:
        """Start the daemon, or adopt the one that runs, with its VMs.

        Raises:
            BackendDownError: it does not start; its log says why.
            PermanentError: it is not installed.
        """
        running = self.processes()
        at_home = self._fabric.mount_namespace_path.stat().st_ino
        strangers = [process for process in running if namespace_inode(process.pid, "mnt") != at_home]
        if strangers:  # the mount namespace was made anew under it: it would read other folders than we write
            end_processes(strangers, grace_s=STOP_GRACE_S)
        elif running and wait_until(self._answers, timeout_s=START_TIMEOUT_S):
            return
        end_processes(self.processes(), grace_s=STOP_GRACE_S)
        self._start()

    def stop(self) -> None:
        """Stop the daemon and wait for its end. VMs run on, and are adopted by the next start."""
        end_processes(self.processes(), grace_s=STOP_GRACE_S)

    def _start(self) -> None:
        etc = self._fabric.libvirt_dir / "etc"
        config_path = etc / "libvirtd.conf"
        write_text_atomically(
            config_path,
            f'unix_sock_dir = "{self._socket_dir}"\n'
            'unix_sock_rw_perms = "0700"\n'
            'auth_unix_rw = "none"\n'
            "listen_tls = 0\n"
            f'log_outputs = "3:file:{self.log_path}"\n',
        )
        write_text_atomically(etc / "qemu.conf", QEMU_CONF)
        ensure_folder(self._socket_dir, mode=0o700)
        argv = ["libvirtd", "--daemon", "--config", str(config_path), "--pid-file", str(self._pid_path)]
        try:
            run_program(self._fabric.argv_inside(argv), timeout_s=START_TIMEOUT_S)
        except ProgramError as exc:
            logger.error("private libvirtd did not start: %s; see %s", exc, self.log_path)
            raise BackendDownError("the private libvirtd did not start; its log says why") from exc
        if not wait_until(self._answers, timeout_s=START_TIMEOUT_S):
            raise BackendDownError("the private libvirtd started and does not answer")
        logger.info("private libvirtd is up")

    def _answers(self) -> bool:
        return is_accepting(self.socket_path)
