"""The simulated world: one SQLite file, the cloud clock, and the few changes that happen by themselves.

States are never "advanced": a row says what a machine turns into and when, and whoever looks computes the
present from the clock. So time may jump by a year at no cost, and nothing walks all machines.
"""

from __future__ import annotations

import heapq
import json
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType

from iaas.drivers.interface import BackendDownError, MachineKind, PermanentError, PowerState
from iaas.drivers.sim.faults import Faults
from iaas.drivers.sim.latency import LatencyModel
from iaas.drivers.sim.schema import SCHEMA, SCHEMA_VERSION, UPGRADES
from iaas.kernel.clock import CloudClock

IN_MEMORY = ":memory:"
BUSY_TIMEOUT_S = 10.0
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

LifecycleCallback = Callable[[str, PowerState], None]
LinkCallback = Callable[[str], None]


def from_microseconds(moment_us: int) -> datetime:
    """Return the time that ``moment_us`` microseconds after 1970 are."""
    return EPOCH + timedelta(microseconds=moment_us)


def page_of(
    column: str, *, only: Collection[str] | None, after: str, limit: int | None
) -> tuple[str, tuple[str | int, ...]]:
    """Return the end of a statement that lists a part of the rows in the order of ``column``, and its values.

    With ``only`` it is another condition, so that the database goes by those ids and does not walk all rows.
    """
    order, most = f"{column} > ? ORDER BY {column} LIMIT ?", -1 if limit is None else limit
    if only is None:
        return order, (after, most)
    chosen = f"{column} IN (SELECT value FROM json_each(?))"  # noqa: S608 - the column is the caller's constant
    return f"{chosen} AND {order}", (json.dumps(sorted(only)), after, most)


class Operation:
    """One driver call: strikes its faults, holds the connection, commits or rolls back."""

    __slots__ = ("_name", "_resource_id", "_world", "_writes")

    def __init__(self, world: SimWorld, name: str, resource_id: str | None, *, writes: bool) -> None:
        self._world = world
        self._name = name
        self._resource_id = resource_id
        self._writes = writes

    def __enter__(self) -> sqlite3.Connection:
        world = self._world
        world.faults.strike(self._name, self._resource_id, "before")
        world.lock.acquire()
        try:
            connection = world.connection()
            if self._writes:
                connection.execute("BEGIN IMMEDIATE")
        except BaseException:  # whatever it is, the lock must not stay taken
            world.lock.release()
            raise
        return connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        world = self._world
        try:
            if self._writes:
                world.connection().execute("COMMIT" if kind is None else "ROLLBACK")
        finally:
            world.lock.release()
        if kind is None:
            world.faults.strike(self._name, self._resource_id, "after")


class Change:
    """A driver call that may find that there is nothing to change; it says so by not calling :meth:`begin`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def begin(self) -> None:
        """Begin the call's transaction; twice is an error. What was read before still holds: the world is locked."""
        self.connection.execute("BEGIN IMMEDIATE")


