"""Images: what machines boot, brought to the host before the first machine needs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
