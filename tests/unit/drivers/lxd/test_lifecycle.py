from __future__ import annotations

import functools
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from iaas.drivers.interface import BackendDownError, MachineKind, MachineState, PowerState

NAME, MACHINE_ID = "iaas-unit-aaaa1111", "i-aaaa1111"

websocket = pytest.importorskip("websocket", reason="the extra `real` is not installed")
lifecycle = pytest.importorskip("iaas.drivers.lxd.lifecycle", reason="the extra `real` is not installed")


class Stream:
    """A websocket that a test writes to; None ends it."""

    def __init__(self) -> None:
        self.messages: queue.Queue[str | None] = queue.Queue()

    def recv(self) -> str:
        message = self.messages.get(timeout=30)
        if message is None:
            raise websocket.WebSocketConnectionClosedException("gone")
        return message

    def abort(self) -> None:
        self.messages.put(None)

    def shutdown(self) -> None:
        """Nothing is held."""


class World:
    """Machines, and the event streams that were opened on them."""

    def __init__(self) -> None:
        self.power = {NAME: PowerState.STOPPED}
        self.streams: list[Stream] = []
        self.is_down = False
        self.heard: list[tuple[str, PowerState]] = []
        self.watcher = lifecycle.LifecycleWatcher(self, look=self.look, look_at_all=self.look_at_all)
        self.watcher.listen(lambda machine_id, power: self.heard.append((machine_id, power)))

    def open_websocket(self, path: str, *, timeout_s: float) -> Any:
        if self.is_down:
            raise BackendDownError("down")
        self.streams.append(Stream())
        return self.streams[-1]

    def look(self, name: str) -> MachineState | None:
        if name not in self.power:
            return None
        return MachineState(
            machine_id=MACHINE_ID, kind=MachineKind.CONTAINER, power=self.power[name], vcpus=1, memory_mib=64
        )

    def look_at_all(self) -> dict[str, MachineState]:
        return {name: state for name in self.power if (state := self.look(name))}

    def tell(self, action: str) -> None:
        """Send one event, and wait until it was taken."""
        stream = self.streams[-1]
        event = {"type": "lifecycle", "metadata": {"action": action, "source": f"/1.0/instances/{NAME}"}}
        stream.messages.put(json.dumps(event))
        stream.messages.put(json.dumps({"metadata": {"action": "instance-exec", "source": ""}}))
        wait_for(stream.messages.empty)


def wait_for(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "not in time"
        time.sleep(0.005)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(lifecycle, "RECONNECT_S", 0.01)
    monkeypatch.setattr(lifecycle, "REBOOT_S", 0.1)
    world = World()
    wait_for(lambda: bool(world.streams))
    world.tell("instance-exec")  # taken only after the first look at all machines
    yield world
    world.watcher.close()


def test_a_guest_that_stops_by_itself_is_told(world: World) -> None:
    with world.watcher.changing(NAME, PowerState.RUNNING):
        world.power[NAME] = PowerState.RUNNING
        world.tell("instance-started")
    assert world.heard == []
    world.power[NAME] = PowerState.STOPPED
    world.tell("instance-shutdown")
    wait_for(lambda: world.heard == [(MACHINE_ID, PowerState.STOPPED)])


def test_what_we_ask_for_is_no_news_even_if_it_comes_late(world: World) -> None:
    with world.watcher.changing(NAME, PowerState.RUNNING):
        world.power[NAME] = PowerState.RUNNING
    world.tell("instance-started")
    with world.watcher.changing(NAME, PowerState.STOPPED):
        pass  # a graceful stop: the guest obeys later
    world.power[NAME] = PowerState.STOPPED
    world.tell("instance-shutdown")
    world.tell("instance-stopped")
    assert world.heard == []


def test_a_guest_that_dies_while_it_is_being_started_is_told(world: World) -> None:
    with world.watcher.changing(NAME, PowerState.RUNNING):
        world.tell("instance-started")
        world.tell("instance-shutdown")  # and its power is STOPPED
    wait_for(lambda: world.heard == [(MACHINE_ID, PowerState.STOPPED)])


def test_a_guest_that_reboots_is_no_news(world: World) -> None:
    with world.watcher.changing(NAME, PowerState.RUNNING):
        world.power[NAME] = PowerState.RUNNING
    world.power[NAME] = PowerState.STOPPED
    world.tell("instance-shutdown")
    world.power[NAME] = PowerState.RUNNING
    world.tell("instance-restarted")
    wait_for(lambda: not any("Timer" in type(thread).__name__ for thread in threading.enumerate()))
    assert world.heard == []


def watching_threads() -> set[threading.Thread]:
    """Return the threads of every watcher in this process: another driver may be open in another test's fixture."""
    return {thread for thread in threading.enumerate() if "lxd" in thread.name or "Timer" in thread.name}


def test_closing_ends_all_threads(request: pytest.FixtureRequest) -> None:
    others = watching_threads()
    world: World = request.getfixturevalue("world")
    with world.watcher.changing(NAME, PowerState.RUNNING):
        pass
    world.tell("instance-shutdown")
    world.watcher.close()
    assert watching_threads() - others == set()
    assert world.heard == []


def test_what_happened_while_lxd_was_away_is_told_once(world: World) -> None:
    with world.watcher.changing(NAME, PowerState.RUNNING):
        world.power[NAME] = PowerState.RUNNING
    world.is_down = True
    world.streams[-1].messages.put(None)
    world.power[NAME] = PowerState.STOPPED
    world.is_down = False
    wait_for(lambda: len(world.streams) == 2)
    wait_for(lambda: world.heard == [(MACHINE_ID, PowerState.STOPPED)])
    world.tell("instance-shutdown")
    assert len(world.heard) == 1


def test_a_listener_that_fails_does_not_end_the_watching(world: World) -> None:
    def fail(machine_id: str, power: PowerState) -> None:
        raise RuntimeError("a fault of the listener")

    world.watcher.listen(fail)
    for power, action in ((PowerState.RUNNING, "instance-started"), (PowerState.STOPPED, "instance-shutdown")):
        world.power[NAME] = power
        world.tell(action)
        news = (MACHINE_ID, power)
        wait_for(functools.partial(world.heard.__contains__, news))


def test_events_of_others_and_of_removed_machines_are_nothing(world: World) -> None:
    world.watcher.forget(NAME)
    del world.power[NAME]
    world.tell("instance-shutdown")
    assert world.heard == []
