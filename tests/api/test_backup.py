"""A copy of a state folder is taken at any moment, and is a cloud again."""

from __future__ import annotations

import io
import json
import stat
import subprocess
import sys
import tarfile
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from iaas.api.backup import MANIFEST, BackupError, back_up, restore
from iaas.db.repositories.query import Listing
from iaas.kernel.clock import CloudClock
from iaas.resources.common import Principal
from iaas.resources.instances import InstanceStatus
from tests.api.server_process import Server
from tests.factories import assert_consistent, create, make_cloud, open_cloud, operator, settle, wait_for, wish


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The folder of a cloud in which something has happened; nobody works on it now."""
    folder = tmp_path / "state"
    folder.mkdir()
    with open_cloud(folder) as cloud:
        create(cloud, name="web", labels={"a": "b"})
        cloud.identity.create_access_key(operator(cloud), name="key")
    return folder


def rewritten(source: Path, target: Path, **changes: bytes | None) -> Path:
    """Write a copy with other contents: by the stem of the member; None leaves it out."""
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for member in old.getmembers():
            content = changes.get(Path(member.name).stem, b"")
            if content is None:
                continue
            data = content or old.extractfile(member).read()  # type: ignore[union-attr]  # all members are files
            member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    return target


def test_a_restored_cloud_is_the_same(state: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.tar"
    back_up(state, copy)
    restore(copy, tmp_path / "again")
    with open_cloud(state, seed=2) as old, open_cloud(tmp_path / "again", seed=3) as new:
        found = [cloud.instances.get(operator(cloud), "web") for cloud in (old, new)]
        assert found[0] == found[1]
        assert found[1].status == InstanceStatus.RUNNING
        settle(new)
        assert_consistent(new)
        keys, _ = new.identity.list_access_keys(operator(new), Listing())
        assert all(new.identity.secret_of(key.id) for key in keys)  # the key of the vault came along


def test_nobody_else_may_read_a_copy_or_what_comes_of_it(state: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.tar"
    back_up(state, copy)
    restore(copy, tmp_path / "again")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "again").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "again").iterdir()} == {0o600}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "copy.tar", "state"]


def test_a_copy_of_a_cloud_at_work_is_consistent_and_goes_on(tmp_path: Path) -> None:
    """Instances come and go all the time; whatever the copies caught half way ends well in each of them."""
    state = tmp_path / "state"
    state.mkdir()
    cloud = make_cloud(state, clock=CloudClock())
    cloud.start()
    stop = threading.Event()
    made: list[str] = []

    def one_life(who: Principal) -> None:
        (first, _), (second, _) = cloud.instances.create(who, [wish(), wish()], is_batch=True)
        made.extend([first.id, second.id])
        wait_for(lambda: cloud.instances.get(who, first.id).transition is None, what="a running instance")
        cloud.instances.delete(who, first.id)

    def work() -> None:
        while not stop.is_set():
            one_life(operator(cloud))

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    copies = [tmp_path / f"{number}.tar" for number in range(4)]
    for number, copy in enumerate(copies):
        wait_for(lambda number=number: len(made) > 12 * (number + 1), what="some work")  # type: ignore[misc]  # bound now
        back_up(state, copy)
    stop.set()
    for worker in workers:
        worker.join(30)
    cloud.close()
    counts = []
    for number, copy in enumerate(copies):
        folder = tmp_path / f"again-{number}"
        restore(copy, folder)
        with open_cloud(folder, clock=CloudClock(start=datetime.now(UTC), scale=0), seed=number + 2) as again:
            again.executor.recover()
            settle(again)
            assert_consistent(again)
            with again.store.read() as connection:
                counts.append(connection.exec_driver_sql("SELECT count(*) FROM instances").scalar_one())
    assert counts == sorted(counts)
    assert counts[0] > 0


def test_a_copy_is_never_written_over_a_file(state: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.tar"
    copy.write_text("mine")
    with pytest.raises(BackupError, match="exists already"):
        back_up(state, copy)
    assert copy.read_text() == "mine"


@pytest.mark.parametrize("missing", ["cloud.db", "sim.db"])
def test_what_is_no_state_of_a_simulated_cloud_is_not_copied(state: Path, tmp_path: Path, missing: str) -> None:
    (state / missing).unlink()
    with pytest.raises(BackupError, match=missing):
        back_up(state, tmp_path / "copy.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_folder_with_something_in_it_is_not_restored_into(state: Path, tmp_path: Path) -> None:
    back_up(state, tmp_path / "copy.tar")
    before = {path.name: path.read_bytes() for path in state.iterdir()}
    with pytest.raises(BackupError, match="not empty"):
        restore(tmp_path / "copy.tar", state)
    assert {path.name: path.read_bytes() for path in state.iterdir()} == before


@pytest.mark.parametrize(
    "changes",
    [
        {"cloud": None},
        {"manifest": None},
        {"manifest": b"{"},
        {"manifest": b"[]"},
        {"manifest": json.dumps({"format": 2, "files": []}).encode()},
        {"manifest": json.dumps({"format": 1, "files": ["cloud.db", "sim.db", "../evil"]}).encode()},
        {"manifest": json.dumps({"format": 1, "files": ["sim.db"]}).encode()},
        {"cloud": b"no database at all" * 100},
        {"sim": b"SQLite format 3\x00" + b"x" * 5000},
    ],
    ids=str,
)
def test_what_is_no_copy_leaves_nothing_behind(state: Path, tmp_path: Path, changes: dict[str, bytes | None]) -> None:
    back_up(state, tmp_path / "copy.tar")
    bad = rewritten(tmp_path / "copy.tar", tmp_path / "bad.tar", **changes)
    with pytest.raises(BackupError):
        restore(bad, tmp_path / "again")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.tar", "copy.tar", "state"]


def test_a_cut_off_copy_is_refused(state: Path, tmp_path: Path) -> None:
    back_up(state, tmp_path / "copy.tar")
    whole = (tmp_path / "copy.tar").read_bytes()
    (tmp_path / "bad.tar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BackupError):
        restore(tmp_path / "bad.tar", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_the_manifest_comes_first_and_names_the_files(state: Path, tmp_path: Path) -> None:
    back_up(state, tmp_path / "copy.tar")
    with tarfile.open(tmp_path / "copy.tar") as archive:
        assert archive.getnames()[0] == MANIFEST
        manifest = json.load(archive.extractfile(MANIFEST))  # type: ignore[arg-type]  # a file, as all of them
    assert manifest["files"] == ["cloud.db", "sim.db", "secret.key"]


KEPT = ("id", "name", "status", "host_id", "nics", "created_at")


def iaas(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "iaas.cli", *map(str, arguments)], capture_output=True, text=True, timeout=60, cwd="/"
    )


def test_the_commands_copy_a_running_server_and_start_another_from_it(tmp_path: Path) -> None:
    state, copy, again = tmp_path / "state", tmp_path / "copy.tar", tmp_path / "again"
    server = Server(state)
    try:
        body = {"kind": "container", "image": "tiny", "flavor": "nano", "name": "web"}
        job = server.post("/v1/instances", body)["job"]
        server.get(f"/v1/jobs/{job['id']}", wait=30)
        kept = server.get("/v1/instances/web")
        done = iaas("backup", "--state", state, "--to", copy)
        assert (done.returncode, done.stderr) == (0, "")
        server.post("/v1/instances", {**body, "name": "later"})
        token = server.token
    finally:
        server.stop()
    assert iaas("restore", copy, "--state", again).returncode == 0
    refused = iaas("restore", copy, "--state", again)
    assert refused.returncode != 0
    assert "not empty" in refused.stderr
    server = Server(again)
    try:
        assert server.token == token
        found = server.get("/v1/instances/web")
        assert [found[name] for name in KEPT] == [kept[name] for name in KEPT]
        assert [each["name"] for each in server.get("/v1/instances")["items"]] == ["web"]
    finally:
        server.stop()
