"""The small formats an image is made of: archives, ELF headers, package stanzas, scripts."""

from __future__ import annotations

import io
import lzma
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from iaas.drivers.images.elf import read_needs
from iaas.drivers.images.kernel import Kernel
from iaas.drivers.images.newc import NewcArchive
from iaas.drivers.images.packages import parse_package
from iaas.drivers.images.packing import make_container_tarball
from iaas.drivers.images.rootfs import GUEST_DIR, SCRIPTS
from iaas.drivers.interface import PermanentError

STANZA = """\
Package: dropbear-bin
Version: 2022.83-1+deb12u3
Pre-Depends: libfirst:any (>= 1)
Depends: libc6 (>= 2.36), libcrypt1 (>= 1:4.1.0) | libcrypt2, zlib1g
Description: lightweight SSH2 server
 Depends: this is text, not a field
SHA256: abc
"""


def test_a_package_stanza_is_read_with_all_alternatives() -> None:
    package = parse_package(STANZA)
    assert (package.name, package.version, package.sha256) == ("dropbear-bin", "2022.83-1+deb12u3", "abc")
    assert package.depends == (("libfirst",), ("libc6",), ("libcrypt1", "libcrypt2"), ("zlib1g",))


def test_an_archive_has_aligned_entries_and_is_the_same_for_the_same_tree(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"12345")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "link").symlink_to("/bin/busybox")

    def pack() -> bytes:
        archive = NewcArchive()
        archive.add_device("dev/console", 5, 1)
        archive.add_tree(tmp_path)
        return archive.finish()

    data = pack()
    assert data == pack()
    assert len(data) % 4 == 0
    names = []
    offset = 0
    while offset < len(data):
        assert data[offset : offset + 6] == b"070701"
        fields = [int(data[offset + 6 + 8 * n : offset + 14 + 8 * n], 16) for n in range(13)]
        size, name_size = fields[6], fields[11]
        names.append(data[offset + 110 : offset + 110 + name_size - 1].decode())
        start = (offset + 110 + name_size + 3) // 4 * 4
        if names[-1] == "b":
            assert data[start : start + size] == b"12345"
        offset = (start + size + 3) // 4 * 4
    assert names == ["dev/console", "b", "a", "a/link", "TRAILER!!!"]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at a Linux program")
def test_the_libraries_of_a_program_are_read_from_its_header() -> None:
    shell = shutil.which("sh")
    assert shell is not None
    interpreter, names = read_needs(Path(shell).resolve())
    assert interpreter is None or interpreter.startswith("/lib")
    assert all(".so" in name for name in names)


def test_a_file_that_is_no_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("#!/bin/sh\n")
    with pytest.raises(PermanentError, match="ELF"):
        read_needs(tmp_path / "text")


def test_modules_are_ordered_after_what_they_stand_on_and_unpacked(tmp_path: Path) -> None:
    modules = tmp_path / "lib/modules/6.1.0-test/kernel"
    modules.mkdir(parents=True)
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot/vmlinuz-6.1.0-test").write_bytes(b"")
    (modules / "virtio-net.ko").write_bytes(b"\0alias=virtio:d1v*\0alias=x\0depends=net_failover,virtio\0")
    (modules / "net_failover.ko").write_bytes(b"\0depends=\0")
    (modules / "virtio.ko.xz").write_bytes(lzma.compress(b"\0depends=\0unpacked"))
    order = Kernel(tmp_path).load_order(["virtio_net", "built_in"])
    assert [module.name for module in order] == ["net_failover", "virtio", "virtio_net"]
    assert order[1].content.endswith(b"unpacked")
    assert order[2].aliases == ("virtio:d1v*", "x")


def test_a_container_tarball_belongs_to_root_and_has_no_kernel_modules(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "lib/modules/6.1.0").mkdir(parents=True)
    (root / "etc").mkdir()
    (root / "etc/hostname").write_text("tiny\n")
    make_container_tarball(root, tmp_path / "image.tar.gz", description="tiny")
    with tarfile.open(tmp_path / "image.tar.gz") as archive:
        names = archive.getnames()
        assert names[0] == "metadata.yaml"
        assert "rootfs/etc/hostname" in names
        assert not [name for name in names if "modules" in name]
        assert {(entry.uid, entry.gid) for entry in archive.getmembers()} == {(0, 0)}
        metadata = archive.extractfile("metadata.yaml")
        assert metadata is not None
        assert "architecture: x86_64" in io.TextIOWrapper(metadata).read()


def test_every_guest_file_is_installed_or_the_initrds() -> None:
    assert {path.name for path in GUEST_DIR.iterdir()} == {*SCRIPTS, "initrd-init"}


@pytest.mark.parametrize("name", sorted({*SCRIPTS, "initrd-init"} - {"inittab"}))
def test_guest_scripts_are_valid_shell(name: str) -> None:
    shell = shutil.which("sh")
    if shell is None:
        pytest.skip("no sh on this host")
    done = subprocess.run([shell, "-n", str(GUEST_DIR / name)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
