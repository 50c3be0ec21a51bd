"""Small facts kept in files: written atomically, read back as they were."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_text_atomically(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace the file's content at once: readers and a killed writer see the old text or the new one, never half."""
    fresh = path.with_name(f".{path.name}.new")
    with open(fresh, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


def ensure_folder(path: Path, *, mode: int) -> None:
    """Make the folder, those above it included, with exactly this mode whatever the umask is; or set its mode."""
    if not path.parent.is_dir():
        ensure_folder(path.parent, mode=0o755)
    path.mkdir(exist_ok=True)
    path.chmod(mode)


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a JSON object atomically."""
    write_text_atomically(path, json.dumps(record, indent=1, sort_keys=True) + "\n")


def read_record(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in the file; None when there is no file."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if not isinstance(record, dict):
        raise ValueError(f"{path} does not hold a JSON object")
    return record