class SimWorld:
    """Everything that exists in one simulated world.

    Args:
        path: the world's file, made when absent; ``":memory:"`` for one that ends with the process.
        clock: the cloud clock; the world has no time of its own.
        latency: how long things take; may be replaced at any moment by setting ``latency``.

    Raises:
        PermanentError: the file was written by another version of the simulation.
        BackendDownError: the file cannot be opened.
    """

    def __init__(self, path: Path | str, clock: CloudClock, latency: LatencyModel | None = None) -> None:
        self.path = path
        self.clock = clock
        self.latency = latency or LatencyModel()
        self.faults = Faults()
        self.lock = threading.RLock()
        self._listeners: dict[MachineKind, list[LifecycleCallback]] = {}
        self._notices: dict[MachineKind, list[tuple[int, str]]] = {kind: [] for kind in MachineKind}
        self._link_listeners: list[LinkCallback] = []
        self._timer: threading.Timer | None = None
        self._connection: sqlite3.Connection | None = _open(path)
        for due_us, machine_id, kind in self._connection.execute(
            "SELECT due_us, machine_id, kind FROM machines WHERE unannounced = 1 ORDER BY due_us"
        ):
            self._notices[MachineKind(kind)].append((due_us, machine_id))  # sorted, hence a heap already
        clock.on_change(self.announce_due)

    def connection(self) -> sqlite3.Connection:
        """Return the connection; hold ``lock`` while using it.

        Raises:
            BackendDownError: the world was closed.
        """
        if self._connection is None:
            raise BackendDownError("the simulated world is closed")
        return self._connection

    def read(self, operation: str, resource_id: str | None = None) -> Operation:
        """Return the context of a call that changes nothing."""
        return Operation(self, operation, resource_id, writes=False)

    def write(self, operation: str, resource_id: str | None = None) -> Operation:
        """Return the context of a call that changes something: one transaction, all or nothing."""
        return Operation(self, operation, resource_id, writes=True)

    @contextmanager
    def change(self, operation: str, resource_id: str | None = None) -> Iterator[Change]:
        """Give a call that looks first, and may then be one that changes something."""
        with self.read(operation, resource_id) as connection:
            try:
                yield Change(connection)
            except BaseException:  # whatever it is, nothing of it may stay
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            if connection.in_transaction:
                connection.execute("COMMIT")

    def now_us(self) -> int:
        """Return the cloud time in microseconds since 1970."""
        return (self.clock.now() - EPOCH) // _MICROSECOND

    def copy_to(self, target: Path) -> None:
        """Write the present world to ``target`` as one complete file, while this one goes on.

        A closed world is a single file too and can simply be copied.
        """
        with self.lock:
            target.touch(mode=0o600)
            copied = sqlite3.connect(target)
            try:
                self.connection().backup(copied)
            finally:
                copied.close()

    def close(self) -> None:
        """Close the file. Machines stay as they are, and time goes on for them."""
        with self.lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            for notices in self._notices.values():
                notices.clear()

    # --- changes nobody asked for ---------------------------------------------------------------------------

    def listen(self, kind: MachineKind, listener: LifecycleCallback) -> None:
        """Tell ``listener`` of machines of ``kind`` that change by themselves, and of what nobody heard yet."""
        with self.lock:
            self._listeners.setdefault(kind, []).append(listener)
        self.announce_due()

    def unlisten(self, kind: MachineKind, listener: LifecycleCallback) -> None:
        """Tell ``listener`` no more. Unknown is success."""
        with self.lock:
            listeners = self._listeners.get(kind, [])
            if listener in listeners:
                listeners.remove(listener)

    def listen_to_links(self, listener: LinkCallback) -> None:
        """Tell ``listener`` of NICs whose links die, and of those that are dead already."""
        with self.lock:
            self._link_listeners.append(listener)
            dead = self.connection().execute("SELECT nic_id FROM links WHERE lost = 1 ORDER BY nic_id").fetchall()
        for row in dead:
            listener(row[0])

    def unlisten_to_links(self, listener: LinkCallback) -> None:
        """Tell ``listener`` no more. Unknown is success."""
        with self.lock:
            if listener in self._link_listeners:
                self._link_listeners.remove(listener)

    def report_lost(self, nic_ids: Sequence[str]) -> None:
        """Tell the listeners of links that have died. Call it without the lock, after the commit."""
        with self.lock:
            listeners = tuple(self._link_listeners)
        for nic_id in nic_ids:
            for listener in listeners:
                listener(nic_id)

    def expect_announcement(self, kind: MachineKind, machine_id: str, due_us: int) -> None:
        """Have the listeners told at ``due_us`` what became of a machine whose row is marked unannounced."""
        with self.lock:
            heapq.heappush(self._notices[kind], (due_us, machine_id))
        self.announce_due()

    def announce_due(self) -> None:
        """Tell the listeners what is due. Called when the clock jumps, and by a timer while it runs."""
        heard: list[tuple[LifecycleCallback, str, PowerState]] = []
        with self.lock:
            if self._connection is None:
                return
            now_us = self.now_us()
            for kind, notices in self._notices.items():
                listeners = self._listeners.get(kind)
                while listeners and notices and notices[0][0] <= now_us:  # without a listener the news wait
                    _, machine_id = heapq.heappop(notices)
                    row = self._connection.execute(
                        "UPDATE machines SET unannounced = 0 WHERE machine_id = ? AND unannounced = 1 AND due_us <= ?"
                        " RETURNING target",
                        (machine_id, now_us),
                    ).fetchone()
                    if row is not None:
                        heard += [(listener, machine_id, PowerState(row[0])) for listener in listeners]
            self._arm_timer()
        for listener, machine_id, power in heard:  # without the lock: a listener may call the driver
            listener(machine_id, power)

    def _arm_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = [notices[0][0] for kind, notices in self._notices.items() if notices and self._listeners.get(kind)]
        if not due:
            return
        wait_s = self.clock.wall_seconds_until(from_microseconds(min(due)))
        if wait_s is None:
            return  # frozen: the next jump of the clock calls us
        self._timer = threading.Timer(min(wait_s, threading.TIMEOUT_MAX), self.announce_due)
        self._timer.daemon = True
        self._timer.start()


def _open(path: Path | str) -> sqlite3.Connection:
    try:
        if path != IN_MEMORY:
            # Guests' files are tenants' data, hence for the owner's eyes; SQLite's side files take the same mode.
            Path(path).touch(mode=0o600)
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    except OSError as exc:
        raise BackendDownError(f"the simulated world cannot be opened: {exc.strerror}") from exc  # names no path
    except sqlite3.OperationalError as exc:
        raise BackendDownError(f"the simulated world cannot be opened: {exc}") from exc
    try:
        # A killed process loses nothing that reached the operating system; only a power cut could, and a
        # simulated world is no place for what must survive that.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        while version in UPGRADES:
            step = f"{UPGRADES[version]} PRAGMA user_version = {version + 1}"
            connection.executescript(f"BEGIN IMMEDIATE; {step}; COMMIT;")
            version += 1
        if version == 0:
            connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        elif version != SCHEMA_VERSION:
            raise PermanentError(f"the simulated world has format {version}, this version reads {SCHEMA_VERSION}")
    except sqlite3.DatabaseError as exc:
        connection.close()
        raise BackendDownError(f"the simulated world cannot be opened: {exc}") from exc
    except PermanentError:
        connection.close()
        raise
    return connection
