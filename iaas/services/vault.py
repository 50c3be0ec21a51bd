"""Secrets at rest: encrypted with a key that lies beside the database, readable by the server's user only."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from pathlib import Path

TOKEN_PREFIX = "iaas_"  # noqa: S105 - marks our tokens for secret scanners, is none itself


class Vault:
    """Encrypts and decrypts with one key.

    Args:
        key_path: where the key lies; made at first use with mode 0600. None: a key for this process only.
    """

    def __init__(self, key_path: Path | None) -> None:
        self._key_path = key_path
        self._key: bytes | None = None

    def encrypt(self, plain: str) -> bytes:
        from cryptography.fernet import Fernet  # lazy: a server start needs it only the first time

        return Fernet(self._load()).encrypt(plain.encode())

    def decrypt(self, token: bytes) -> str:
        from cryptography.fernet import Fernet

        return Fernet(self._load()).decrypt(token).decode()

    def _load(self) -> bytes:
        from cryptography.fernet import Fernet

        if self._key is None:
            if self._key_path is None:
                self._key = Fernet.generate_key()
            else:
                self._key = self._made_or_found(self._key_path)
        return self._key

    @staticmethod
    def _made_or_found(path: Path) -> bytes:
        """Return the key in the file, made in one step: a process killed meanwhile leaves a whole key or none."""
        from cryptography.fernet import Fernet

        try:
            return path.read_bytes()
        except FileNotFoundError:
            fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(Fernet.generate_key())
            # Processes of one fleet may come here at once: the first name counts, for all of them.
            with contextlib.suppress(FileExistsError):
                os.link(fresh, path)
            fresh.unlink()
            return path.read_bytes()


def new_token() -> str:
    """Return a fresh API token."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def new_secret() -> str:
    """Return a fresh secret access key."""
    return secrets.token_urlsafe(30)


def token_hash(token: str) -> str:
    """Return what is kept of a token. It is random and long, so a plain digest is enough."""
    return hashlib.sha256(token.encode()).hexdigest()
