"""Secrets at rest: encrypted with a key that lies beside the database, readable by the server's user only."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Protocol

from iaas.kernel.errors import Unavailable

TOKEN_PREFIX = "iaas_"  # noqa: S105 - marks our tokens for secret scanners, is none itself


CHILD_TIMEOUT_S = 30.0


class Cipher(Protocol):
    def encrypt(self, plain: str) -> bytes: ...

    def decrypt(self, token: bytes) -> str: ...


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
        """Return what was encrypted.

        Raises:
            Unavailable: with another key than this one (code ``secret_key_lost``).
        """
        from cryptography.fernet import Fernet, InvalidToken

        try:
            return Fernet(self._load()).decrypt(token).decode()
        except (InvalidToken, ValueError) as error:  # the latter when the file holds no key at all
            raise secret_key_lost(self._key_path) from error

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


class VaultAside:
    """Does the same as the vault of ``key_path``, in a short child process for each call.

    A server needs one or two secrets at its start and then perhaps none for hours: the library for them, some
    10 MiB, goes with the child. Where no child can be had (no interpreter to name, no process left) it is done here.
    """

    def __init__(self, key_path: Path) -> None:
        self._here = Vault(key_path)
        self._key_path = key_path
        self._ready: subprocess.Popen[bytes] | None = None

    def get_ready(self) -> None:
        """Begin with a child that will encrypt: by the time there is something for it, it has loaded its library."""
        if sys.executable:
            with contextlib.suppress(OSError):  # then the child is started when it is needed, or it is done here
                self._ready = self._child("encrypt")

    def close(self) -> None:
        """End the child that nobody needed."""
        child, self._ready = self._ready, None
        if child is not None:
            child.kill()
            child.communicate()

    def encrypt(self, plain: str) -> bytes:
        out = self._in_child("encrypt", plain.encode())
        return self._here.encrypt(plain) if out is None else out

    def decrypt(self, token: bytes) -> str:
        out = self._in_child("decrypt", token)
        return self._here.decrypt(token) if out is None else out.decode()

    def _in_child(self, verb: str, data: bytes) -> bytes | None:
        """Return what the child says; None when it failed, so that the fault is met here, with its reason."""
        if not sys.executable:
            return None
        child = None
        if verb == "encrypt":
            child, self._ready = self._ready, None
        try:
            child = child or self._child(verb)
            found, _ = child.communicate(data, timeout=CHILD_TIMEOUT_S)
        except OSError:
            return None
        except subprocess.TimeoutExpired:
            assert child is not None  # noqa: S101 - it has just been asked; for the type checker
            child.kill()
            child.communicate()
            return None
        return found if child.returncode == 0 else None

    def _child(self, verb: str) -> subprocess.Popen[bytes]:
        # Secrets go through pipes: arguments and environment of a process can be read by others.
        command = [sys.executable, "-P", "-m", __name__, verb, str(self._key_path)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)


def secret_key_lost(path: Path | None) -> Unavailable:
    """Return the error that says what to do, in one line."""
    return Unavailable(
        f"{path or 'the secret key'} is not the key that this database's secrets are encrypted with: put the right one"
        " back from a backup, or, if it is lost for good, an empty file in its place: that deletes all access keys",
        code="secret_key_lost",
    )


def new_token() -> str:
    """Return a fresh API token."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def new_secret() -> str:
    """Return a fresh secret access key."""
    return secrets.token_urlsafe(30)


def token_hash(token: str) -> str:
    """Return what is kept of a token. It is random and long, so a plain digest is enough."""
    return hashlib.sha256(token.encode()).hexdigest()


def _serve_parent(verb: str, key_path: str) -> None:
    import cryptography.fernet  # noqa: F401 - now, while the parent is not waiting yet

    vault = Vault(Path(key_path))
    data = sys.stdin.buffer.read()
    if not data:  # the parent is gone, or needs nothing: no key is made for that
        return
    sys.stdout.buffer.write(vault.encrypt(data.decode()) if verb == "encrypt" else vault.decrypt(data).encode())


if __name__ == "__main__":
    _serve_parent(*sys.argv[1:])
