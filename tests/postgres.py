"""A private PostgreSQL for tests: one cluster per session on a socket in a temporary folder, a database per need."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from iaas.db.models import Base
from iaas.db.schema import upgrade
from iaas.db.store import Store
from iaas.kernel.clock import CloudClock
from tests.factories import wait_for

SERVER_USER = "postgres"  # the server refuses to run as root; Debian's package makes this user
START_TIMEOUT_S = 60.0

# Durability is what these tests do not test; deadlocks are found at once, so that tests of them are short.
SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "deadlock_timeout": "100ms",
    "timezone": "Asia/Kathmandu",  # a server whose zone is not UTC must make no difference
    "default_transaction_isolation": "read committed",
}


@cache
def server_programs() -> Path | None:
    """Return the folder with the newest server's programs; None where there is none."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if found:
        return max(found, key=lambda folder: float(folder.parent.name))
    elsewhere = shutil.which("initdb")
    return Path(elsewhere).resolve().parent if elsewhere else None


def reasons_against() -> list[str]:
    """Return why there can be no PostgreSQL here; empty when there can."""
    reasons = []
    if server_programs() is None:
        reasons.append("no PostgreSQL server is installed (Debian: apt-get install postgresql)")
    if find_spec("psycopg") is None:
        reasons.append("psycopg is missing (the extra 'fleet')")
    if shutil.which("setpriv") is None:
        reasons.append("setpriv is missing (util-linux)")
    if not reasons and os.geteuid() == 0:
        try:
            pwd.getpwnam(SERVER_USER)
        except KeyError:
            reasons.append(f"there is no user {SERVER_USER} for the server to run as")
    return reasons


def require_postgres() -> None:
    """Skip the test where there is no PostgreSQL; fail it there if IAAS_REQUIRE_REAL=1 (as on CI)."""
    if reasons := reasons_against():
        reason = "no PostgreSQL on this host: " + "; ".join(reasons)
        if os.environ.get("IAAS_REQUIRE_REAL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


class Cluster:
    """A running server; :meth:`database` makes databases in it, from a template that has the newest tables."""

    def __init__(self, socket_folder: Path, user: str) -> None:
        self._socket_folder = socket_folder
        self._user = user
        self._numbers = itertools.count(1)
        self._admin = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT", pool_size=1)
        self._has_template = False

    def url(self, database: str) -> str:
        """Return the SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://{self._user}@/{database}?host={self._socket_folder}"

    def answers(self) -> bool:
        try:
            self.run("SELECT 1")
        except OperationalError:
            return False
        return True

    def run(self, statement: str) -> None:
        with self._admin.connect() as connection:
            connection.execute(text(statement))

    @contextmanager
    def database(self, *, empty: bool = False) -> Iterator[str]:
        """Give the URL of a fresh database; gone afterwards, whoever is still connected.

        Args:
            empty: without tables.
        """
        name = f"test_{next(self._numbers)}"
        if not empty and not self._has_template:
            self._make_template()
        template = "template0" if empty else "filled"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self.url(name)
        finally:
            self.run(f"DROP DATABASE {name} WITH (FORCE)")

    def dump(self, url: str, target: Path) -> None:
        """Write a database to a file, as ``pg_dump`` does; others may be at work in it."""
        self._tool("pg_dump", "--format=custom", f"--file={target}", _name(url))

    def restore(self, source: Path, url: str) -> None:
        """Fill an empty database from such a file."""
        self._tool("pg_restore", "--exit-on-error", f"--dbname={_name(url)}", str(source))

    def _tool(self, program: str, *arguments: str) -> None:
        programs = server_programs()
        assert programs is not None, "ask require_postgres first"
        environment = {"PGHOST": str(self._socket_folder), "PGUSER": self._user, "LC_ALL": "C.UTF-8"}
        subprocess.run([programs / program, *arguments], check=True, env=environment, timeout=START_TIMEOUT_S)

    def close(self) -> None:
        self._admin.dispose()

    def _make_template(self) -> None:
        self.run("CREATE DATABASE filled TEMPLATE template0")
        store = Store(self.url("filled"), CloudClock())
        upgrade(store)
        store.close()
        self._has_template = True


def _name(url: str) -> str:
    return str(make_url(url).database)


def emptied(url: str) -> None:
    """Take all rows out of a database of ours; its numbers begin again. Nobody may be at work in it."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL lock_timeout = '10s'"))
        # Not TRUNCATE, which makes new files for all of them and takes five times as long.
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(table.delete())
        connection.execute(text("SELECT setval(oid, 1, false) FROM pg_class WHERE relkind = 'S'"))


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Give a server of our own; stopped and removed afterwards, and with this process if that is killed."""
    programs = server_programs()
    assert programs is not None, "ask require_postgres first"
    become: list[str] = []
    account = pwd.getpwuid(os.geteuid())
    if os.geteuid() == 0:
        account = pwd.getpwnam(SERVER_USER)
        become = [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    folder = Path(tempfile.mkdtemp(prefix="iaas-pg-", dir="/tmp"))  # short: a socket's path has 107 bytes
    server: subprocess.Popen[bytes] | None = None
    try:
        os.chown(folder, account.pw_uid, account.pw_gid)
        data, log = folder / "data", folder / "log"
        environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"}
        initialise = [programs / "initdb", "-D", data, "-U", SERVER_USER, "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(
            ["setpriv", *become, "--", *map(str, initialise)],
            check=True,
            stdout=subprocess.DEVNULL,
            env=environment,
            cwd=folder,
            timeout=START_TIMEOUT_S,
        )
        options = [f"--{name}={value}" for name, value in {**SETTINGS, "unix_socket_directories": folder}.items()]
        with log.open("wb") as output:
            server = subprocess.Popen(
                # SIGQUIT is the server's order to stop at once, its children with it.
                ["setpriv", *become, "--pdeathsig", "QUIT", "--", str(programs / "postgres"), "-D", data, *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                cwd=folder,
            )
        cluster = Cluster(folder, SERVER_USER)
        process = server

        def is_ready() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"PostgreSQL did not start: {log.read_text(errors='replace')[-2000:]}")
            return cluster.answers()

        wait_for(is_ready, timeout_s=START_TIMEOUT_S, what="PostgreSQL's first answer")
        try:
            yield cluster
        finally:
            cluster.close()
    finally:
        if server is not None:
            server.send_signal(signal.SIGQUIT)  # nothing if it has ended
            server.wait(START_TIMEOUT_S)
        shutil.rmtree(folder, ignore_errors=True)
