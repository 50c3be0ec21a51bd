"""Events: as pages, as a stream that a commit wakes, and kept for a bounded time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from iaas.config import EventRetention
from iaas.db.repositories import events
from iaas.db.store import Store
from iaas.jobs.event_feed import EventFeed
from iaas.kernel.clock import Clock
from iaas.kernel.errors import EventsExpired, RateLimited
from iaas.resources.common import Principal
from iaas.resources.jobs import OPERATORS, Event, EventFilter
from iaas.services.access import is_operator

STREAM_PAGE = 500
PURGE_AT_ONCE = 2000  # in one transaction, so that other writers get their turn


class EventStream:
    """The events of one follower. Reads by itself whenever it was woken, so it holds up nobody else.

    Made by :meth:`EventService.follow`; :meth:`close` it, or its place stays taken.
    """

    def __init__(
        self,
        service: EventService,
        feed: EventFeed,
        flag: threading.Event,
        *,
        principal: Principal,
        after: int,
        only: EventFilter,
    ) -> None:
        self._service = service
        self._feed = feed
        self._flag = flag
        self._principal = principal
        self._after = after
        self._only = only
        self._more = True  # what was written before the subscription is read first

    def next(self, *, timeout_s: float) -> Sequence[Event] | None:
        """Return the next events, empty when there were none within ``timeout_s`` (wall), None at the end.

        The end is the server's stop, or that events were purged which this follower has not read yet.
        """
        if not self._more:
            self._flag.wait(timeout_s)
        if self._feed.is_closed:
            return None
        self._flag.clear()  # before reading: news that come while we read are another round
        try:
            found = self._service.list_after(self._principal, after=self._after, limit=STREAM_PAGE, only=self._only)
        except EventsExpired:
            return None
        self._more = len(found) == STREAM_PAGE
        if found:
            self._after = found[-1].id
        return found

    def close(self) -> None:
        """Give the place back. Twice is as good as once."""
        self._feed.leave(self._flag)


class EventService:
    def __init__(self, store: Store, clock: Clock, feed: EventFeed, retention: EventRetention) -> None:
        self._store = store
        self._clock = clock
        self._feed = feed
        self._retention = retention

    def list_after(
        self, principal: Principal, *, after: int, limit: int, only: EventFilter | None = None
    ) -> list[Event]:
        """Return the project's events after an id, oldest first; 0 begins with the oldest that is kept.

        Admins also get those of the operators.

        Raises:
            EventsExpired: some after that id were purged, or no event has had it yet (the database is another one).
        """
        with self._store.read() as connection:
            if after and after < events.purged_through(connection):
                raise EventsExpired(
                    f"the events after {after} are no longer all kept: list the resources anew, then follow from 0"
                )
            found = events.list_after(connection, project_id=principal.project_id, after=after, limit=limit, only=only)
            if is_operator(principal):
                more = events.list_after(connection, project_id=OPERATORS, after=after, limit=limit, only=only)
                found += [replace(event, project_id=None) for event in more]
            if not found and after > events.newest_id(connection):
                raise EventsExpired(
                    f"this server has no event {after} yet, so the id is of another server or of a database that was"
                    " replaced: list the resources anew, then follow from 0"
                )
        return sorted(found, key=lambda event: event.id)[:limit]

    def follow(self, principal: Principal, *, after: int, only: EventFilter) -> EventStream:
        """Return the events after an id as they come, for as long as the caller asks for them.

        Raises:
            EventsExpired: as for :meth:`list_after`.
            RateLimited: as many follow already as this server lets; none waits for a place.
        """
        self.list_after(principal, after=after, limit=1, only=only)
        flag = self._feed.subscribe()
        if flag is None:
            raise RateLimited("too many follow the events of this server: come again, or list them page by page")
        return EventStream(self, self._feed, flag, principal=principal, after=after, only=only)

    def purge(self) -> int:
        """Delete the events beyond the retention (age and number); return how many that were."""
        before = self._clock.now() - timedelta(seconds=self._retention.age_s)
        total = 0
        while True:
            count = self._store.write(
                lambda tx: events.purge(tx, before=before, keep=self._retention.count, limit=PURGE_AT_ONCE)
            )
            total += count
            if count < PURGE_AT_ONCE:
                return total
