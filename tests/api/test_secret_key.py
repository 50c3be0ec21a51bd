"""The key of the secrets is lost, or another: the server says so, and what to do about it."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from iaas.api.app import create_app
from iaas.cloud import Cloud
from iaas.db.repositories.query import Listing
from iaas.kernel.errors import Unavailable
from tests.api.calling import Caller
from tests.api.server_process import refused, running
from tests.factories import CREDENTIALS, TOKEN, make_cloud, open_cloud, operator

GIVEN = {"IAAS_TOKEN": "a-token-that-the-ci-gives", "IAAS_SECRET_ACCESS_KEY": "and-its-secret"}


def fill(folder: Path, database_url: str | None) -> str:
    """Make a cloud with an access key and an answer that is kept encrypted; return the key's id."""
    with open_cloud(folder, database_url=database_url) as cloud:
        key, _ = cloud.identity.create_access_key(operator(cloud), name="ci")
        caller = Caller(create_app(cloud), TOKEN)
        caller.send("POST", "/v1/api_tokens", {"name": "t"}, status=201, headers={"Idempotency-Key": "one"})
    return key.id


def reopen(folder: Path, database_url: str | None, seed: int) -> Cloud:
    return make_cloud(folder, database_url=database_url, seed=seed)


def test_another_key_is_refused_and_the_right_one_is_good_again(tmp_path: Path, database_url: str | None) -> None:
    key_id = fill(tmp_path, database_url)
    path = tmp_path / "secret.key"
    right = path.read_bytes()
    for wrong in (None, b"no key", right[::-1]):
        path.unlink(missing_ok=True)
        if wrong is not None:
            path.write_bytes(wrong)
        with pytest.raises(Unavailable, match="put the right one back") as caught:
            reopen(tmp_path, database_url, 2)
        assert caught.value.code == "secret_key_lost"
        assert path.exists() == (wrong is not None), "no new key was made in silence"
    path.write_bytes(right)
    with open_cloud(tmp_path, database_url=database_url, seed=3) as cloud:
        assert cloud.identity.secret_of(key_id) is not None


def test_with_an_empty_file_in_its_place_it_begins_anew(tmp_path: Path, database_url: str | None) -> None:
    key_id = fill(tmp_path, database_url)
    path = tmp_path / "secret.key"
    path.write_bytes(b"")
    with open_cloud(tmp_path, database_url=database_url, seed=2) as cloud:
        assert cloud.identity.secret_of(key_id) is None
        given = cloud.identity.secret_of(CREDENTIALS.access_key_id)
        assert given is not None
        assert given[1] == CREDENTIALS.secret_access_key
        with cloud.store.read() as connection:
            assert connection.execute(text("SELECT count(*) FROM idempotency_records")).scalar() == 0
        fresh, secret = cloud.identity.create_access_key(operator(cloud), name="ci")
    assert path.stat().st_size
    with open_cloud(tmp_path, database_url=database_url, seed=3) as cloud:
        found = cloud.identity.secret_of(fresh.id)
        assert found is not None
        assert found[1] == secret
        keys, _ = cloud.identity.list_access_keys(operator(cloud), Listing())
        assert {key.id for key in keys} == {fresh.id, CREDENTIALS.access_key_id}


def test_the_server_says_in_one_line_what_to_do(tmp_path: Path) -> None:
    with running(tmp_path, environment=GIVEN):
        pass
    (tmp_path / "secret.key").unlink()
    for environment in (GIVEN, None):
        line = refused(tmp_path, environment=environment)
        assert f"{tmp_path / 'secret.key'} is not the key" in line
        assert "put the right one back from a backup" in line
    (tmp_path / "secret.key").touch()
    with running(tmp_path) as server:
        [key] = server.get("/v1/access_keys")["items"]
        assert key["name"] == "operator"
        assert server.get("/v1/instances")["items"] == []
