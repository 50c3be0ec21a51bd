from __future__ import annotations

import io
import json
import stat
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run
from tests.unit.client.fake_cloud import FakeCloud, problem


@pytest.mark.parametrize(
    "noun",
    [
        *("image", "flavor", "zone", "host", "project", "api-token", "access-key", "key-pair", "job", "event"),
        *("vpc", "subnet", "nic", "reservation"),
    ],
)
def test_every_noun_lists(run: Run, noun: str) -> None:
    result = run(noun, "list")
    assert result.status == 0
    assert result.out.startswith("ID")


def test_new_private_key_goes_into_a_file_for_us_alone(run: Run, cloud: FakeCloud, tmp_path: Path) -> None:
    out = tmp_path / "key"
    result = run("key-pair", "create", "me", "--out", str(out))
    assert out.read_text() == "PRIVATE\n"
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert "PRIVATE" not in result.out
    assert cloud.body() == {"name": "me"}


def test_file_that_is_there_is_not_overwritten(run: Run, cloud: FakeCloud, tmp_path: Path) -> None:
    out = tmp_path / "key"
    out.write_text("mine")
    result = run("key-pair", "create", "me", "--out", str(out))
    assert (result.status, out.read_text()) == (1, "mine")
    assert cloud.requests == []


def test_refused_key_pair_leaves_no_file(run: Run, cloud: FakeCloud, tmp_path: Path) -> None:
    cloud.answer_next(problem(409, "name_taken"))
    assert run("key-pair", "create", "me", "--out", str(tmp_path / "key")).status == 4
    assert list(tmp_path.iterdir()) == []


def test_public_key_is_read_from_file_or_standard_input(
    run: Run, cloud: FakeCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "id.pub"
    file.write_text("ssh-ed25519 AAAA me\n")
    assert run("key-pair", "create", "me", "--public-key", str(file)).status == 0
    assert cloud.body() == {"name": "me", "public_key": "ssh-ed25519 AAAA me"}
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"ssh-rsa BBBB\n")))
    assert run("key-pair", "create", "you", "--public-key", "-").status == 0
    assert cloud.body()["public_key"] == "ssh-rsa BBBB"


def test_private_key_is_never_sent(run: Run, cloud: FakeCloud, tmp_path: Path) -> None:
    file = tmp_path / "id"
    file.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    result = run("key-pair", "create", "me", "--public-key", str(file))
    assert (result.status, cloud.requests) == (2, [])
    assert "private key" in result.err


def test_tokens_are_shown_once_and_revoked(run: Run, cloud: FakeCloud) -> None:
    result = run("api-token", "create", "ci", "--role", "member", "--expires-at", "2027-01-01", "-o", "json")
    made = json.loads(result.out)
    assert made["token"] == "fresh-token"
    assert cloud.body()["expires_at"] == "2027-01-01T00:00:00.000Z"
    assert run("api-token", "delete", made["id"]).status == 0
    assert run("access-key", "create", "k").status == 0


@pytest.mark.parametrize("noun", ["api-token", "access-key"])
def test_credentials_go_by_their_name_too_if_only_one_has_it(run: Run, cloud: FakeCloud, noun: str) -> None:
    for name in ("ci", "ci", "other"):
        run(noun, "create", name)
    held = cloud.plain[noun.replace("-", "_") + "s"]
    first, second, other = (each["id"] for each in held)
    assert json.loads(run(noun, "get", "other", "-o", "json").out)["id"] == other
    assert run(noun, "delete", "other").status == 0
    result = run(noun, "delete", "ci")
    assert result.status == 2
    assert f"2 {noun.replace('-', ' ').replace('api', 'API')}s are named ci" in result.err
    assert f"{first}, {second}" in result.err
    assert [each["id"] for each in held] == [first, second]
    assert run(noun, "delete", first, "ci").status == 0, "of the name there is only one left"
    assert run(noun, "delete", "ci").status == 3
    assert held == []


def test_projects_and_flavors(run: Run, cloud: FakeCloud) -> None:
    assert run("project", "create", "p", "--description", "d").status == 0
    assert run("project", "update", "p", "--name", "q").status == 0
    assert cloud.body() == {"name": "q"}
    assert (
        run(
            "flavor", "create", "big", "--vcpus", "4", "--memory-mib", "4096", "--root-disk-gib", "9", "-o", "json"
        ).status
        == 0
    )
    assert run("flavor", "delete", "big").status == 0


def test_job_wait(run: Run, cloud: FakeCloud) -> None:
    job = cloud.add_job(cloud.add_instance("web"), "instance.stop", {"status": "stopped"})
    result = run("job", "wait", job["id"], "-o", "json")
    assert json.loads(result.out)["status"] == "succeeded"
    assert "instance.stop 1/2 start_machine" in result.err


def test_version(run: Run) -> None:
    assert run("--version").out.startswith("iaas ")


def test_event_filters(run: Run, cloud: FakeCloud) -> None:
    run("event", "list", "--after", "0", "--resource", "i-1")
    assert dict(cloud.requests[-1].url.params) == {"after": "0", "resource_id": "i-1"}
    run("event", "list", "--type", "host.", "--resource-type", "host")
    assert dict(cloud.requests[-1].url.params) == {"type_prefix": "host.", "resource_type": "host"}


def test_health_and_capabilities_need_no_token(run: Run, cloud: FakeCloud) -> None:
    assert json.loads(run("health", "-o", "json", token=None).out) == {"status": "ok", "backend": "sim"}
    assert "vm=exec, console" in run("capabilities", token=None).out
    cloud.answer_next(problem(503, "backend_unavailable", "libvirt is down"))
    assert run("health").status == 6
