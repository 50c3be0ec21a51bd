"""Images: what machines boot, brought to the host before the first machine needs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from iaas.drivers.interface.compute import MachineKind


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """``source`` says where the bytes come from: ``builtin:tiny`` is built here from Debian packages."""

    image_id: str
    source: str
    kinds: frozenset[MachineKind]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageState:
    image_id: str
    kinds: frozenset[MachineKind]
    size_bytes: int


class ImageDriver(Protocol):
    """Images on one host."""

    def ensure_image(self, spec: ImageSpec, *, kind: MachineKind, progress: Callable[[str], None]) -> ImageState:
        """Make the image usable by machines of ``kind``: build or fetch it, verify it, import it.

        ``progress`` is told sentences for people while it takes long.

        Raises:
            PermanentError: the image has no artefact for ``kind`` or is broken.
            TransientError: the mirror or the daemon did not answer.
        """
        ...

    def remove_image(self, image_id: str) -> None:
        """Remove what ``ensure_image`` imported. Already absent is success."""
        ...

    def inventory(self) -> list[ImageState]:
        """Return the images present on this host."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageArtefact:
    """The bytes of an image for one kind, verified, on this host.

    ``files`` by role: a VM has ``root`` (qcow2 disk) and, when it boots a kernel directly, ``kernel``,
    ``initrd``; ``cmdline`` is then the kernel's command line. A container machine has ``tarball``
    (unified LXD image: ``metadata.yaml`` and ``rootfs/``).
    """

    kind: MachineKind
    digest: str  # sha256 over all files, hex
    files: Mapping[str, Path]
    cmdline: str = ""


class ImageImporter(Protocol):
    """How a machine driver takes images in; each real compute driver offers it beside ComputeDriver."""

    def import_image(self, image_id: str, artefact: ImageArtefact) -> None:
        """Make ``image_id`` usable by ``ensure_machine``. The same digest again is success at once.

        Raises:
            BackendDownError: the daemon does not answer.
            PermanentError: the artefact is not for this kind, or the daemon refuses it.
        """
        ...

    def remove_image(self, image_id: str) -> None:
        """Forget the image; machines made from it live on. Already absent is success."""
        ...

    def imported_images(self) -> list[str]:
        """Return the ids of the images present."""
        ...
