from __future__ import annotations

import threading

import pytest

from iaas.kernel.turns import Turns
from tests.factories import wait_for


def test_whoever_waits_longest_comes_next() -> None:
    turns = Turns()
    order: list[int] = []
    turns.take()

    def work(number: int) -> None:
        with turns.turn():
            order.append(number)

    threads = []
    for number in range(5):
        threads.append(threading.Thread(target=work, args=(number,)))
        threads[-1].start()
        wait_for(lambda expected=number + 1: turns.waiting == expected)  # type: ignore[misc]  # bound now
    assert order == []
    turns.give()
    for thread in threads:
        thread.join(10)
    assert order == [0, 1, 2, 3, 4]
    assert turns.waiting == 0


def test_one_at_a_time() -> None:
    turns = Turns()
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(200):
            with turns.turn():
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == 1


def test_who_lets_others_first_goes_on_after_them() -> None:
    turns = Turns()
    order: list[str] = []

    def other() -> None:
        turns.let_others_first()  # not its turn yet: nothing happens
        with turns.turn():
            order.append("other")

    with turns.turn():
        turns.let_others_first()  # nobody is there
        thread = threading.Thread(target=other)
        thread.start()
        wait_for(lambda: turns.waiting == 1)
        order.append("first half")
        turns.let_others_first()
        order.append("second half")
    thread.join(10)
    assert order == ["first half", "other", "second half"]


def test_a_fault_gives_the_turn_back() -> None:
    turns = Turns()
    with pytest.raises(ValueError, match="x"), turns.turn():
        raise ValueError("x")
    with turns.turn():
        pass
