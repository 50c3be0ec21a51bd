"""The root file system that both kinds of machine boot: programs of a few packages and the scripts in ``guest/``."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from iaas.drivers.images.commands import run_tool
from iaas.drivers.images.elf import read_needs
from iaas.drivers.images.packages import find_file
from iaas.drivers.interface import PermanentError

GUEST_DIR = Path(__file__).parent / "guest"
LIBRARY_DIR = "lib/x86_64-linux-gnu"

FOLDERS = (
    "bin", "sbin", "usr/bin", "usr/sbin", "lib", "lib64", "dev", "proc", "sys", "run", "tmp", "mnt",
    "etc/iaas", "etc/dropbear", "etc/acpi/PWRF", "root/.ssh", "var/log", "var/lib/iaas", "var/www",
)  # fmt: skip

PROGRAMS = {
    "usr/sbin/dropbear": ("usr/sbin/dropbear",),
    "usr/bin/dropbearkey": ("usr/bin/dropbearkey",),
    "usr/bin/dbclient": ("usr/bin/dbclient",),
    "usr/sbin/qemu-ga": ("usr/sbin/qemu-ga", "usr/bin/qemu-ga"),
    # Before busybox's own in the search path, since that one knows no namespaces; and a shell that searches there:
    # busybox's prefers its own commands. It starts the faster, so our scripts are for that one (/bin/ash).
    "sbin/ip": ("bin/ip", "usr/bin/ip"),
    "bin/dash": ("bin/dash", "usr/bin/dash"),
}

SCRIPTS = {
    "inittab": ("etc/inittab", 0o644),
    "kind": ("etc/iaas/kind", 0o644),
    "rc": ("etc/iaas/rc", 0o755),
    "devices": ("etc/iaas/devices", 0o755),
    "changed": ("etc/iaas/changed", 0o755),
    "lease": ("etc/iaas/lease", 0o755),
    "metadata": ("etc/iaas/metadata", 0o755),
    "announce": ("etc/iaas/announce", 0o755),
    "agent": ("etc/iaas/agent", 0o755),
    "power": ("etc/iaas/power", 0o755),
    "power-button": ("etc/acpi/PWRF/00000080", 0o755),
    "ssh": ("etc/iaas/ssh", 0o755),
    "late": ("etc/iaas/late", 0o755),
}

TEXTS = {
    "etc/passwd": ("root:x:0:0:root:/root:/bin/sh\n", 0o644),
    "etc/group": ("root:x:0:\n", 0o644),
    "etc/shadow": ("root:*:19000:0:99999:7:::\n", 0o600),
    "etc/shells": ("/bin/sh\n/bin/ash\n", 0o644),
    "etc/nsswitch.conf": ("passwd: files\ngroup: files\nhosts: files dns\n", 0o644),
    "etc/hosts": ("127.0.0.1 localhost\n", 0o644),
    "etc/hostname": ("tiny\n", 0o644),
    "etc/resolv.conf": ("", 0o644),
    # People type in busybox's shell, which has line editing, and get the same "ip" there.
    "etc/profile": (
        "export PATH=/sbin:/usr/sbin:/bin:/usr/bin ENV=/etc/iaas/interactive\n"
        'case "$0 $-" in *ash*) ;; *i*) exec /bin/ash ;; esac\n',
        0o644,
    ),
    "etc/iaas/interactive": ("alias ip=/sbin/ip\n", 0o644),
    "etc/os-release": ('ID=tiny\nNAME="tiny"\nPRETTY_NAME="tiny (busybox, from Debian packages)"\n', 0o644),
    "var/www/index.html": ("starting\n", 0o644),
}


class LibrarySource:
    """Shared libraries in a folder of unpacked packages."""

    def __init__(self, tree: Path) -> None:
        self._folders = [tree / prefix / "x86_64-linux-gnu" for prefix in ("lib", "usr/lib")]
        self.loader = find_file(tree, "lib64/ld-linux-x86-64.so.2", "usr/lib64/ld-linux-x86-64.so.2").resolve()

    @property
    def folders(self) -> list[Path]:
        """Where the libraries are, in search order."""
        return self._folders

    def closure(self, programs: Iterable[Path]) -> dict[str, Path]:
        """Return what ``programs`` need to run: path inside a root file system -> file.

        Raises:
            PermanentError: a library is in none of the packages.
        """
        needed: dict[str, Path] = {}
        edge = list(programs)
        while edge:
            interpreter, names = read_needs(edge.pop())
            if interpreter is not None:
                needed[interpreter.lstrip("/")] = self.loader
            for name in names:
                inside = f"{LIBRARY_DIR}/{name}"
                if inside not in needed and name != self.loader.name:
                    needed[inside] = self._find(name)
                    edge.append(needed[inside])
        return needed

    def _find(self, name: str) -> Path:
        for folder in self._folders:
            if (folder / name).exists():
                return (folder / name).resolve()
        raise PermanentError(f"none of the packages has the library {name}")


def _install(source: Path, target: Path, mode: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def find_busybox(tree: Path) -> Path:
    """Return busybox in a folder of unpacked packages."""
    return find_file(tree, "bin/busybox", "usr/bin/busybox")


def make_rootfs(tree: Path, root: Path, libraries: LibrarySource) -> None:
    """Fill the new folder ``root`` from the packages unpacked in ``tree``; needs no root and makes no device nodes."""
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "root").chmod(0o700)
    (root / "root/.ssh").chmod(0o700)
    (root / "tmp").chmod(0o1777)

    busybox = find_busybox(tree)
    programs = {"bin/busybox": busybox} | {target: find_file(tree, *places) for target, places in PROGRAMS.items()}
    for inside, source in programs.items():
        _install(source, root / inside, 0o755)
    for inside, source in libraries.closure(programs.values()).items():
        _install(source, root / inside, 0o755)
    for applet in _applets(busybox, libraries):
        if applet not in {"busybox", "sh"}:
            folder = "sbin" if applet == "init" else "bin"
            (root / folder / applet).symlink_to("/bin/busybox")
    (root / "bin/sh").symlink_to("dash")
    for name in ("modprobe", "poweroff", "reboot", "halt"):
        (root / "sbin" / name).symlink_to("/bin/busybox")  # the kernel itself calls /sbin/modprobe and /sbin/poweroff

    for name, (inside, mode) in SCRIPTS.items():
        _install(GUEST_DIR / name, root / inside, mode)
    for inside, (text, mode) in TEXTS.items():
        (root / inside).write_text(text)
        (root / inside).chmod(mode)


def _applets(busybox: Path, libraries: LibrarySource) -> list[str]:
    """Return the commands this busybox has; it says so itself, run by the loader and libraries of its own release."""
    path = ":".join(str(folder) for folder in libraries.folders)
    return run_tool([libraries.loader, "--library-path", path, busybox, "--list"], timeout_s=30).split()
