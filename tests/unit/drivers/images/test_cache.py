from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from iaas.drivers.images.cache import ImageCache
from iaas.drivers.interface import PermanentError


def make_image(results: Path, scraps: Path) -> Mapping[str, str]:
    (results / "root").write_bytes(b"disk")
    (scraps / "rubbish").write_bytes(b"x")
    return {"packages": "busybox=1"}


def test_an_entry_is_found_again_with_its_digests_and_notes(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path)
    with cache.locked():
        built = cache.build("tiny-1", make_image)
    assert cache.load("tiny-1") == built
    assert list(built.files) == ["root"]
    assert built.notes == {"packages": "busybox=1"}
    assert cache.load("tiny-2") is None


@pytest.mark.parametrize("spoil", ["cut", "missing", "no manifest", "manifest is not JSON"])
def test_a_broken_entry_is_not_found_and_can_be_built_again(tmp_path: Path, spoil: str) -> None:
    cache = ImageCache(tmp_path)
    with cache.locked():
        entry = cache.build("tiny-1", make_image)
    match spoil:
        case "cut":
            (entry.directory / "root").write_bytes(b"dis")
        case "missing":
            (entry.directory / "root").unlink()
        case "no manifest":
            (entry.directory / "manifest.json").unlink()
        case _:
            (entry.directory / "manifest.json").write_text("{")
    assert cache.load("tiny-1") is None
    with cache.locked():
        cache.build("tiny-1", make_image)
    assert cache.load("tiny-1") is not None


def test_a_build_that_fails_leaves_nothing_and_spoils_nothing(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path)
    with cache.locked():
        before = cache.build("tiny-1", make_image)

    def fail(results: Path, scraps: Path) -> Mapping[str, str]:
        (results / "root").write_bytes(b"half")
        raise OSError("no space")

    with cache.locked(), pytest.raises(OSError, match="no space"):
        cache.build("tiny-1", fail)
    assert cache.load("tiny-1") == before
    assert list(tmp_path.glob("build-*")) == []


def test_what_a_killed_builder_left_is_swept_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "build-killed" / "results").mkdir(parents=True)
    cache = ImageCache(tmp_path)
    with cache.locked():
        cache.build("tiny-1", make_image)
    assert list(tmp_path.glob("build-*")) == []


def test_two_builders_build_one_after_the_other(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def build(number: int) -> None:
        cache = ImageCache(tmp_path)
        with cache.locked():
            inside.append(number)
            most.append(len(inside))
            if cache.load("tiny-1") is None:
                cache.build("tiny-1", make_image)
            inside.remove(number)

    threads = [threading.Thread(target=build, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1


def test_a_cache_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PermanentError, match="cache"):
        ImageCache(tmp_path / "file" / "cache")
