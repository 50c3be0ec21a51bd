"""Is the key beside the database the one that its secrets were encrypted with? Asked at every start.

A key that is silently made anew would make it worse: what is encrypted from then on is lost when the right one comes
back. So its fingerprint is in the database. It is known without the library that decrypts: most starts need that not.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import structlog
from sqlalchemy import delete

from iaas.db.models import AccessKeyRow, IdempotencyRow
from iaas.db.repositories import shared
from iaas.db.store import Tx
from iaas.services.vault import secret_key_lost

log = structlog.get_logger(__name__)

_SETTING = "secret_key_fingerprint"


def take_empty_key(path: Path | None) -> bool:
    """Whether somebody has put an empty file in the place of the key; it is removed."""
    if path is None or not path.exists() or path.stat().st_size:
        return False
    path.unlink()
    return True


def check_secret_key(tx: Tx, path: Path | None, *, begin_anew: bool) -> None:
    """Hold the key against its fingerprint.

    Args:
        begin_anew: delete what the lost key encrypted instead: access keys, and secret answers kept for repetition.

    Raises:
        Unavailable: it is another one, or it is gone (code ``secret_key_lost``).
    """
    if path is None:
        return
    if begin_anew:
        keys = tx.connection.execute(delete(AccessKeyRow)).rowcount
        tx.connection.execute(delete(IdempotencyRow).where(IdempotencyRow.__table__.c.is_encrypted))
        shared.put_setting(tx, _SETTING, "")
        log.warning("secret_key_begun_anew", access_keys_deleted=keys)
    elif (known := shared.get_setting(tx.connection, _SETTING)) and known != _fingerprint(path):
        raise secret_key_lost(path)


def note_secret_key(tx: Tx, path: Path | None) -> None:
    """Keep the fingerprint of the key, if there is one and it is not kept yet."""
    if path is not None and not shared.get_setting(tx.connection, _SETTING):
        shared.put_setting(tx, _SETTING, _fingerprint(path) or "")


def _fingerprint(path: Path) -> str | None:
    try:
        return hashlib.sha256(b"iaas secret.key " + path.read_bytes()).hexdigest()[:32]
    except FileNotFoundError:
        return None
