"""An LXD of our own inside the fabric: no network, no profile devices, one storage pool."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from iaas.drivers.interface import BackendDownError
from iaas.drivers.linux.container_links import ContainerLinks
from iaas.drivers.linux.fabric import Fabric
from iaas.drivers.linux.names import CONTAINER_VETH
from iaas.drivers.linux.namespaces import netlink
from iaas.drivers.linux.processes import Process, end_processes, find_processes, namespace_inode
from iaas.drivers.linux.programs import environment, run_program
from iaas.drivers.linux.records import ensure_folder
from iaas.drivers.linux.unix_sockets import is_accepting
from iaas.drivers.linux.waiting import wait_until

if TYPE_CHECKING:
    import httpx

POOL = "iaas"
START_TIMEOUT_S = 60  # 0.3 s when all is well, more when containers start with it
STOP_GRACE_S = 5  # then it is killed, which it survives well; it would wait minutes for its operations

logger = logging.getLogger(__name__)


class PrivateLXD:
    """The private LXD of one deployment."""

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self.lxd_dir = fabric.state_dir / "lxd"
        self.log_path = fabric.state_dir / "lxd.log"
        self.socket_path = self.lxd_dir / "unix.socket"

    @property
    def endpoint(self) -> str:
        """The endpoint for pylxd, good from any namespace."""
        return f"http+unix://{quote(str(self.socket_path), safe='')}"

    def processes(self) -> list[Process]:
        """Return the daemon's process (a list of none or one), recognised by its arguments."""
        return find_processes(lambda each: each.program == "lxd" and str(self.log_path) in each.argv)

    def ensure(self) -> None:
        """Start the daemon, or adopt the one that runs; then see that it has its storage pool.

        Raises:
            BackendDownError: it does not start, or makes no pool; its log says why.
            PermanentError: it is not installed.
        """
        running = self.processes()
        at_home = self._fabric.mount_namespace_path.stat().st_ino
        strangers = [process for process in running if namespace_inode(process.pid, "mnt") != at_home]
        if strangers:  # the mount namespace was made anew under it: it would not see what is mounted from now on
            end_processes(strangers, grace_s=STOP_GRACE_S)
            running = []
        if not running or not wait_until(self._answers, timeout_s=START_TIMEOUT_S):
            end_processes(running, grace_s=STOP_GRACE_S)
            self._start()
        self._ensure_pool()

    def stop(self) -> None:
        """Stop the daemon and wait for its end. Containers run on, and are adopted by the next start."""
        end_processes(self.processes(), grace_s=STOP_GRACE_S)

    def _start(self) -> None:
        self._delete_dead_links()
        ensure_folder(self.lxd_dir, mode=0o711)
        argv = ["setsid", "--fork", "lxd", "--group", "root", "--logfile", str(self.log_path)]
        # Without LXD_DIR it would take itself for the machine's own LXD.
        run_program(self._fabric.argv_inside(argv), env=environment({"LXD_DIR": str(self.lxd_dir)}))
        if not wait_until(self._answers, timeout_s=START_TIMEOUT_S):
            logger.error("private LXD does not answer; see %s", self.log_path)
            raise BackendDownError("the private LXD does not answer; its log says why")
        logger.info("private LXD is up")

    def _delete_dead_links(self) -> None:
        """Delete the links of containers that died while no LXD ran; they would keep those from starting again."""
        with netlink(self._fabric.namespace) as handle:
            links = [str(link.get_attr("IFLA_IFNAME")) for link in handle.get_links(kind="veth")]
        prefix = f"{CONTAINER_VETH}{self._fabric.tag}"
        for name in ContainerLinks(self._fabric.namespace).delete_dead([n for n in links if n.startswith(prefix)]):
            logger.info("deleted %s, the link of a dead container", name)

    @contextmanager
    def _client(self) -> Iterator[httpx.Client]:
        import httpx

        transport = httpx.HTTPTransport(uds=str(self.socket_path))
        with httpx.Client(transport=transport, base_url="http://lxd", timeout=60) as client:
            yield client

    def _answers(self) -> bool:
        import httpx

        if not is_accepting(self.socket_path):  # asked first, since httpx forgets to close a socket that is refused
            return False
        try:
            with self._client() as client:
                return client.get("/1.0", timeout=5).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def _ensure_pool(self) -> None:
        with self._client() as client:
            if client.get(f"/1.0/storage-pools/{POOL}").status_code == 200:
                return
            # Images come from us alone: nothing to look for on a network that is not there.
            _succeed(client.patch("/1.0", json={"config": {"images.auto_update_interval": "0"}}).json())
            # btrfs clones an image in no time and keeps quotas; a loop file of LXD's own choice of size, sparse.
            drivers = ["btrfs", "dir"] if shutil.which("mkfs.btrfs", path=environment()["PATH"]) else ["dir"]
            for driver in drivers:
                answer = client.post("/1.0/storage-pools", json={"name": POOL, "driver": driver}).json()
                if answer.get("type") != "error":
                    logger.info("private LXD keeps its machines in a %s pool", driver)
                    return
                logger.warning("private LXD made no %s pool: %s", driver, answer.get("error"))
            _succeed(answer)


def _succeed(answer: dict[str, Any]) -> None:
    if answer.get("type") == "error":
        raise BackendDownError(f"the private LXD refused its set-up: {answer.get('error')}")
