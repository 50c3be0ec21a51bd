"""The same work on our server and on two others, each in its own words, all sent by the same client.

Requests are made up beforehand and sent as they are, over kept connections, so that servers are compared and not
client libraries. The others keep everything in memory and forget it when they end; ours has everything on disk when
it answers, and its creates count until the instances run.
"""

from __future__ import annotations

import time
from typing import Protocol

from bench.load import Request, Target
from bench.native import NativeCalls, instant_server
from bench.others import EC2Calls, other_server
from bench.start import measure_starts

CLIENTS = 8
BATCH = 100
LABELLED = 50
Figures = dict[str, float]

FIGURES = {
    "answer_s": "first answer after the start, s",
    "pss_mib": "memory then, MiB",
    "create_per_s": "instances made a second, 8 clients",
    "one_client_create_ms": "a create, one client, ms",
    "batch_per_s": "instances made a second, 100 a request",
    "get_ms": "one instance by id, ms",
    "get_per_s": "instances by id a second, 8 clients",
    "page_of_100_ms": "a page of 100 where there are 100, ms",
    "page_of_1000_ms": "a page of 100 where there are 1,000, ms",
    "label_ms": "50 of 1,000 by a label, ms",
}


class Calls(Protocol):
    """One server's words for what is measured."""

    def create(self, count: int = 1, label: tuple[str, str] | None = None) -> Request: ...
    def show(self, instance_id: str) -> Request: ...
    def page(self) -> Request: ...
    def labelled(self, key: str, value: str) -> Request: ...
    def ids(self, answer: bytes) -> list[str]: ...
    def settle(self) -> None: ...


def measure(*, count: int, rounds: int) -> dict[str, Figures]:
    """Return the medians of ``rounds`` turns, by server: ``ours``, ``moto``, ``ministack``."""
    turns: dict[str, list[Figures]] = {"ours": [], "moto": [], "ministack": []}
    for _ in range(rounds):
        starts = measure_starts(1)
        with instant_server() as server:
            turns["ours"].append({**starts, **_ask(server.target, NativeCalls(server), count)})
        for name in ("moto", "ministack"):
            with other_server(name) as other:
                memory = {} if other.pss_mib is None else {"pss_mib": other.pss_mib}
                asked = _ask(other.target, EC2Calls(other.target), count)
                turns[name].append({"answer_s": other.answer_s, **memory, **asked})
    return {name: _medians(figures) for name, figures in turns.items()}


def ratio(figure: str, ours: float, theirs: float) -> float:
    """Return how many times better ours is."""
    return ours / theirs if figure.endswith("_per_s") else theirs / ours


def _medians(turns: list[Figures]) -> Figures:
    return {name: sorted(each[name] for each in turns)[len(turns) // 2] for name in turns[0]}


def _ask(target: Target, calls: Calls, count: int) -> Figures:
    found: Figures = {}
    (known,) = calls.ids(target.ask(*calls.create()))
    target.run([calls.create()] * 99, clients=CLIENTS)
    calls.settle()
    target.run([calls.page()] * 5)  # the first ones fill caches
    found["page_of_100_ms"] = target.run([calls.page()] * 20).percentile_ms(50)
    found["items_of_100"] = len(calls.ids(target.ask(*calls.page())))
    found["get_ms"] = target.run([calls.show(known)] * 200).percentile_ms(50)
    found["get_per_s"] = target.run([calls.show(known)] * 600, clients=CLIENTS).per_s
    began = time.perf_counter()
    load = target.run([calls.create()] * (900 - LABELLED), clients=CLIENTS)
    starting_s = time.perf_counter() - began - load.elapsed_s  # of the client's process
    calls.settle()
    found["create_per_s"] = load.count / (time.perf_counter() - began - starting_s)
    target.ask(*calls.create(LABELLED, ("app", "rare")))
    calls.settle()
    found["page_of_1000_ms"] = target.run([calls.page()] * 20).percentile_ms(50)
    found["items_of_1000"] = len(calls.ids(target.ask(*calls.page())))
    assert len(calls.ids(target.ask(*calls.labelled("app", "rare")))) == LABELLED
    found["label_ms"] = target.run([calls.labelled("app", "rare")] * 20).percentile_ms(50)
    found["one_client_create_ms"] = target.run([calls.create()] * 200).percentile_ms(50)
    calls.settle()
    began = time.perf_counter()
    load = target.run([calls.create(BATCH)] * (count // BATCH))
    starting_s = time.perf_counter() - began - load.elapsed_s
    calls.settle()
    found["batch_per_s"] = load.count * BATCH / (time.perf_counter() - began - starting_s)
    return found
