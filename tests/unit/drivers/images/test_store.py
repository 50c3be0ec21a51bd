from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from iaas.drivers.images import ImageStore
from iaas.drivers.interface import ImageArtefact, ImageSpec, MachineKind, PermanentError

BOTH = frozenset(MachineKind)


class Importer:
    def __init__(self) -> None:
        self.images: dict[str, str] = {}

    def import_image(self, image_id: str, artefact: ImageArtefact) -> None:
        self.images[image_id] = artefact.digest

    def remove_image(self, image_id: str) -> None:
        self.images.pop(image_id, None)

    def imported_images(self) -> list[str]:
        return list(self.images)


@pytest.fixture
def importers() -> dict[MachineKind, Importer]:
    return {kind: Importer() for kind in MachineKind}


@pytest.fixture
def store(tmp_path: Path, importers: dict[MachineKind, Importer]) -> ImageStore:
    (tmp_path / "root").write_bytes(b"12345")

    def fetch(kind: MachineKind, progress: Callable[[str], None]) -> ImageArtefact:
        progress("fetching")
        return ImageArtefact(kind=kind, digest=f"digest-{kind}", files={"root": tmp_path / "root"})

    return ImageStore(tmp_path, importers, sources={"file:test": fetch})


def test_an_image_is_imported_for_the_kind_that_needs_it(
    store: ImageStore, importers: dict[MachineKind, Importer]
) -> None:
    said: list[str] = []
    spec = ImageSpec(image_id="img-aaaaaaaa", source="file:test", kinds=BOTH)
    state = store.ensure_image(spec, kind=MachineKind.VM, progress=said.append)
    assert (state.image_id, state.size_bytes) == ("img-aaaaaaaa", 5)
    assert state.kinds == {MachineKind.VM}
    assert importers[MachineKind.VM].images == {"img-aaaaaaaa": "digest-vm"}
    assert importers[MachineKind.CONTAINER].images == {}
    assert said[0] == "fetching"
    store.ensure_image(spec, kind=MachineKind.CONTAINER, progress=said.append)
    (both,) = store.inventory()
    assert (both.kinds, both.size_bytes) == (BOTH, 10)


def test_a_removed_image_is_gone_for_all_kinds(store: ImageStore) -> None:
    spec = ImageSpec(image_id="img-aaaaaaaa", source="file:test", kinds=BOTH)
    for kind in MachineKind:
        store.ensure_image(spec, kind=kind, progress=lambda _: None)
    store.remove_image("img-aaaaaaaa")
    store.remove_image("img-aaaaaaaa")
    assert store.inventory() == []


def test_a_kind_the_image_lacks_is_refused(store: ImageStore) -> None:
    spec = ImageSpec(image_id="img-aaaaaaaa", source="file:test", kinds=frozenset({MachineKind.VM}))
    with pytest.raises(PermanentError, match="container"):
        store.ensure_image(spec, kind=MachineKind.CONTAINER, progress=lambda _: None)


def test_an_unknown_source_is_refused(store: ImageStore) -> None:
    spec = ImageSpec(image_id="img-aaaaaaaa", source="builtin:nothing", kinds=BOTH)
    with pytest.raises(PermanentError, match="unknown image source"):
        store.ensure_image(spec, kind=MachineKind.VM, progress=lambda _: None)
