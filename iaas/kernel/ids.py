"""Ids of resources: a kind prefix, a dash, eight of ``[a-z0-9]`` (``i-4kq0ygtz``).

The suffix alone goes into the names of real objects (links have fifteen characters at most), and a
dialect may put another prefix before the same suffix.
"""

from __future__ import annotations

import random
import re
import secrets

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
SUFFIX_LENGTH = 8
_PAIRS = [first + second for first in ALPHABET for second in ALPHABET]
ID_PATTERN = re.compile(r"[a-z]{1,8}-[a-z0-9]{8}\Z")  # $ would let a newline at the end through

INSTANCE = "i"
IMAGE = "img"
FLAVOR = "flv"
KEY_PAIR = "key"
JOB = "job"
EVENT = "evt"
PROJECT = "proj"
API_TOKEN = "tok"  # noqa: S105 - a prefix, not a secret
ACCESS_KEY = "ak"
HOST = "host"
VPC = "vpc"
SUBNET = "net"
NIC = "nic"
ADDRESS_RESERVATION = "rsv"
ROUTE = "rt"
DNS_RECORD = "dns"
REQUEST = "req"


class IdSource:
    """Makes ids and MAC addresses; one per cloud, so that a seed gives the same ids again.

    Args:
        seed: equal seeds give equal sequences (tests, the lab); unpredictable when absent.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._random: random.Random = secrets.SystemRandom() if seed is None else random.Random(seed)  # noqa: S311 - a seed asks for repeatable ids, these are no secrets
        self._seed = seed

    def generator(self, name: str) -> random.Random:
        """Return a generator of its own for ``name``, as repeatable as the ids are and independent of them."""
        return random.Random() if self._seed is None else random.Random(f"{self._seed}/{name}")  # noqa: S311 - for jitter and the like, never for secrets

    def new(self, prefix: str) -> str:
        """Return a fresh id such as ``vol-4kq0ygtz``."""
        number = self._random.getrandbits(64)  # one call is one piece of randomness, whichever threads ask
        pairs = []
        for _ in range(SUFFIX_LENGTH // 2):
            number, pair = divmod(number, len(_PAIRS))
            pairs.append(_PAIRS[pair])
        return f"{prefix}-{''.join(pairs)}"

    def mac(self) -> str:
        """Return a locally administered unicast MAC address, lower case, in the range QEMU and LXD guests use."""
        return "52:54:" + self._random.getrandbits(32).to_bytes(4).hex(":")


def suffix(resource_id: str) -> str:
    """Return the part after the dash: ``suffix("i-4kq0ygtz") == "4kq0ygtz"``."""
    return resource_id.rpartition("-")[2]
