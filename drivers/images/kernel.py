"""The kernel of a VM: which modules go where, and the small RAM file system that finds the root disk."""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from iaas.drivers.images.newc import NewcArchive
from iaas.drivers.images.packages import find_file
from iaas.drivers.images.rootfs import GUEST_DIR, LibrarySource
from iaas.drivers.interface import PermanentError

# What has to be there before the root disk is: loaded by the initrd, in this order.
INITRD_MODULES = ("virtio_pci", "virtio_blk")
# Loaded by the root file system's own scripts (guest/rc, guest/power).
ROOT_MODULES = ("virtio_net", "virtio_console", "virtio_rng", "button", "evdev")
# Loaded after the machine is ready (guest/late): what no request of the kernel's own would bring.
LATE_MODULES = ("virtio_balloon", "loop", "fuse", "tun")
# There for the kernel to load when a program asks for them: mounts, virtual links, firewalls.
ON_DEMAND_MODULES = (
    "isofs", "overlay", "veth", "bridge", "br_netfilter", "8021q", "vxlan",
    "nf_tables", "nf_conntrack", "nft_chain_nat", "nft_ct", "nft_masq", "nft_nat", "nft_compat", "nf_conntrack_netlink",
    "ip_tables", "iptable_filter", "iptable_nat", "ip6_tables", "ip6table_filter",
    "xt_conntrack", "xt_MASQUERADE", "xt_comment", "xt_mark", "xt_addrtype", "xt_multiport", "xt_nat",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One kernel module: its content as it will be loaded, and the names of those it stands on."""

    name: str
    content: bytes
    depends: tuple[str, ...]
    aliases: tuple[str, ...]  # patterns under which the kernel asks for it: "fs-overlay", "rtnl-link-veth"


def _normalize(name: str) -> str:
    return name.replace("-", "_")


class Kernel:
    """One Debian kernel package, unpacked under ``tree``.

    Raises:
        PermanentError: there is not exactly one kernel in it.
    """

    def __init__(self, tree: Path) -> None:
        images = sorted((tree / "boot").glob("vmlinuz-*"))
        if len(images) != 1:
            raise PermanentError("the kernel package holds no single kernel")
        self.image = images[0]
        self.release = images[0].name.removeprefix("vmlinuz-")
        folder = find_file(tree, f"lib/modules/{self.release}", f"usr/lib/modules/{self.release}")
        self._files = {_normalize(path.name.split(".ko")[0]): path for path in folder.rglob("*.ko*")}

    def load_order(self, names: Iterable[str]) -> list[Module]:
        """Return the modules ``names`` and all they depend on, each after its own dependencies.

        A name that is no module of this kernel is left out: it is built in, or this release has not got it.
        """
        order: dict[str, Module] = {}

        def visit(name: str) -> None:
            if name in order or name not in self._files:
                return
            module = self._read(name)
            for needed in module.depends:
                visit(needed)
            order[name] = module

        for name in names:
            visit(_normalize(name))
        return list(order.values())

    def _read(self, name: str) -> Module:
        content = self._files[name].read_bytes()
        if self._files[name].suffix == ".xz":  # Debian 13 compresses them; busybox cannot be relied on to undo it
            content = lzma.decompress(content)
        # Source: the .modinfo section, NUL-separated "key=value" (Linux, include/linux/moduleinfo.h).
        match = re.search(rb"\0depends=([^\0]*)\0", content)
        depends = match[1].decode().split(",") if match else []
        aliases = re.findall(rb"\0alias=([^\0]*)(?=\0)", content)
        return Module(
            name=name,
            content=content,
            depends=tuple(_normalize(part) for part in depends if part),
            aliases=tuple(alias.decode() for alias in aliases),
        )


def install_modules(kernel: Kernel, root: Path) -> None:
    """Put the modules that the root file system loads under ``root``, with the indexes that modprobe reads."""
    folder = root / "lib/modules" / kernel.release
    folder.mkdir(parents=True)
    modules = kernel.load_order([*INITRD_MODULES, *ROOT_MODULES, *LATE_MODULES, *ON_DEMAND_MODULES])
    lines = []
    aliases = []
    for module in modules:
        (folder / f"{module.name}.ko").write_bytes(module.content)
        below = [f"{other.name}.ko" for other in reversed(kernel.load_order([module.name])[:-1])]
        lines.append(" ".join([f"{module.name}.ko:", *below]))
        aliases += [f"alias {alias} {module.name}" for alias in module.aliases]
    (folder / "modules.alias").write_text("\n".join(aliases) + "\n")
    (folder / "modules.dep").write_text("\n".join(lines) + "\n")


def make_initrd(kernel: Kernel, libraries: LibrarySource, busybox: Path) -> bytes:
    """Return the initial RAM file system: busybox, the disk's drivers, and guest/initrd-init.

    Not compressed: QEMU hands it over by DMA, while unpacking would be done by an emulated processor.
    """
    archive = NewcArchive()
    folders = {"bin", "dev", "proc", "sys", "root", "modules"}
    needed = libraries.closure([busybox])
    for inside in needed:
        folders |= {str(parent) for parent in Path(inside).parents if str(parent) != "."}
    for folder in sorted(folders):
        archive.add_directory(folder)
    archive.add_device("dev/console", 5, 1)
    archive.add_file("bin/busybox", busybox, mode=0o755)
    for inside, source in sorted(needed.items()):
        archive.add_file(inside, source, mode=0o755)
    modules = kernel.load_order(INITRD_MODULES)
    for module in modules:
        archive.add(f"modules/{module.name}.ko", 0o100644, module.content)
    archive.add("modules/order", 0o100644, "".join(f"{module.name}.ko\n" for module in modules).encode())
    archive.add_file("init", GUEST_DIR / "initrd-init", mode=0o755)
    return archive.finish()
