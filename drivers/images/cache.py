"""A folder of finished images: each whole or absent, safe against two builders and against a killed one."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from iaas.drivers.interface import PermanentError

MANIFEST = "manifest.json"


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEntry:
    """A finished image: its folder, the digests of its files by name, and what its builder noted."""

    directory: Path
    files: Mapping[str, str]
    notes: Mapping[str, str]


class ImageCache:
    """Finished images under one folder, named by a digest of all that went into them.

    Raises:
        PermanentError: the folder cannot be made or written.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise PermanentError(f"the image cache cannot be made: {exc.strerror}") from exc
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermanentError("the image cache is not writable")

    @property
    def directory(self) -> Path:
        """The folder of all entries."""
        return self._directory

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the builder's lock; a second builder, of any process, waits. A killed one lets go by dying."""
        with (self._directory / "lock").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def load(self, name: str) -> CacheEntry | None:
        """Return the entry ``name`` when it is there and every byte is as it was built; None otherwise."""
        folder = self._directory / name
        try:
            manifest = json.loads((folder / MANIFEST).read_text())
            files, notes = dict(manifest["files"]), dict(manifest["notes"])
            whole = all(file_digest(folder / file) == digest for file, digest in files.items())
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return CacheEntry(directory=folder, files=files, notes=notes) if whole and files else None

    def build(self, name: str, make: Callable[[Path, Path], Mapping[str, str]]) -> CacheEntry:
        """Build and return the entry ``name``; the lock must be held.

        ``make`` gets the folder for the results and one for scraps, and returns notes. Nothing is seen
        of it until it is through; a broken entry of that name is replaced.
        """
        self._sweep()
        with tempfile.TemporaryDirectory(prefix="build-", dir=self._directory) as temporary:
            results, scraps = Path(temporary) / "results", Path(temporary) / "scraps"
            results.mkdir()
            scraps.mkdir()
            notes = dict(make(results, scraps))
            files = {path.name: file_digest(path) for path in sorted(results.iterdir())}
            text = json.dumps({"files": files, "notes": notes}, indent=2, sort_keys=True) + "\n"
            (results / MANIFEST).write_text(text)
            for path in (*results.iterdir(), results):
                # QEMU runs as a user of its own and must be able to read them.
                path.chmod(0o755 if path.is_dir() else 0o644)
            shutil.rmtree(self._directory / name, ignore_errors=True)
            results.rename(self._directory / name)
        return CacheEntry(directory=self._directory / name, files=files, notes=notes)

    def _sweep(self) -> None:
        """Remove what killed builders left: with the lock held, nobody else is building."""
        for folder in self._directory.glob("build-*"):
            shutil.rmtree(folder, ignore_errors=True)
