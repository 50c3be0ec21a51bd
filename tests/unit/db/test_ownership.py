from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from iaas.db.ownership import ExecutorClaim
from iaas.db.store import Store
from iaas.kernel.clock import CloudClock
from iaas.kernel.errors import Unavailable
from tests.factories import make_cloud, open_cloud

HOLDER = """
import sys, time
from iaas.db.ownership import ExecutorClaim
from iaas.db.store import Store
from iaas.kernel.clock import CloudClock
claim = ExecutorClaim(Store(sys.argv[1], CloudClock()))
claim.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_executor_on_the_same_database_is_refused(tmp_path: Path) -> None:
    with open_cloud(tmp_path) as first:
        first.start()
        second = make_cloud(tmp_path, seed=2)
        with pytest.raises(Unavailable, match="another server works on this database") as caught:
            second.start()
        assert caught.value.code == "database_in_use"
        second.close()
    with open_cloud(tmp_path, seed=3) as third:
        third.start()


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'cloud.db'}"
    store = Store(url, CloudClock())
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        claim = ExecutorClaim(store)
        with pytest.raises(Unavailable):
            claim.acquire()
        holder.kill()
        holder.wait(10)
        claim.acquire()
        claim.release()
        claim.release()
    finally:
        holder.kill()
        holder.communicate(timeout=10)
        store.close()


def test_clouds_in_memory_are_apart() -> None:
    with open_cloud() as one, open_cloud() as two:
        one.start()
        two.start()
