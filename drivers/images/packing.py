"""From a folder to what machines boot: a disk for VMs, a tarball for containers. Needs no root and mounts nothing."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

from iaas.drivers.images.commands import find_tool, run_tool
from iaas.kernel.units import MIB

ROOT_SIZE_MIB = 256


def make_disk(root: Path, target: Path) -> None:
    """Write a qcow2 disk with one ext4 file system that holds ``root``; every file belongs to root."""
    raw = target.with_suffix(".raw")
    with raw.open("wb") as stream:
        stream.truncate(ROOT_SIZE_MIB * MIB)
    # No lazy initialization: the guest's kernel would spend its first seconds on it.
    options = "root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0"
    mke2fs = find_tool("mke2fs", package="e2fsprogs")
    run_tool([mke2fs, "-q", "-F", "-t", "ext4", "-L", "root", "-m", "0", "-E", options, "-d", root, raw], timeout_s=120)
    if os.geteuid() != 0:
        _give_to_root(raw, root)
    qemu_img = find_tool("qemu-img", package="qemu-utils")
    run_tool([qemu_img, "convert", "-f", "raw", "-O", "qcow2", raw, target], timeout_s=120)
    raw.unlink()


def _give_to_root(raw: Path, root: Path) -> None:
    """Make root the owner of all files in the ext4 file ``raw``: mke2fs copied the owner, who is us."""
    debugfs = find_tool("debugfs", package="e2fsprogs")
    commands = []
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root)
        commands += [f'set_inode_field "/{inside}" uid 0', f'set_inode_field "/{inside}" gid 0']
    run_tool([debugfs, "-w", "-f", "-", raw], timeout_s=120, stdin="\n".join(commands) + "\n")


def make_container_tarball(root: Path, target: Path, *, description: str) -> None:
    """Write a unified LXD image: ``metadata.yaml`` and ``rootfs/``, every file root's.

    Kernel modules are left out: a container runs on its host's kernel.
    Source: LXD documentation, "Image format".
    """
    metadata = (
        "architecture: x86_64\n"
        "creation_date: 1700000000\n"  # required; a constant, so that equal trees give equal bytes
        # LXD's driver takes the guest as ready when this file is there (docs/container-machines.md).
        f"properties: {{description: {description}, os: tiny, iaas.ready_file: /run/iaas-ready}}\n"
    ).encode()

    def own(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if entry.name == "rootfs/lib/modules":
            return None
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        entry.mtime = 1700000000
        return entry

    with tarfile.open(target, "w:gz", compresslevel=6) as archive:
        header = tarfile.TarInfo("metadata.yaml")
        header.size = len(metadata)
        archive.addfile(header, io.BytesIO(metadata))
        archive.add(root, "rootfs", filter=own)
