from __future__ import annotations

import threading

import pytest

from iaas.kernel import ids
from iaas.kernel.ids import ID_PATTERN, IdSource, suffix


def test_equal_seeds_give_equal_ids() -> None:
    one, two = IdSource(7), IdSource(7)
    assert [one.new(ids.INSTANCE) for _ in range(5)] == [two.new(ids.INSTANCE) for _ in range(5)]
    assert one.mac() == two.mac()
    assert IdSource(8).new(ids.INSTANCE) != IdSource(7).new(ids.INSTANCE)


def test_unseeded_ids_differ() -> None:
    assert IdSource().new(ids.JOB) != IdSource().new(ids.JOB)


def test_form_of_ids_and_macs() -> None:
    source = IdSource(1)
    for prefix in (ids.INSTANCE, ids.IMAGE, ids.PROJECT, ids.HOST):
        made = source.new(prefix)
        assert ID_PATTERN.match(made)
        assert made.startswith(prefix + "-")
        assert len(suffix(made)) == ids.SUFFIX_LENGTH
    octets = [int(octet, 16) for octet in source.mac().split(":")]
    assert len(octets) == 6
    assert octets[0] & 0b11 == 0b10  # locally administered, one receiver


@pytest.mark.parametrize("wrong", ["", "i", "i-", "i-short", "i-4kq0ygtz0", "I-4kq0ygtz", "i-4kq0ygtz\n", "1-4kq0ygtz"])
def test_what_is_no_id(wrong: str) -> None:
    assert not ID_PATTERN.match(wrong)


def test_threads_never_get_the_same_id() -> None:
    source = IdSource(3)
    made: list[str] = []

    def take() -> None:
        made.extend(source.new(ids.INSTANCE) for _ in range(500))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 2000
