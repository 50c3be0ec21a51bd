"""Simulated images: nothing is fetched, what is known is there at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from iaas.drivers.interface import ImageSpec, ImageState, MachineKind, PermanentError
from iaas.drivers.sim.world import SimWorld
from iaas.kernel.units import MIB

# Source -> size in bytes. The sizes are those of the real tiny image, roughly.
SOURCES = {"builtin:tiny": 24 * MIB}


class SimImageDriver:
    """Images of one simulated world. Implements ImageDriver."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world

    def ensure_image(self, spec: ImageSpec, *, kind: MachineKind, progress: Callable[[str], None]) -> ImageState:
        """Make the image usable by machines of ``kind``, at once.

        Raises:
            PermanentError: the simulation does not know the source, or the image has no artefact for ``kind``.
        """
        with self._world.change("ensure_image", spec.image_id) as change:
            if kind not in spec.kinds:
                raise PermanentError(f"the image {spec.image_id} has no artefact for kind {kind.value}")
            size_bytes = SOURCES.get(spec.source)
            if size_bytes is None:
                raise PermanentError(f"the simulation knows no image {spec.source!r}")
            progress(f"image {spec.source} is ready for kind {kind.value} (simulated)")
            kinds = _kinds_of(change.connection, spec.image_id)
            if kind not in kinds:
                change.begin()
                change.connection.execute(
                    "INSERT INTO images (image_id, kind, size_bytes) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                    (spec.image_id, kind.value, size_bytes),
                )
                kinds = _kinds_of(change.connection, spec.image_id)
            return ImageState(image_id=spec.image_id, kinds=kinds, size_bytes=size_bytes)

    def remove_image(self, image_id: str) -> None:
        """Forget the image; machines made from it live on. Already absent is success."""
        with self._world.write("remove_image", image_id) as connection:
            connection.execute("DELETE FROM images WHERE image_id = ?", (image_id,))

    def inventory(self) -> list[ImageState]:
        """Return the images of this world."""
        with self._world.read("inventory") as connection:
            rows = connection.execute(
                "SELECT image_id, group_concat(kind), max(size_bytes) FROM images GROUP BY image_id ORDER BY image_id"
            ).fetchall()
        return [
            ImageState(
                image_id=image_id,
                kinds=frozenset(MachineKind(kind) for kind in kinds.split(",")),
                size_bytes=size_bytes,
            )
            for image_id, kinds, size_bytes in rows
        ]


def _kinds_of(connection: sqlite3.Connection, image_id: str) -> frozenset[MachineKind]:
    rows = connection.execute("SELECT kind FROM images WHERE image_id = ?", (image_id,))
    return frozenset(MachineKind(row[0]) for row in rows)
