"""Copies of a state folder: taken while its server works, and made a state folder again.

A copy holds what a killed server would have left at that moment: both databases in one instant, and the secrets
without which they are of no use. Whatever was under way then goes on after the next start, as after a kill.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from iaas import __version__
from iaas.api.state import CREDENTIALS, StartError
from iaas.kernel.clock import rfc3339

FORMAT = 1
MANIFEST = "manifest.json"
DATABASES = ("cloud.db", "sim.db")
SECRETS = ("secret.key", CREDENTIALS)
LOCK_TIMEOUT_S = 10.0
_MOST_MANIFEST_BYTES = 65_536


class BackupError(StartError):
    """The copy was not made, or is none; the message is one line for the person who asked for it."""


def back_up(state: Path, target: Path) -> None:
    """Write a copy of the state folder ``state`` to the file ``target``, readable by this user only.

    A server may be at work on it: its writes wait for some milliseconds, however large the databases are.

    Raises:
        BackupError: it is not the folder of a simulated cloud on SQLite, or ``target`` exists or cannot be written.
    """
    for name in DATABASES:
        if not (state / name).is_file():
            raise BackupError(
                f"{state} is not the state folder of a simulated cloud: there is no {name} (docs/backup.md)"
            )
    if target.exists():
        raise BackupError(f"{target} exists already")
    try:
        with tempfile.TemporaryDirectory(prefix=".iaas-backup-", dir=target.parent) as work:
            folder = Path(work)  # mode 0700, so nobody else reads what is in it meanwhile
            _copy_databases(state, folder)
            for name in SECRETS:
                with contextlib.suppress(FileNotFoundError):  # made when first needed
                    shutil.copyfile(state / name, folder / name)
            unfinished = folder / "copy.tar"
            _pack(folder, unfinished)
            os.link(unfinished, target)  # in one step, and never over a file that has come meanwhile
    except FileExistsError as error:
        raise BackupError(f"{target} exists already") from error
    except (OSError, sqlite3.Error) as error:
        raise BackupError(f"the copy was not made: {error}") from error


def restore(source: Path, state: Path) -> None:
    """Make the state folder ``state`` out of a copy; complete, or not at all.

    Raises:
        BackupError: ``source`` is no copy of ours or is damaged, or ``state`` holds something already.
    """
    if state.exists() and (not state.is_dir() or any(state.iterdir())):
        raise BackupError(f"{state} is not empty: restore into a new folder")
    try:
        state.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".iaas-restore-", dir=state.parent))
        try:
            _unpack(source, folder)
            for name in DATABASES:
                _check_database(folder / name)
            folder.rename(state)  # over an empty folder this is allowed
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except tarfile.ReadError as error:
        raise BackupError(
            f"nothing was restored: {source} is not a whole copy made by iaas backup ({error})"
        ) from error
    except (OSError, tarfile.TarError, sqlite3.Error) as error:
        raise BackupError(f"nothing was restored: {error}") from error


def _copy_databases(state: Path, folder: Path) -> None:
    """Copy both databases as they are in one instant.

    While both are locked against writers, a reader is opened on each. From then on a reader sees that instant, and
    the writers go on while it is copied.
    """
    with contextlib.ExitStack() as readers:
        sources: list[sqlite3.Connection] = []
        with contextlib.ExitStack() as locks:
            for name in DATABASES:
                # The cloud's before the simulation's: the server takes them in this order, if it holds both at all.
                lock = locks.enter_context(_opened(state / name))
                lock.execute("BEGIN IMMEDIATE")
            for name in DATABASES:
                reader = readers.enter_context(_opened(state / name))
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM sqlite_master").fetchone()  # only a read fixes the instant
                sources.append(reader)
        for name, reader in zip(DATABASES, sources, strict=True):
            with contextlib.closing(sqlite3.connect(folder / name)) as copied:
                reader.backup(copied)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=LOCK_TIMEOUT_S, isolation_level=None
    )
    try:
        yield connection
    finally:
        connection.close()  # rolls back what is open


def _pack(folder: Path, target: Path) -> None:
    names = [name for name in (*DATABASES, *SECRETS) if (folder / name).exists()]
    manifest = {"format": FORMAT, "iaas": __version__, "created_at": rfc3339(datetime.now(UTC)), "files": names}
    handle = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            text = json.dumps(manifest, indent=2).encode()
            entry = tarfile.TarInfo(MANIFEST)
            entry.size, entry.mode = len(text), 0o600
            archive.addfile(entry, io.BytesIO(text))
            for name in names:
                archive.add(folder / name, arcname=name, filter=_secret)
        file.flush()
        os.fsync(file.fileno())


def _secret(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Whoever takes a file out by hand gets it as the state folder has it, readable for its owner alone."""
    entry.mode = 0o600
    return entry


def _unpack(source: Path, folder: Path) -> None:
    """Take the files that the manifest names, and that are ours, out of the archive; the rest is not looked at."""
    with tarfile.open(source, mode="r:") as archive:
        names = _manifest_files(archive)
        for name in names:
            content = _member(archive, name)
            handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                shutil.copyfileobj(content, file)
                file.flush()
                os.fsync(file.fileno())


def _manifest_files(archive: tarfile.TarFile) -> list[str]:
    try:
        manifest = json.loads(_member(archive, MANIFEST).read(_MOST_MANIFEST_BYTES))
        version, names = manifest["format"], [str(name) for name in manifest["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise BackupError("this is no copy of a state folder") from error
    if version != FORMAT:
        raise BackupError(f"the copy has format {version}, this version reads {FORMAT}")
    if not set(DATABASES) <= set(names) <= {*DATABASES, *SECRETS} or len(set(names)) != len(names):
        raise BackupError("this is no copy of a state folder")
    return names


def _member(archive: tarfile.TarFile, name: str) -> io.BufferedReader:
    try:
        content = archive.extractfile(name)
    except KeyError as error:
        raise BackupError(f"this is no complete copy of a state folder: it lacks {name}") from error
    if content is None:
        raise BackupError(f"this is no copy of a state folder: {name} is no file")
    return content  # type: ignore[return-value]  # typed as IO[bytes], a BufferedReader since Python 3.3


def _check_database(path: Path) -> None:
    with _opened(path) as connection:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != ("ok",):
            raise BackupError(f"the copy is damaged: {path.name}: {found[0]}")
