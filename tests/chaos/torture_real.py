"""The same torture with libvirt and LXD: a deployment of its own, removed without a trace at the end."""

from __future__ import annotations

import fcntl
import os
import random
import re
import string
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from iaas.drivers.linux.cleanup import leftovers, remove_deployment
from tests.chaos.torture import Torment, torture
from tests.real_host import PARENT, reasons_against

# Not the folders of the tests: those count as abandoned whenever no server runs in them, as here after each kill.
LOCK = re.compile(r"^torture-(t[a-z0-9]{3})\.lock$")


def torture_real(torment: Torment, *, seed: int) -> Counter[str]:
    """Run it on a new deployment, and remove that.

    Raises:
        AssertionError: something was lost, doubled or left over.
    """
    reasons = reasons_against()
    assert not reasons, f"no real backend on this host: {'; '.join(reasons)}"
    with own_deployment() as (tag, state_dir):
        options = ("--backend", "real", "--tag", tag, "--virt-type", "qemu", "--zones", "zone-1")
        counted = torture(state_dir, replace(torment, options=options), seed=seed)
        removed = remove_deployment(tag, state_dir)
        assert leftovers(tag, state_dir) == []
        counted["removed"] = len(removed)
        return counted


@contextmanager
def own_deployment() -> Iterator[tuple[str, Path]]:
    """Give a tag and a state folder that nobody else touches as long as this process lives; all is removed then."""
    PARENT.mkdir(mode=0o755, parents=True, exist_ok=True)
    for path in sorted(PARENT.glob("torture-*.lock")):
        _remove_abandoned(path)
    tag = "t" + "".join(random.SystemRandom().choices(string.ascii_lowercase + string.digits, k=3))
    lock = PARENT / f"torture-{tag}.lock"
    handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield tag, PARENT / f"torture-{tag}"
    finally:
        _remove(tag)
        lock.unlink()
        os.close(handle)


def _remove(tag: str) -> None:
    folder = PARENT / f"torture-{tag}"
    remove_deployment(tag, folder)
    (PARENT / f"{folder.name}.log").unlink(missing_ok=True)


def _remove_abandoned(lock: Path) -> None:
    """Remove what a killed run has left; a living one holds its lock."""
    match = LOCK.match(lock.name)
    if match is None:
        return
    handle = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    try:
        with suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(match[1])
            lock.unlink()
    finally:
        os.close(handle)
