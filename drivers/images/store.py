"""The images of one host: where their bytes come from, and which driver gets them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from iaas.drivers.images.tiny import TinyImage, build_tiny
from iaas.drivers.interface import (
    ImageArtefact,
    ImageImporter,
    ImageSpec,
    ImageState,
    MachineKind,
    PermanentError,
)

Progress = Callable[[str], None]
ImageSource = Callable[[MachineKind, Progress], ImageArtefact]
"""Returns the artefact for a kind, building or fetching it; raises as ``ImageDriver.ensure_image`` does."""


class ImageStore:
    """Implements ``ImageDriver``: looks the source up, makes the artefact, has it imported for the kind.

    Args:
        cache_dir: where built images are kept; the default cache when None.
        importers: who takes images in, by kind.
        sources: more sources by their name ("file:...") beside the built-in ones.
    """

    def __init__(
        self,
        cache_dir: Path | None,
        importers: Mapping[MachineKind, ImageImporter],
        *,
        sources: Mapping[str, ImageSource] | None = None,
    ) -> None:
        self._cache_dir = cache_dir
        self._importers = dict(importers)
        self._sources = {"builtin:tiny": self._tiny_artefact, **(sources or {})}
        self._lock = threading.Lock()
        self._tiny: TinyImage | None = None
        self._sizes: dict[tuple[str, MachineKind], int] = {}

    def ensure_image(self, spec: ImageSpec, *, kind: MachineKind, progress: Progress) -> ImageState:
        if kind not in spec.kinds:
            raise PermanentError(f"the image has nothing to boot for machines of kind {kind}")
        if kind not in self._importers:
            raise PermanentError(f"this host runs no machines of kind {kind}")
        source = self._sources.get(spec.source)
        if source is None:
            raise PermanentError(f"unknown image source {spec.source!r}")
        artefact = source(kind, progress)
        if artefact.kind is not kind:
            raise PermanentError(f"the image has nothing to boot for machines of kind {kind}")
        progress(f"Importing the image for machines of kind {kind}")
        self._importers[kind].import_image(spec.image_id, artefact)
        self._sizes[spec.image_id, kind] = sum(path.stat().st_size for path in artefact.files.values())
        # What this process brought here itself: the other kind's daemon may hang, which is none of our business now.
        kinds = frozenset(each for each in self._importers if (spec.image_id, each) in self._sizes)
        return self._state(spec.image_id, kinds)

    def remove_image(self, image_id: str) -> None:
        for importer in self._importers.values():
            importer.remove_image(image_id)

    def inventory(self) -> list[ImageState]:
        return [self._state(image_id, kinds) for image_id, kinds in sorted(self._present().items())]

    def _present(self) -> dict[str, frozenset[MachineKind]]:
        present: dict[str, frozenset[MachineKind]] = {}
        for kind, importer in self._importers.items():
            for image_id in importer.imported_images():
                present[image_id] = present.get(image_id, frozenset()) | {kind}
        return present

    def _state(self, image_id: str, kinds: frozenset[MachineKind]) -> ImageState:
        # 0 when the image was imported by an earlier process: the importers do not keep sizes.
        size = sum(self._sizes.get((image_id, kind), 0) for kind in kinds)
        return ImageState(image_id=image_id, kinds=kinds, size_bytes=size)

    def _tiny_artefact(self, kind: MachineKind, progress: Progress) -> ImageArtefact:
        # One check of the cache per process; the lock also keeps two kinds from building at once.
        with self._lock:
            if self._tiny is None or not all(
                path.exists() for artefact in self._tiny.artefacts.values() for path in artefact.files.values()
            ):
                self._tiny = build_tiny(self._cache_dir, progress)
            return self._tiny.artefacts[kind]
