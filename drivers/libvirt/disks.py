"""Files of VMs: imported images that root disks stand on, one folder for each VM.

``images/<image id>.json`` names a base, ``bases/<digest>/`` holds it, ``vm/<domain name>/`` a machine's disk,
console log and the name of its base. A base goes when no image and no machine names it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from iaas.drivers.interface import ImageArtefact, MachineKind, NoCapacityError, NotFoundError, PermanentError
from iaas.drivers.libvirt.domain_config import Boot
from iaas.kernel.units import GIB, MIB

QEMU_IMG_TIMEOUT_S = 60
# Below this much free space a new disk would only fail a little later, inside a guest.
MIN_FREE_BYTES = 256 * MIB
SEARCHABLE = 0o711  # QEMU runs as a user of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """One imported image: a disk to stand on and how to boot it."""

    digest: str
    root: Path
    size_bytes: int  # of the disk as a guest sees it
    boot: Boot | None


def _qemu_img(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["qemu-img", *arguments], capture_output=True, text=True, check=True, timeout=QEMU_IMG_TIMEOUT_S
        )
    except FileNotFoundError as exc:
        raise PermanentError("this host lacks qemu-img (Debian package qemu-utils)") from exc
    except subprocess.TimeoutExpired as exc:
        raise NoCapacityError("the disk of the host is too slow to make a root disk") from exc
    except subprocess.CalledProcessError as exc:
        if "No space left" in exc.stderr:
            raise NoCapacityError("the host has no room for the disk") from exc
        raise PermanentError(f"qemu-img {arguments[0]} failed (exit code {exc.returncode})") from exc
    return done.stdout


class DiskStore:
    """The files of one deployment's VMs under ``state_dir``, which QEMU's user must be able to search.

    One object at a time works on a folder: the server of a deployment holds its lock.
    """

    def __init__(self, state_dir: Path) -> None:
        self._images, self._bases, self._machines = (state_dir / name for name in ("images", "bases", "vm"))
        for folder in (state_dir, self._images, self._bases, self._machines):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(SEARCHABLE)  # whatever the umask was
        # Held for moments only: never while an image is copied or a disk is made.
        self._lock = threading.Lock()
        self._sweep()

    # --- images ---

    def import_image(self, image_id: str, artefact: ImageArtefact) -> None:
        """Copy the artefact in and let ``image_id`` name it; see ``ImageImporter.import_image``."""
        if artefact.kind is not MachineKind.VM or "root" not in artefact.files:
            raise PermanentError("the image has no disk for a VM")
        with tempfile.TemporaryDirectory(prefix=".import-", dir=self._bases) as temporary:
            base_dir, new = self._bases / artefact.digest, Path(temporary) / "base"
            if not base_dir.exists():
                self._copy_base(artefact, new)
            with self._lock:
                if not base_dir.exists():
                    new.rename(base_dir)
                record = self._images / f"{image_id}.json"
                unfinished = record.with_suffix(".new")
                unfinished.write_text(json.dumps({"base": artefact.digest}) + "\n")
                unfinished.replace(record)
                self._collect_garbage()

    def _copy_base(self, artefact: ImageArtefact, new: Path) -> None:
        new.mkdir()
        for role, source in artefact.files.items():
            # A copy of our own: libvirt gives the files it uses to QEMU's user.
            shutil.copyfile(source, new / role)
            (new / role).chmod(0o644)
        info = json.loads(_qemu_img("info", "--output=json", str(new / "root")))
        if info["format"] != "qcow2" or "backing-filename" in info:
            raise PermanentError("the image's disk is not a qcow2 file that stands alone")
        record = {"size_bytes": info["virtual-size"], "cmdline": artefact.cmdline}
        (new / "base.json").write_text(json.dumps(record) + "\n")
        new.chmod(SEARCHABLE)

    def _sweep(self) -> None:
        """Remove what a killed process left of its copying and removing."""
        for folder in (*self._bases.glob(".import-*"), *self._machines.glob(".gone-*")):
            shutil.rmtree(folder, ignore_errors=True)

    def remove_image(self, image_id: str) -> None:
        """Forget the image; its files stay while a machine stands on them."""
        with self._lock:
            (self._images / f"{image_id}.json").unlink(missing_ok=True)
            self._collect_garbage()

    def images(self) -> list[str]:
        """Return the ids of all imported images."""
        return sorted(path.stem for path in self._images.glob("*.json"))

    def any_kernel(self) -> Path | None:
        """Return the kernel of some imported image, None when no image has one."""
        return next(iter(sorted(self._bases.glob("[!.]*/kernel"))), None)

    def _digest_of(self, image_id: str) -> str:
        try:
            return str(json.loads((self._images / f"{image_id}.json").read_text())["base"])
        except FileNotFoundError as exc:
            raise NotFoundError(f"the image {image_id} is not on this host") from exc

    def _base(self, digest: str) -> Base:
        folder = self._bases / digest
        record = json.loads((folder / "base.json").read_text())
        kernel, initrd = folder / "kernel", folder / "initrd"
        boot = None
        if kernel.exists():
            boot = Boot(kernel=kernel, initrd=initrd if initrd.exists() else None, cmdline=record["cmdline"])
        return Base(digest=digest, root=folder / "root", size_bytes=int(record["size_bytes"]), boot=boot)

    def _collect_garbage(self) -> None:
        named = {str(json.loads(path.read_text())["base"]) for path in self._images.glob("*.json")}
        named |= {path.read_text().strip() for path in self._machines.glob("[!.]*/base*")}
        for folder in self._bases.glob("[!.]*"):
            if folder.name not in named:
                shutil.rmtree(folder, ignore_errors=True)

    # --- machines ---

    def machine_dir(self, name: str) -> Path:
        """Return the folder of the machine ``name``, there or not."""
        return self._machines / name

    def console_log(self, name: str) -> Path:
        """Return where the machine's console is written to."""
        return self.machine_dir(name) / "console.log"

    def root_disk(self, name: str, generation: int) -> Path:
        """Return where the machine's root disk of that generation is."""
        return self.machine_dir(name) / f"root-{generation}.qcow2"

    def make_root_disk(self, name: str, generation: int, *, image_id: str, size_gib: int) -> Base:
        """Make the machine's root disk of ``generation`` from the image, beside the one it has; return its base.

        Raises:
            NotFoundError: the image is not on this host.
            NoCapacityError: no room, or the image does not fit into ``size_gib``.
        """
        folder, disk = self.machine_dir(name), self.root_disk(name, generation)
        with self._lock:
            base = self._base(self._digest_of(image_id))
            folder.mkdir(exist_ok=True)
            folder.chmod(SEARCHABLE)
            # From here on the base cannot go, whatever becomes of the image.
            (folder / f"base-{generation}").write_text(base.digest)
        if base.size_bytes > size_gib * GIB:
            raise NoCapacityError(f"the image needs a root disk of {-(-base.size_bytes // GIB)} GiB at least")
        space = os.statvfs(folder)
        if space.f_bavail * space.f_frsize < MIN_FREE_BYTES:
            raise NoCapacityError("the host has no room for the disk")
        new = disk.with_suffix(".new")
        new.unlink(missing_ok=True)
        _qemu_img("create", "-q", "-f", "qcow2", "-b", str(base.root), "-F", "qcow2", str(new), f"{size_gib}G")
        new.replace(disk)
        # Made here, since libvirt gives it to QEMU's user, who cannot make files in this folder.
        self.console_log(name).touch(mode=0o600)
        return base

    def keep_generation(self, name: str, generation: int) -> None:
        """Remove the machine's disks of all other generations."""
        kept = {f"root-{generation}.qcow2", f"base-{generation}"}
        with self._lock:
            for path in (*self.machine_dir(name).glob("root-*"), *self.machine_dir(name).glob("base-*")):
                if path.name not in kept:
                    path.unlink(missing_ok=True)
            self._collect_garbage()

    def remove_machine(self, name: str) -> None:
        """Remove all files of the machine. Already absent is success."""
        # Out of the way first, in one step: nobody looks into a folder that is half gone.
        gone = self._machines / f".gone-{name}-{secrets.token_hex(4)}"
        with self._lock:
            with suppress(FileNotFoundError):
                self.machine_dir(name).rename(gone)
            self._collect_garbage()
        shutil.rmtree(gone, ignore_errors=True)
