from __future__ import annotations

import json
from pathlib import Path

import pytest

from iaas.client import ConfigurationError, find_credentials


def write(path: Path, **content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_arguments_come_before_environment_before_file(tmp_path: Path) -> None:
    file = write(tmp_path / "c.json", endpoint="http://file:1", api_token="file-token", zone="zone-a")
    env = {"IAAS_CREDENTIALS": str(file), "HOME": str(tmp_path)}
    assert find_credentials(environ=env).endpoint == "http://file:1"
    assert find_credentials(environ=env).api_token == "file-token"
    env |= {"IAAS_ENDPOINT": "http://env:1", "IAAS_TOKEN": "env-token"}
    found = find_credentials(environ=env)
    assert (found.endpoint, found.api_token, found.zone) == ("http://env:1", "env-token", "zone-a")
    found = find_credentials("http://arg:1/", "arg-token", environ=env)
    assert (found.endpoint, found.api_token) == ("http://arg:1", "arg-token")


def test_file_argument_comes_before_the_variable(tmp_path: Path) -> None:
    named = write(tmp_path / "named.json", endpoint="http://named:1")
    other = write(tmp_path / "other.json", endpoint="http://other:1")
    found = find_credentials(credentials_file=named, environ={"IAAS_CREDENTIALS": str(other)})
    assert found.endpoint == "http://named:1"


def test_default_file_is_used_and_need_not_be_there(tmp_path: Path) -> None:
    env = {"XDG_CONFIG_HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}
    with pytest.raises(ConfigurationError, match="no endpoint is known"):
        find_credentials(environ=env)
    write(tmp_path / "iaas" / "credentials.json", endpoint="http://default:1")
    assert find_credentials(environ=env).endpoint == "http://default:1"


def test_local_server_of_the_default_folder_is_found_after_ones_own_file(tmp_path: Path) -> None:
    env = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_STATE_HOME": str(tmp_path / "state")}
    write(tmp_path / "state" / "iaas" / "credentials.json", endpoint="http://local:1")
    assert find_credentials(environ=env).endpoint == "http://local:1"
    write(tmp_path / "config" / "iaas" / "credentials.json", endpoint="http://own:1")
    assert find_credentials(environ=env).endpoint == "http://own:1"


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "\udcff"])
def test_broken_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "c.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigurationError, match=r"c\.json"):
        find_credentials(credentials_file=file, environ={})


def test_file_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no credentials file"):
        find_credentials("http://x:1", credentials_file=tmp_path / "none.json", environ={})


@pytest.mark.parametrize(
    "endpoint", ["127.0.0.1:80", "ftp://x", "http://", "http://x:y", "http://x:99999", "http://[::1"]
)
def test_bad_endpoint_is_refused(endpoint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not a URL"):
        find_credentials(endpoint, environ={"XDG_CONFIG_HOME": str(tmp_path)})


@pytest.mark.parametrize("token", ["a b", "a\nb", "ä", " "])
def test_bad_token_is_refused(token: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="token"):
        find_credentials("http://x:1", token, environ={"XDG_CONFIG_HOME": str(tmp_path)})


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    assert "hush" not in repr(find_credentials("http://x:1", "hush", environ={"XDG_CONFIG_HOME": str(tmp_path)}))
