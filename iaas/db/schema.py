"""Brings a database to the newest schema."""

from __future__ import annotations

from sqlalchemy import Connection, inspect, text

from iaas.db.models import Base
from iaas.db.postgres import take_lock
from iaas.db.store import Store
from iaas.kernel.errors import Unavailable
from iaas.migrations import HEAD, script_location

_LOCK = "schema"


def upgrade(store: Store) -> None:
    """Run the missing migrations.

    An empty database gets the newest tables at once and is stamped, which spares a first start the import of
    Alembic (half a second); a test holds this short cut and the migrations to the same schema.

    Raises:
        Unavailable: the database was written by a newer version.
    """
    current = current_revision(store)
    if current == HEAD:
        return
    if current is None:
        with store.engine.begin() as connection:
            take_lock(connection, _LOCK)
            if _revision(connection) is not None:  # another process of the fleet was first
                return
            Base.metadata.create_all(connection, checkfirst=False)
            connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
            connection.execute(text("INSERT INTO alembic_version VALUES (:head)"), {"head": HEAD})
        return
    migrate(store, current)


def migrate(store: Store, current: str | None) -> None:
    """Run Alembic from revision ``current`` to the head.

    Raises:
        Unavailable: the database was written by a newer version.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", script_location())
    with store.engine.begin() as connection:
        take_lock(connection, _LOCK)
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise Unavailable(f"the database is at revision {current}, which this version does not know") from error


def current_revision(store: Store) -> str | None:
    """Return the revision a database is at; None when it is empty."""
    with store.engine.connect() as connection:
        return _revision(connection)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
