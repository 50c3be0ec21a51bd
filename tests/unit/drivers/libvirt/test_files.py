"""Console logs, disks and the decision about hardware virtualization: all that is files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("libvirt")  # the extra "real"

from iaas.drivers.interface import ImageArtefact, MachineKind, NoCapacityError, NotFoundError, PermanentError
from iaas.drivers.libvirt import console, probe
from iaas.drivers.libvirt.disks import DiskStore
from iaas.drivers.libvirt.domain_config import VirtType

needs_qemu_img = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")


def test_the_tail_of_a_console_log(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    assert console.read_tail(log, 10) == b""
    log.write_bytes(b"0123456789abcdef")
    assert console.read_tail(log, 4) == b"cdef"
    assert console.read_tail(log, 100) == b"0123456789abcdef"


def test_a_grown_console_log_keeps_its_end_while_it_is_written_to(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * console.LIMIT_BYTES + b"end")
        console.shorten(log)
        writer.write(b"more")
    assert log.stat().st_size == console.KEPT_BYTES + 4
    assert log.read_bytes().endswith(b"xendmore")


@pytest.fixture
def artefact(tmp_path: Path) -> ImageArtefact:
    root, kernel = tmp_path / "source.qcow2", tmp_path / "vmlinuz"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(root), "64M"], check=True)
    kernel.write_bytes(b"kernel")
    return ImageArtefact(kind=MachineKind.VM, digest="d1", files={"root": root, "kernel": kernel}, cmdline="quiet")


def bases(store_dir: Path) -> list[str]:
    return sorted(path.name for path in (store_dir / "bases").iterdir())


@needs_qemu_img
def test_a_base_lives_as_long_as_an_image_or_a_machine_names_it(tmp_path: Path, artefact: ImageArtefact) -> None:
    store = DiskStore(tmp_path / "state")
    store.import_image("img-1", artefact)
    store.import_image("img-1", artefact)
    base = store.make_root_disk("vm-1", 0, image_id="img-1", size_gib=1)
    assert base.boot is not None
    assert base.boot.cmdline == "quiet"
    assert store.images() == ["img-1"]
    store.remove_image("img-1")
    store.remove_image("img-1")
    assert store.images() == []
    assert bases(tmp_path / "state") == ["d1"]
    store.remove_machine("vm-1")
    store.remove_machine("vm-1")
    assert bases(tmp_path / "state") == []


@needs_qemu_img
def test_a_new_generation_stands_beside_the_old_until_one_is_kept(tmp_path: Path, artefact: ImageArtefact) -> None:
    store = DiskStore(tmp_path / "state")
    store.import_image("img-1", artefact)
    for generation in (0, 1):
        store.make_root_disk("vm-1", generation, image_id="img-1", size_gib=1)
    assert store.root_disk("vm-1", 0).exists()
    store.keep_generation("vm-1", 1)
    assert not store.root_disk("vm-1", 0).exists()
    assert store.root_disk("vm-1", 1).exists()
    assert bases(tmp_path / "state") == ["d1"]


@needs_qemu_img
def test_disks_that_cannot_be_are_refused(tmp_path: Path, artefact: ImageArtefact) -> None:
    store = DiskStore(tmp_path / "state")
    with pytest.raises(NotFoundError):
        store.make_root_disk("vm-1", 0, image_id="img-1", size_gib=1)
    assert not store.machine_dir("vm-1").exists()
    with pytest.raises(PermanentError):
        store.import_image("img-1", ImageArtefact(kind=MachineKind.CONTAINER, digest="d", files={}))
    large = tmp_path / "large.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(large), "3G"], check=True)
    store.import_image("img-2", ImageArtefact(kind=MachineKind.VM, digest="d2", files={"root": large}))
    with pytest.raises(NoCapacityError, match="3 GiB"):
        store.make_root_disk("vm-1", 0, image_id="img-2", size_gib=2)


def test_without_a_device_vms_are_emulated_and_no_kernel_is_booted(tmp_path: Path) -> None:
    decider = probe.VirtTypeProbe(tmp_path, device=tmp_path / "kvm")
    assert decider.decide(tmp_path / "kernel") is VirtType.QEMU
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("boots", [True, False])
def test_the_probe_boots_once_and_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, boots: bool) -> None:
    booted: list[Path] = []

    def boot(kernel: Path) -> bool:
        booted.append(kernel)
        return boots

    monkeypatch.setattr(probe, "boots_under_kvm", boot)
    monkeypatch.setattr(probe, "can_others_open", lambda device: True)
    assert probe.VirtTypeProbe(tmp_path).decide(None) is VirtType.QEMU
    expected = VirtType.KVM if boots else VirtType.QEMU
    for _ in range(2):
        assert probe.VirtTypeProbe(tmp_path).decide(tmp_path / "kernel") is expected
    assert len(booted) == 1
