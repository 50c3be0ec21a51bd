"""Token buckets."""

from __future__ import annotations

import pytest

from iaas.api.inside import rate_limits
from iaas.api.inside.rate_limits import RateLimit


class Now:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


def test_a_burst_then_the_rate() -> None:
    now = Now()
    limit = RateLimit(per_s=2, burst=3, now_s=now)
    assert [limit.take("a") for _ in range(4)] == [0, 0, 0, 1]
    now.s += 0.4
    assert limit.take("a") == 1, "not quite one token yet"
    now.s += 0.1
    assert [limit.take("a") for _ in range(2)] == [0, 1]
    now.s += 3600
    assert [limit.take("a") for _ in range(4)] == [0, 0, 0, 1], "a bucket holds no more than a burst"


def test_each_key_has_its_own_bucket() -> None:
    limit = RateLimit(per_s=1, burst=1, now_s=Now())
    assert [limit.take(("vpc-one", "10.0.0.5")), limit.take(("vpc-one", "10.0.0.5"))] == [0, 1]
    assert limit.take(("vpc-two", "10.0.0.5")) == 0
    assert limit.take(("vpc-one", "10.0.0.6")) == 0


def test_how_long_to_wait() -> None:
    limit = RateLimit(per_s=0.1, burst=1, now_s=Now())
    assert [limit.take("a"), limit.take("a")] == [0, 10]


def test_who_has_not_asked_for_longest_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "MAX_KEYS", 2)
    limit = RateLimit(per_s=0.001, burst=1, now_s=Now())
    assert [limit.take(key) for key in ("a", "b", "a", "c")] == [0, 0, 1000, 0]
    assert limit.take("a") == 1000
    assert limit.take("b") == 0
