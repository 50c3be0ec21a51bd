"""``make torture``: a loaded server is killed at random moments, again and again.

Clients keep a ledger of what the server acknowledged, and send again (with the same idempotency key) what it did
not answer. In the end the ledger is held against the API, and the database against itself and the backend: nothing
acknowledged is lost, nothing is done twice, nothing is left over.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.chaos.torture_client import Appetite, Client
from tests.chaos.torture_networks import NetworkClient
from tests.chaos.torture_reckoning import check_keys, check_world, reckon
from tests.chaos.torture_server import Server

SETTLE_TIMEOUT_S = 600.0
RETENTION_S = 7200  # longer than any run: nothing is purged unasked


@dataclass(frozen=True, kw_only=True)
class Torment:
    """How it is done on one backend. ``lives_s``: between these a server lives after each start, at random.

    ``wirers``: further clients that build networks.
    """

    kills: int
    clients: int
    wirers: int = 1
    lives_s: tuple[float, float]
    appetite: Appetite
    options: tuple[str, ...] = ()

    @property
    def all_options(self) -> tuple[str, ...]:
        return ("--retention", str(RETENTION_S), "--doctor-every", "0", *self.options)


SIM = Torment(kills=200, clients=4, wirers=2, lives_s=(0.05, 1.5), appetite=Appetite())
# A machine of the real backend takes a second where a simulated one takes a millisecond; VMs are emulated.
REAL = Torment(kills=10, clients=2, lives_s=(2.0, 12.0), appetite=Appetite(alive=3, at_once=2, batch=2))


def torture(folder: Path, torment: Torment, *, seed: int) -> Counter[str]:
    """Run it on a new state folder; return what was counted. The server has ended then, its state is left.

    Raises:
        AssertionError: something was lost, doubled or left over.
    """
    choices = random.Random(seed)  # noqa: S311 - repeatable choices, no secrets
    server = Server(folder, *torment.all_options)
    server.start()
    clients: list[Client] = [
        Client(lambda: server.port, server.token, f"c{number}", seed * 1000 + number, torment.appetite)
        for number in range(torment.clients)
    ]
    clients += [
        NetworkClient(lambda: server.port, server.token, f"w{number}", seed * 1000 + 500 + number, torment.appetite)
        for number in range(torment.wirers)
    ]
    began_at = time.monotonic()
    try:
        for client in clients:
            client.start()
        for number in range(1, torment.kills + 1):
            threading.Event().wait(choices.uniform(*torment.lives_s))  # the random moment
            server.end(signal.SIGKILL)
            server.start()
            _raise_faults(clients)
            if number % 10 == 0 or number == torment.kills:
                jobs = sum(len(client.all_jobs) for client in clients)
                print(f"{time.monotonic() - began_at:6.0f} s: killed {number} times, {jobs} jobs so far", flush=True)
        _stop(clients)
        _raise_faults(clients)
        counted = reckon(clients, seed)
    finally:
        for client in clients:
            client.told_to_stop.set()
        server.end(signal.SIGTERM)
    check_keys(folder, clients)
    counted["kills"] = torment.kills
    counted["seconds"] = round(time.monotonic() - began_at)
    return counted


def _stop(clients: list[Client]) -> None:
    for client in clients:
        client.told_to_stop.set()
    for client in clients:
        client.join(SETTLE_TIMEOUT_S)
        assert not client.is_alive(), f"{client.name} waits for ever"


def _raise_faults(clients: list[Client]) -> None:
    for client in clients:
        if client.fault is not None:
            raise client.fault


def torture_sim(folder: Path, torment: Torment, *, seed: int) -> Counter[str]:
    """As :func:`torture`, on the simulation, whose world is looked through at the end."""
    counted = torture(folder, torment, seed=seed)
    check_world(folder)
    return counted


@contextmanager
def _kept_on_failure(place: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:  # raised again: after Ctrl-C, too, the folder is there and somebody may want to look
        print(f"the server's state and log are left in {place}", flush=True)
        raise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=("sim", "real"), default="sim")
    parser.add_argument("--kills", type=int, help="200 on the simulation, 10 on the real backend when absent")
    parser.add_argument("--clients", type=int)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(2)), help="repeats the choices")
    told = parser.parse_args()
    base = SIM if told.backend == "sim" else REAL
    kills = base.kills if told.kills is None else told.kills
    torment = replace(base, kills=kills, clients=told.clients or base.clients)
    print(f"torture: {torment.kills} kills, backend {told.backend}, seed {told.seed}", flush=True)
    if told.backend == "sim":
        place = Path(tempfile.mkdtemp(prefix="iaas-torture-"))
        with _kept_on_failure(place):
            counted = torture_sim(place / "state", torment, seed=told.seed)
        _remove(place)
    else:
        from tests.chaos.torture_real import torture_real

        counted = torture_real(torment, seed=told.seed)
    print(json.dumps(counted))


def _remove(place: Path) -> None:
    import shutil

    shutil.rmtree(place)


if __name__ == "__main__":
    main()
