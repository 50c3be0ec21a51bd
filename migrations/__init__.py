"""Alembic migrations, inside the package so that an installed wheel can bring its database up."""

from __future__ import annotations

from pathlib import Path

HEAD = "0007"
"""The newest revision; a test compares it with the scripts. Known without importing Alembic: start-up is short."""


def script_location() -> str:
    """Return the folder of ``env.py``."""
    return str(Path(__file__).parent)
