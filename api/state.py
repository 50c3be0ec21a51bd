"""The state folder of a server: who owns it now, and the operator's credentials in it."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

from iaas.services.bootstrap import FirstCredentials

CREDENTIALS = "credentials.json"
LOCK = "server.lock"


class StartError(Exception):
    """The server cannot start; the message is one line for the person who started it."""


class StateDir:
    """A state folder, held by this process for as long as it lives; ``shared`` with others that share it (a fleet).

    Raises:
        StartError: it cannot be made or written, or another server has it.
    """

    def __init__(self, path: Path, *, mode: int = 0o700, shared: bool = False) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True, mode=mode)
            self._handle = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StartError(f"the state directory {path} cannot be used: {error.strerror}") from error
        if not _lock(self._handle, shared=shared):
            os.close(self._handle)
            raise StartError(f"the state directory {path} is in use by another server")

    def release(self) -> None:
        """Let another server have it; a second call does nothing."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    @property
    def credentials_path(self) -> Path:
        return self.path / CREDENTIALS

    def read_credentials(self) -> FirstCredentials | None:
        """Return what an earlier start wrote; None when the file is gone or is not ours."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(self.credentials_path.read_text())
            return FirstCredentials(
                api_token=found["api_token"],
                access_key_id=found["access_key_id"],
                secret_access_key=found["secret_access_key"],
            )
        return None

    def write_credentials(self, credentials: FirstCredentials, *, endpoint: str, zone: str) -> None:
        """Write the file that CLI and SDK read, mode 0600, in one step."""
        document = {
            "endpoint": endpoint,
            "api_token": credentials.api_token,
            "access_key_id": credentials.access_key_id,
            "secret_access_key": credentials.secret_access_key,
            "zone": zone,
        }
        fresh = self.credentials_path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(document, file, indent=2)
            file.write("\n")
        fresh.replace(self.credentials_path)


def _lock(handle: int, *, shared: bool) -> bool:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
