"""Events: one fact about a resource each, in the order in which they happened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from iaas.client.collection import Collection
from iaas.client.resource import Resource, read_reference, reads
from iaas.kernel.errors import ResourceRef

if TYPE_CHECKING:
    from iaas.client.client import Client

_FOLLOW_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Resource):
    """``type`` is ``<resource>.<what happened>``: ``instance.created``."""

    path: ClassVar[str] = "/v1/events"
    key: ClassVar[str] = "event"

    type: str = ""
    resource: ResourceRef | None = field(default=None, metadata=reads(read_reference))
    job_id: str | None = None
    request_id: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict, hash=False)


class Events(Collection[Event]):
    """``client.events``, the oldest first. Filters: ``after`` (an event's id), ``resource_id``."""

    cursor_parameter = "after"  # a cursor is the id of the last event seen

    def __init__(self, client: Client) -> None:
        super().__init__(client, Event)

    def follow(self, *, after: str | None = None, resource_id: str | None = None) -> Iterator[Event]:
        """Yield events as they happen, for ever: those after ``after``, or from the first that is kept."""
        while True:
            found = False
            for event in self.iterate(after=after, resource_id=resource_id):
                found, after = True, event.id
                yield event
            if not found:
                self._client.transport.sleep(_FOLLOW_PAUSE_S)
