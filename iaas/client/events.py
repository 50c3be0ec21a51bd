"""Events: one fact about a resource each, in the order in which they happened."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from iaas.client.collection import Collection
from iaas.client.errors import APIError, ConnectionFailed
from iaas.client.resource import Resource, read_reference, reads
from iaas.kernel.errors import ResourceRef

if TYPE_CHECKING:
    from iaas.client.client import Client

_STREAM_TYPE = "text/event-stream"
_SILENCE_S = 45.0  # three of the server's heartbeats
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0


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
    """``client.events``, the oldest first. Filters: ``after`` (an event's id), ``resource_id``, ``resource_type``,
    ``type_prefix`` (``"instance.cre"``)."""

    cursor_parameter = "after"  # a cursor is the id of the last event seen

    def __init__(self, client: Client) -> None:
        super().__init__(client, Event)

    def follow(
        self,
        *,
        after: str | None = None,
        resource_id: str | None = None,
        resource_type: str | None = None,
        type_prefix: str | None = None,
    ) -> Iterator[Event]:
        """Yield events as they happen, for ever: those after ``after``, or from the first that is kept.

        A lost connection is made again and goes on after the last event, each of which comes exactly once.

        Raises:
            EventsExpired: the server no longer keeps all that came after ``after``, or never had such an event:
                list the resources anew.
            APIError: the server refuses (no valid token).
            ConnectionFailed: it could not be reached again within the client's ``timeout_s``.
        """
        transport = self._client.transport
        filters = {"resource_id": resource_id, "resource_type": resource_type, "type_prefix": type_prefix}
        pause_s, lost_at_s = _FIRST_PAUSE_S, None
        while True:
            try:
                lines = transport.stream_lines(
                    self._model.path, accept=_STREAM_TYPE, params={"after": after, **filters}, silence_s=_SILENCE_S
                )
                for data in _messages(lines):
                    pause_s, lost_at_s = _FIRST_PAUSE_S, None
                    event = self._model.from_answer(self._client, data)
                    after = event.id
                    yield event
            except ConnectionFailed:
                lost_at_s = transport.monotonic() if lost_at_s is None else lost_at_s
                if transport.monotonic() + pause_s - lost_at_s > transport.timeout_s:
                    raise
            except APIError as error:
                if error.retry_after_s is None:  # all places are taken, or a backend is down: it says when to come
                    raise
                pause_s = max(pause_s, error.retry_after_s)
            transport.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _messages(lines: Iterator[str]) -> Iterator[Any]:
    """Yield the JSON of each message. Source: WHATWG HTML, server-sent events, 9.2.6 (interpreting a stream)."""
    data: list[str] = []
    for line in lines:
        if not line:
            if data:
                yield json.loads("\n".join(data))
            data = []
        elif line.startswith("data:"):
            data.append(line.removeprefix("data:").removeprefix(" "))
