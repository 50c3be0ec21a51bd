"""The ``tiny`` image: one small root file system from Debian packages, as VM disk and as container image."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from iaas.drivers.images.cache import CacheEntry, ImageCache
from iaas.drivers.images.kernel import Kernel, install_modules, make_initrd
from iaas.drivers.images.packages import Apt, Package, unpack
from iaas.drivers.images.packing import make_container_tarball, make_disk
from iaas.drivers.images.rootfs import GUEST_DIR, LibrarySource, find_busybox, make_rootfs
from iaas.drivers.interface import ImageArtefact, MachineKind, PermanentError, TransientError

# Raise it when the code that builds changes what it builds; files in guest/ count by themselves.
RECIPE = "5"
# The static busybox: without a dynamic loader to run, each command starts three times as fast under emulation.
# iproute2 and dash are for network namespaces, which containers inside the guest are made of.
PROGRAM_PACKAGES = ("busybox-static", "dash", "dropbear-bin", "iproute2", "qemu-guest-agent")
KERNEL_PACKAGE = "linux-image-cloud-amd64"
# What an emulated processor need not spend time on: text to the console, self-tests, address randomization.
CMDLINE = "console=ttyS0 quiet no_timer_check cryptomgr.notests mitigations=off random.trust_cpu=on panic=10"

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyImage:
    """The finished image: one artefact for each kind."""

    version: str
    directory: Path
    artefacts: Mapping[MachineKind, ImageArtefact]
    packages: str  # "busybox=1:1.35.0-4 ...": what it was made from


def default_cache_dir() -> Path:
    """Return where images are kept: for the whole machine as root, in the user's own cache otherwise."""
    if os.geteuid() == 0:
        return Path("/var/cache/iaas/images")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "iaas/images"


def tiny_version() -> str:
    """Return the digest of the recipe: guest files, package names, build code's version, command line.

    Package versions are not in it, so that a host without a mirror uses what it has; ``refresh`` of
    :func:`build_tiny` takes in newer packages.
    """
    digest = hashlib.sha256()
    for text in (RECIPE, CMDLINE, KERNEL_PACKAGE, *PROGRAM_PACKAGES):
        digest.update(text.encode() + b"\0")
    for path in sorted(GUEST_DIR.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def build_tiny(cache_dir: Path | None, progress: Progress, *, refresh: bool = False) -> TinyImage:
    """Return the tiny image, built on first use (some seconds and 35 MB from the mirror) and cached.

    Args:
        cache_dir: where to keep it; :func:`default_cache_dir` when None.
        progress: told sentences for people while it is built.
        refresh: build it anew from the mirror's present packages.

    Raises:
        TransientError: the mirror did not answer.
        PermanentError: this host lacks a tool, or is no 64-bit PC.
    """
    cache = ImageCache(cache_dir or default_cache_dir())
    version = tiny_version()
    name = f"tiny-{version}"
    entry = None if refresh else cache.load(name)
    if entry is None:
        if platform.machine() != "x86_64":
            raise PermanentError("the tiny image is for x86-64 hosts only")
        with cache.locked():
            # Whoever held the lock before may have built it.
            entry = None if refresh else cache.load(name)
            if entry is None:
                entry = _build(cache, name, progress)
    return _image(version, entry)


def _image(version: str, entry: CacheEntry) -> TinyImage:
    def artefact(kind: MachineKind, roles: Mapping[str, str], cmdline: str) -> ImageArtefact:
        digest = hashlib.sha256("".join(entry.files[file] for _, file in sorted(roles.items())).encode())
        files = {role: entry.directory / file for role, file in roles.items()}
        return ImageArtefact(kind=kind, digest=digest.hexdigest(), files=files, cmdline=cmdline)

    vm_roles = {"root": "root.qcow2", "kernel": "vmlinuz", "initrd": "initrd"}
    return TinyImage(
        version=version,
        directory=entry.directory,
        artefacts={
            MachineKind.VM: artefact(MachineKind.VM, vm_roles, CMDLINE),
            MachineKind.CONTAINER: artefact(MachineKind.CONTAINER, {"tarball": "container.tar.gz"}, ""),
        },
        packages=entry.notes["packages"],
    )


def _build(cache: ImageCache, name: str, progress: Progress) -> CacheEntry:
    started = time.monotonic()

    def make(results: Path, scraps: Path) -> Mapping[str, str]:
        packages = _fetch(cache.directory / "apt", scraps, progress)
        progress("Assembling the root file system of the tiny image")
        tree, root = scraps / "packages", scraps / "root"
        libraries = LibrarySource(tree)
        kernel = Kernel(tree)
        make_rootfs(tree, root, libraries)
        install_modules(kernel, root)
        shutil.copyfile(kernel.image, results / "vmlinuz")
        (results / "initrd").write_bytes(make_initrd(kernel, libraries, find_busybox(tree)))
        progress("Packing the tiny image for both kinds of machine")
        make_disk(root, results / "root.qcow2")
        make_container_tarball(root, results / "container.tar.gz", description="tiny")
        names = " ".join(f"{package.name}={package.version}" for package in packages.values())
        return {"packages": names, "kernel": kernel.release}

    entry = cache.build(name, make)
    progress(f"The tiny image is built ({time.monotonic() - started:.0f} s)")
    return entry


def _fetch(apt_dir: Path, scraps: Path, progress: Progress) -> dict[str, Package]:
    """Unpack all packages under ``scraps``; out-of-date package lists are refreshed, once."""
    apt = Apt(apt_dir, progress)
    try:
        return _fetch_with(apt, scraps, progress, attempt="first")
    except (PermanentError, TransientError):
        # No lists on this host, or they name versions that the mirror has replaced since.
        apt.refresh()
        return _fetch_with(apt, scraps, progress, attempt="second")


def _fetch_with(apt: Apt, scraps: Path, progress: Progress, *, attempt: str) -> dict[str, Package]:
    packages = apt.with_libraries(PROGRAM_PACKAGES)
    meta = apt.find([KERNEL_PACKAGE]).get(KERNEL_PACKAGE)
    if meta is None:
        raise PermanentError(f"the configured mirror has no package {KERNEL_PACKAGE}")
    # The meta package holds nothing; its first dependency is the kernel of the day.
    kernels = [name for names in meta.depends for name in names if name.startswith("linux-image-")]
    packages |= apt.find(kernels[:1])
    progress(f"Fetching {len(packages)} packages from the configured mirror for the tiny image")
    unpack(apt.download(packages, scraps / f"debs-{attempt}"), scraps / "packages")
    return packages
