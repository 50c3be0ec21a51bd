"""The background's checkpoints: the log comes home while writers go on, and a fault harms nobody."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

from iaas.db.checkpoints import EVERY_COMMITS
from iaas.db.repositories import shared
from iaas.db.schema import upgrade
from iaas.db.store import Store
from iaas.kernel.clock import CloudClock
from tests.factories import wait_for


def write(store: Store, count: int) -> None:
    for number in range(count):
        store.write(lambda tx, number=number: shared.put_setting(tx, "n", str(number)))  # type: ignore[misc]  # bound now


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "checkpoints"]


def test_the_log_comes_home_without_a_writer_doing_it(tmp_path: Path) -> None:
    database = tmp_path / "cloud.db"
    store = Store(f"sqlite:///{database}", CloudClock())
    upgrade(store)
    write(store, EVERY_COMMITS + 1)

    def is_home() -> bool:
        shutil.copyfile(database, tmp_path / "alone.db")  # the database without its log
        alone = Store(f"sqlite:///{tmp_path / 'alone.db'}", CloudClock())
        try:
            with alone.read() as connection:
                return shared.get_setting(connection, "n") is not None
        except Exception:  # noqa: BLE001 - half copied just now: asked again
            return False
        finally:
            alone.close()

    wait_for(is_home)
    store.close()
    assert threads() == []


def test_a_file_that_is_away_ends_no_checkpointer(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'cloud.db'}", CloudClock())
    upgrade(store)
    checkpointer = store._checkpointer
    assert checkpointer is not None
    (tmp_path / "cloud.db").rename(tmp_path / "away.db")
    for _ in range(EVERY_COMMITS):
        checkpointer.count_commit()
    assert not (tmp_path / "cloud.db").exists()
    (tmp_path / "away.db").rename(tmp_path / "cloud.db")
    assert threads() == ["checkpoints"]
    store.close()
    assert threads() == []


def test_few_commits_need_no_thread(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'cloud.db'}", CloudClock())
    upgrade(store)
    write(store, 3)
    assert threads() == []
    store.close()
