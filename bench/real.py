"""The real backend beside the tools one would use without us: from the POST until it runs, and by hand.

By hand: ``qemu-img create``, ``virsh define`` and ``virsh start`` with the domain XML that our own VM has, ``lxc
init`` and ``lxc start`` with our own container's configuration, on the same daemons, bridge, image and pool. Only
names, MACs and paths differ. The network is there already, for both; addresses, DHCP and metadata entries, which
are part of our time, have no counterpart there. Ours and theirs take turns, and whatever was made is removed
before the next. Needs root, and everything that ``iaas host check`` wants.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import statistics
import string
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from bench.load import Target
from bench.start import running_server, wait_until_it_answers

FOLDER = Path("/var/lib/iaas")
TURNS = 7
WISH: dict[str, Any] = {"image": "tiny", "vcpus": 1, "memory_mib": 128, "root_disk_gib": 1}
_COMMAND_TIMEOUT_S = 120
_OURS = ("volatile.", "image.", "user.iaas.")


def reasons_against() -> list[str]:
    """Return why it cannot be measured here; empty when it can."""
    missing = [name for name in ("virsh", "lxc", "qemu-img") if shutil.which(name) is None]
    if missing:
        return [f"not on this host: {', '.join(missing)}"]
    from iaas.drivers.linux.host_check import check_host

    return [finding.message for finding in check_host() if finding.blocks]


def measure(turns: int = TURNS) -> dict[str, dict[str, float]]:
    """Return medians in ms and their ratio, by kind of machine."""
    found: dict[str, dict[str, float]] = {}
    with real_server() as server:
        for kind, by_hand in (("container", Container), ("vm", VM)):
            first = server.create(kind)
            raw = by_hand(server, first)
            raw.remove(raw.make(0))  # the first of a kind fills caches, for both
            ours_ms: list[float] = []
            raw_ms: list[float] = []
            for turn in range(1, turns + 1):
                raw_ms.append(_timed(lambda: raw.make(turn), raw.remove))  # noqa: B023 - called at once
                ours_ms.append(_timed(lambda: server.create(kind), server.delete))  # noqa: B023 - called at once
            server.delete(first)
            ours, theirs = statistics.median(ours_ms), statistics.median(raw_ms)
            found[kind] = {"ours_ms": ours, "by_hand_ms": theirs, "ratio": ours / theirs}
    return found


def _timed(make: Callable[[], str], remove: Callable[[str], None]) -> float:
    began = time.perf_counter()
    made = make()
    took_ms = (time.perf_counter() - began) * 1000
    remove(made)
    return took_ms


@dataclass(frozen=True, slots=True)
class RealServer:
    """A server on the real backend, with daemons and namespaces of its own."""

    target: Target
    tag: str
    state: Path

    def create(self, kind: str) -> str:
        """Return the id of a new instance once it runs."""
        accepted = json.loads(self.target.ask("POST", "/v1/instances", json.dumps({**WISH, "kind": kind})))
        self._wait(accepted["job"]["id"])
        return str(accepted["instance"]["id"])

    def delete(self, instance_id: str) -> None:
        accepted = json.loads(self.target.ask("DELETE", f"/v1/instances/{instance_id}?purge=true"))
        self._wait(accepted["job"]["id"])

    def _wait(self, job_id: str) -> None:
        job = {"status": "queued"}
        while job["status"] in ("queued", "running"):
            job = json.loads(self.target.ask("GET", f"/v1/jobs/{job_id}?wait=30"))
        if job["status"] != "succeeded":
            raise RuntimeError(f"the job ended as {job}")


@contextlib.contextmanager
def real_server() -> Iterator[RealServer]:
    """Give a server on the real backend; at the end nothing of it is left on this host."""
    from iaas.drivers.linux.cleanup import leftovers, remove_deployment

    tag = "b" + "".join(random.SystemRandom().choices(string.ascii_lowercase + string.digits, k=3))
    FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
    state = FOLDER / f"bench-{tag}"
    options = ("--backend", "real", "--tag", tag, "--virt-type", "qemu", "--doctor-every", "0")
    try:
        with running_server(state, *options) as (process, port):
            wait_until_it_answers(process, port)
            token = json.loads((state / "credentials.json").read_text())["api_token"]
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            yield RealServer(Target(port=port, headers=headers), tag, state)
    finally:
        remove_deployment(tag, state)
        if left := leftovers(tag, state):
            raise RuntimeError(f"left on this host: {left}")


class VM:
    """VMs by virsh, each like the domain of ``example``."""

    def __init__(self, server: RealServer, example: str) -> None:
        self._virsh = ("virsh", "-q", "-c", f"qemu:///system?socket={server.state / 'sock' / 'libvirt-sock'}")
        name = f"iaas-{server.tag}-{example.partition('-')[2]}"
        self._xml = _run(*self._virsh, "dumpxml", "--inactive", name)
        disk = Path(_parsed(self._xml).find("devices/disk/source").attrib["file"])  # type: ignore[union-attr]  # ours
        self._folder = disk.parent
        info = json.loads(_run("qemu-img", "info", "-U", "--output=json", str(disk)))
        self._base, self._size_bytes = str(info["full-backing-filename"]), int(info["virtual-size"])

    def make(self, turn: int) -> str:
        """Return the name of a VM that runs."""
        name = f"by-hand-{turn}"
        folder = self._folder.with_name(name)
        folder.mkdir()
        folder.chmod(self._folder.stat().st_mode & 0o777)
        disk = folder / "root-0.qcow2"
        _run(
            "qemu-img", "create", "-q", "-f", "qcow2", "-b", self._base, "-F", "qcow2", str(disk), str(self._size_bytes)
        )
        (folder / "console.log").touch()
        domain = folder / "domain.xml"
        domain.write_text(self._changed_xml(turn, name, folder, disk))
        _run(*self._virsh, "define", str(domain))
        _run(*self._virsh, "start", name)
        return name

    def _changed_xml(self, turn: int, name: str, folder: Path, disk: Path) -> str:
        domain = _parsed(self._xml)
        for tag in ("uuid", "metadata"):
            if (element := domain.find(tag)) is not None:
                domain.remove(element)
        for element in domain.iter():
            if element.tag == "name":
                element.text = name
            elif element.tag == "mac":
                element.set("address", f"52:54:00:be:7c:{turn:02x}")
            elif element.tag == "interface":
                element.find("target").set("dev", f"byhand{turn}")  # type: ignore[union-attr]  # ours has one
            for key, value in element.items():
                if value.startswith(str(self._folder)):
                    element.set(key, str(disk if value.endswith(".qcow2") else folder / Path(value).name))
        return ElementTree.tostring(domain, encoding="unicode")

    def remove(self, name: str) -> None:
        _run(*self._virsh, "destroy", name)
        _run(*self._virsh, "undefine", name)
        shutil.rmtree(self._folder.with_name(name))


class Container:
    """Container machines by lxc, each like the instance of ``example``."""

    def __init__(self, server: RealServer, example: str) -> None:
        self._environment = {**os.environ, "LXD_DIR": str(server.state / "lxd"), "LXD_CONF": str(server.state / "lxc")}
        name = f"iaas-{server.tag}-{example.partition('-')[2]}"
        self._like = json.loads(self._lxc("query", f"/1.0/instances/{name}"))
        (image,) = json.loads(self._lxc("query", "/1.0/images?recursion=1"))
        self._image = str(image["fingerprint"])

    def make(self, turn: int) -> str:
        """Return the name of a container that runs."""
        name = f"by-hand-{turn}"
        config = {key: value for key, value in self._like["config"].items() if not key.startswith(_OURS)}
        devices = json.loads(json.dumps(self._like["devices"]))
        devices["eth0"] |= {"hwaddr": f"52:54:00:be:7d:{turn:02x}", "host_name": f"byhand{turn}"}
        described = json.dumps({"config": config, "devices": devices})  # JSON is YAML
        self._lxc("init", self._image, name, "--no-profiles", "-q", stdin=described)
        self._lxc("start", name)
        return name

    def remove(self, name: str) -> None:
        self._lxc("delete", "--force", name)

    def _lxc(self, *arguments: str, stdin: str = "") -> str:
        return _run("lxc", *arguments, environment=self._environment, stdin=stdin)


def _parsed(xml: str) -> ElementTree.Element:
    return ElementTree.fromstring(xml)  # noqa: S314 - libvirt's own


def _run(*argv: str, environment: dict[str, str] | None = None, stdin: str = "") -> str:
    done = subprocess.run(
        argv, input=stdin, env=environment, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()[-500:]}")
    return done.stdout
