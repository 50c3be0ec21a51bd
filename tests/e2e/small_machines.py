"""The smallest machines that the private daemons can run: a busybox container, a VM that never leaves its BIOS."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx

from iaas.drivers.linux import names
from iaas.drivers.linux.processes import Process, find_processes
from tests.real_host import RealHost

INIT = b"""#!/bin/busybox sh
trap 'exit 0' TERM PWR
while :; do /bin/busybox sleep 3600 & wait $!; done
"""


def _container_image() -> bytes:
    """Return a unified LXD image with the host's own busybox and its libraries."""
    busybox = shutil.which("busybox") or "/bin/busybox"
    listing = subprocess.run(["ldd", busybox], capture_output=True, text=True, check=False).stdout
    libraries = {word for line in listing.splitlines() for word in line.split() if word.startswith("/")}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:

        def add(path: str, content: bytes | None, *, mode: int = 0o755) -> None:
            entry = tarfile.TarInfo(path)
            entry.mode = mode
            if content is None:
                entry.type = tarfile.DIRTYPE
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))

        metadata = {"architecture": os.uname().machine, "creation_date": 1}
        add("metadata.yaml", json.dumps(metadata).encode(), mode=0o644)  # JSON is YAML
        for folder in ("dev", "proc", "sys", "etc", "tmp"):
            add(f"rootfs/{folder}", None)
        add("rootfs/sbin/init", INIT)
        add("rootfs/bin/busybox", Path(busybox).read_bytes())
        for library in sorted(libraries):
            add(f"rootfs{library}", Path(library).read_bytes())
    return buffer.getvalue()


class SmallContainer:
    """One running container of the deployment's private LXD, on one bridge."""

    def __init__(self, host: RealHost, *, bridge: str) -> None:
        self.name = names.machine(host.tag, "i-smallct0")
        self.link = names.container_veth(host.tag, "nic-smallct0")
        self._socket_path = host.state_dir / "lxd" / "unix.socket"
        image = self._call("POST", "/1.0/images", content=_container_image())
        devices = {
            "root": {"type": "disk", "path": "/", "pool": host.lxd_pool},
            "eth0": {"type": "nic", "nictype": "bridged", "parent": bridge, "name": "eth0", "host_name": self.link},
        }
        source = {"type": "image", "fingerprint": image["metadata"]["fingerprint"]}
        wanted = {"name": self.name, "profiles": [], "source": source, "devices": devices}
        self._call("POST", "/1.0/instances", json=wanted)
        self.start()

    def start(self) -> None:
        self._call("PUT", f"/1.0/instances/{self.name}/state", json={"action": "start", "timeout": 30})

    def init(self) -> Process | None:
        """Return the process that is its init, as seen by LXD; None when it does not run."""
        pid = self._call("GET", f"/1.0/instances/{self.name}/state")["pid"]
        found = find_processes(lambda each: each.pid == pid)
        return found[0] if found else None

    def _call(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        transport = httpx.HTTPTransport(uds=str(self._socket_path))
        with httpx.Client(transport=transport, base_url="http://lxd", timeout=60) as client:
            answer: dict[str, Any] = client.request(method, path, **request).json()
            assert answer["type"] != "error", answer
            if answer["type"] == "async":
                answer = client.get(f"{answer['operation']}/wait").json()
                assert answer["metadata"]["status_code"] == httpx.codes.OK, answer
            metadata: dict[str, Any] = answer["metadata"]
            return metadata


def define_small_vm(host: RealHost, *, bridge: str) -> str:
    """Define a VM without a disk on the deployment's private libvirtd, start it, and return its name."""
    import libvirt

    name = names.machine(host.tag, "i-smallvm0")
    domain = ElementTree.Element("domain", type="qemu")
    for tag, text in (("name", name), ("memory", "65536"), ("vcpu", "1")):
        ElementTree.SubElement(domain, tag).text = text
    system = ElementTree.SubElement(domain, "os")
    ElementTree.SubElement(system, "type", arch="x86_64", machine="pc").text = "hvm"
    devices = ElementTree.SubElement(domain, "devices")
    nic = ElementTree.SubElement(devices, "interface", type="bridge")
    ElementTree.SubElement(nic, "source", bridge=bridge)
    ElementTree.SubElement(nic, "target", dev=names.tap(host.tag, "nic-smallvm0"))
    connection = libvirt.open(host.libvirt_uri)
    try:
        connection.defineXML(ElementTree.tostring(domain, encoding="unicode")).create()
    finally:
        connection.close()
    return name


def active_vms(host: RealHost) -> list[str]:
    """Return the names of the VMs that run, as the private libvirtd sees them."""
    import libvirt

    connection = libvirt.open(host.libvirt_uri)
    try:
        return [domain.name() for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)]
    finally:
        connection.close()
