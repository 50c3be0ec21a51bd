"""Where driver calls block: a few threads for each lane, taken in turns by the projects that wait.

A lane is one kind of machine on one host. Each has threads of its own and never more than its limit, so a
daemon that hangs holds up what needs that daemon and nothing else, and no load piles up threads.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

IDLE_S = 10.0  # a thread without work ends after this


@dataclass(eq=False, slots=True)
class Call:
    """One driver call on its way. ``result`` gives its value or raises what it raised, once it has ended."""

    function: Callable[[], Any]
    landed: Callable[[Call], None]
    began_s: float | None = None  # monotonic; None while it waits for its turn
    value: Any = None
    error: BaseException | None = None

    @property
    def running_s(self) -> float | None:
        """For how long it has been running; None while it waits for its turn."""
        return None if self.began_s is None else time.monotonic() - self.began_s

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value

    def run(self) -> None:
        self.began_s = time.monotonic()
        try:
            self.value = self.function()
        except BaseException as error:  # noqa: BLE001 - raised again by result(), in the thread that decides
            self.error = error
        self.landed(self)


@dataclass(slots=True)
class _Lane:
    waiting: OrderedDict[str, deque[Call]] = field(default_factory=OrderedDict)  # by group, the next one first
    threads: int = 0
    idle: int = 0
    running: int = 0

    @property
    def queued(self) -> int:
        return sum(len(calls) for calls in self.waiting.values())

    def take(self) -> Call | None:
        """Take the next call: the oldest of the group whose turn it is; that group then stands last."""
        if not self.waiting:
            return None
        group, calls = self.waiting.popitem(last=False)
        call = calls.popleft()
        if calls:
            self.waiting[group] = calls
        return call


class DriverPool:
    """Runs driver calls, at most ``limit_of(lane)`` of a lane at once.

    Its threads are daemons: a call that never comes back does not keep the process from ending.
    """

    def __init__(self, limit_of: Callable[[str], int]) -> None:
        self._limit_of = limit_of
        self._changed = threading.Condition()
        self._lanes: dict[str, _Lane] = {}
        self._is_stopping = False

    def submit(self, function: Callable[[], Any], *, lane: str, group: str, landed: Callable[[Call], None]) -> Call:
        """Let a thread of ``lane`` call ``function``; groups (projects) take turns in it.

        ``landed`` is told of the end, from that thread. Once the pool is stopped nothing new begins.
        """
        call = Call(function, landed)
        with self._changed:
            if self._is_stopping:
                return call
            queue = self._lanes.setdefault(lane, _Lane())
            queue.waiting.setdefault(group, deque()).append(call)
            self._changed.notify_all()
            # Counted, not only asked for an idle one: it may be about to take an earlier call.
            if queue.queued > queue.idle and queue.threads < max(1, self._limit_of(lane)):
                queue.threads += 1
                thread = threading.Thread(target=self._work, args=(lane, queue), name=f"driver-{lane}", daemon=True)
                thread.start()
        return call

    def load(self) -> dict[str, tuple[int, int]]:
        """Return (running, waiting) calls by lane."""
        with self._changed:
            return {name: (lane.running, lane.queued) for name, lane in self._lanes.items()}

    def stop(self, *, timeout_s: float) -> bool:
        """Begin nothing new and wait for the calls at hand; False when some had not ended within ``timeout_s``."""
        with self._changed:
            self._is_stopping = True
            for lane in self._lanes.values():
                lane.waiting.clear()
            self._changed.notify_all()
            return self._changed.wait_for(
                lambda: not any(lane.running for lane in self._lanes.values()), timeout=timeout_s
            )

    def _work(self, name: str, lane: _Lane) -> None:
        while (call := self._next(name, lane)) is not None:
            try:
                call.run()
            finally:
                with self._changed:
                    lane.running -= 1
                    self._changed.notify_all()

    def _next(self, name: str, lane: _Lane) -> Call | None:
        """Return what to do next; None when this thread shall end."""
        with self._changed:
            lane.idle += 1
            try:
                self._changed.wait_for(lambda: self._is_stopping or bool(lane.waiting), timeout=IDLE_S)
                call = None if self._is_stopping else lane.take()
            finally:
                lane.idle -= 1
            if call is None:
                lane.threads -= 1
                if not lane.threads and not lane.waiting:
                    self._lanes.pop(name, None)
            else:
                lane.running += 1
            return call
