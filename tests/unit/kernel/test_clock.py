from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

from iaas.kernel.clock import CloudClock, WallClock, rfc3339

START = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


def test_frozen_clock_stands_until_it_is_advanced() -> None:
    clock = CloudClock(start=START, scale=0)
    assert clock.now() == clock.now() == START
    clock.advance(1.5)
    assert clock.now() == START + timedelta(seconds=1.5)


def test_scaled_clock_runs_as_fast_as_asked() -> None:
    began_s = time.monotonic()
    clock = CloudClock(start=START, scale=1000)
    while clock.now() - START < timedelta(seconds=20):
        pass
    passed_s = time.monotonic() - began_s
    assert timedelta(0) < clock.now() - START <= timedelta(seconds=1000 * (time.monotonic() - began_s))
    assert passed_s >= 0.019


def test_a_change_of_speed_keeps_the_time_reached() -> None:
    clock = CloudClock(start=START, scale=0)
    clock.advance(10)
    clock.set_scale(3600)
    assert clock.now() >= START + timedelta(seconds=10)
    clock.set_scale(0)
    stopped_at = clock.now()
    assert clock.scale == 0
    assert clock.now() == stopped_at


def test_a_clock_never_goes_back() -> None:
    clock = CloudClock(start=START, scale=0)
    with pytest.raises(ValueError, match="negative"):
        clock.advance(-0.001)
    with pytest.raises(ValueError, match="negative"):
        clock.set_scale(-1)
    assert clock.now() == START


def test_wall_seconds_until() -> None:
    clock = CloudClock(start=START, scale=0)
    assert clock.wall_seconds_until(START) == 0.0
    assert clock.wall_seconds_until(START - timedelta(days=1)) == 0.0
    assert clock.wall_seconds_until(START + timedelta(microseconds=1)) is None
    clock.set_scale(10)
    left_s = clock.wall_seconds_until(clock.now() + timedelta(seconds=1000))
    assert left_s is not None
    assert 99 < left_s <= 100


def test_listeners_hear_of_jumps_and_of_changes_of_speed() -> None:
    clock = CloudClock(start=START, scale=0)
    heard: list[datetime] = []
    clock.on_change(lambda: heard.append(clock.now()))  # a listener may look at the clock
    clock.advance(5)
    clock.set_scale(0)
    assert heard == [START + timedelta(seconds=5)] * 2


def test_wall_clock_and_cloud_clock_are_aware() -> None:
    assert WallClock().now().utcoffset() == CloudClock().now().utcoffset() == timedelta(0)


def test_rfc3339_is_utc_with_milliseconds() -> None:
    assert rfc3339(START) == "2026-01-31T12:00:00.000Z"
    east = datetime(2026, 1, 31, 14, 0, 0, 123999, tzinfo=timezone(timedelta(hours=2)))
    assert rfc3339(east) == "2026-01-31T12:00:00.123Z"
