"""Resources whose changes may wait: what is wanted, and what is applied of it.

A router, a firewall or a load balancer is configured by its row and the rows below it (rules, listeners). Those
rows are what tenants see and change. What the data plane does is another thing: the *applied* configuration, one
document made of those rows at a moment that somebody chose. Workflows, drivers and the doctor read that document
and never the rows, so a change that is only staged reaches nobody.

Native writes apply in the commit that makes them. A dialect whose clients collect changes and then ask for an
update stages them first (``apply=False``) and calls :meth:`Revisions.apply` when asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, FromClause, Table

from iaas.db.repositories import revisions
from iaas.db.store import Tx
from iaas.kernel.errors import NotFound, PreconditionFailed, ResourceRef
from iaas.resources.common import AppliedConfiguration

ConfigurationOf = Callable[[Connection, str], dict[str, Any]]
"""Makes the document of a resource from its rows, as they are in the connection's transaction. JSON only."""


class Revisions:
    """The revisions of one type of resource.

    Args:
        resource_type: its word in errors (``load_balancer``).
        table: its rows; the model has the columns of :class:`iaas.db.models.base.Revised`.
        configuration_of: how a configuration is made from the rows.
    """

    def __init__(self, resource_type: str, table: FromClause, configuration_of: ConfigurationOf) -> None:
        if not isinstance(table, Table):
            raise TypeError(f"{resource_type}: a table is needed")
        self._type = resource_type
        self._table = table
        self._configuration_of = configuration_of

    @contextmanager
    def change(self, tx: Tx, resource_id: str, *, apply: bool = True) -> Iterator[int]:
        """Give the number of a new revision; rows changed inside the block belong to it.

        With ``apply`` the new configuration is the applied one when the block ends, in the same commit.
        An error in the block is an error of the whole write: nothing of it stays.

        Raises:
            NotFound: there is no such resource.
        """
        revision = revisions.bump(tx, self._table, resource_id)
        if revision is None:
            raise self._not_found(resource_id)
        yield revision
        if apply:
            self.apply(tx, resource_id)

    def apply(self, tx: Tx, resource_id: str, *, revision: int | None = None) -> AppliedConfiguration:
        """Make what is wanted now the applied configuration and return it; a second time changes nothing.

        Args:
            revision: the one that the caller has seen; None for whichever is the newest.

        Raises:
            NotFound: there is no such resource.
            PreconditionFailed: ``revision`` is not the newest: others have changed something since.
        """
        newest = revisions.revision_of(tx.connection, self._table, resource_id)
        if newest is None:
            raise self._not_found(resource_id)
        if revision is None or revision == newest:
            configuration = self._configuration_of(tx.connection, resource_id)
            if revisions.put_applied(tx, self._table, resource_id, newest, configuration):
                return AppliedConfiguration(revision=newest, configuration=configuration)
        raise PreconditionFailed(
            f"{self._type} {resource_id} was changed meanwhile: look at it and apply again",
            resource=ResourceRef(self._type, resource_id),
        )

    def applied(self, connection: Connection, resource_id: str) -> AppliedConfiguration:
        """Return what the data plane has to do: this and nothing else goes into a driver's spec.

        Raises:
            NotFound: there is no such resource.
        """
        found = revisions.get_applied(connection, self._table, resource_id)
        if found is None:
            raise self._not_found(resource_id)
        return found

    def all_applied(self, connection: Connection) -> Mapping[str, AppliedConfiguration]:
        """Return the applied configurations by id, for the doctor and for a host that starts anew."""
        return revisions.all_applied(connection, self._table)

    def pending(self, connection: Connection) -> list[str]:
        """Return ids of the resources that have staged changes."""
        return revisions.pending(connection, self._table)

    def _not_found(self, resource_id: str) -> NotFound:
        return NotFound(
            f"there is no {self._type.replace('_', ' ')} {resource_id}", resource=ResourceRef(self._type, resource_id)
        )
