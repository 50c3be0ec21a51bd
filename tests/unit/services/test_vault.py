from __future__ import annotations

import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from iaas.kernel.errors import Unavailable
from iaas.services.vault import Vault, VaultAside, new_secret, new_token, token_hash


def test_what_is_encrypted_comes_back_in_another_process(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    encrypted = Vault(path).encrypt("secret é")
    assert b"secret" not in encrypted
    assert Vault(path).decrypt(encrypted) == "secret é"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["secret.key"]


def test_what_a_killed_process_left_half_made_is_no_trap(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    Vault(path).encrypt("x")
    path.rename(path.with_name("secret.key.1.new"))
    assert Vault(path).decrypt(Vault(path).encrypt("x")) == "x"


def test_whoever_comes_first_makes_the_key_for_all(tmp_path: Path) -> None:
    vaults = [Vault(tmp_path / "secret.key") for _ in range(16)]
    with ThreadPoolExecutor(8) as pool:
        encrypted = list(pool.map(lambda vault: vault.encrypt("x"), vaults))
    assert {vaults[0].decrypt(each) for each in encrypted} == {"x"}


def test_a_key_of_its_own_without_a_file() -> None:
    encrypted = Vault(None).encrypt("x")
    with pytest.raises(Unavailable, match="put the right one back"):
        Vault(None).decrypt(encrypted)


def test_a_child_does_the_same(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    encrypted = VaultAside(path).encrypt("secret é")
    assert Vault(path).decrypt(encrypted) == "secret é"
    assert VaultAside(path).decrypt(Vault(path).encrypt("näher")) == "näher"
    with pytest.raises(Unavailable, match="put the right one back"):
        VaultAside(path).decrypt(Vault(None).encrypt("x"))


def test_a_child_that_is_ready_does_the_first_one(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    with closing(VaultAside(path)) as vault:
        vault.get_ready()
        assert Vault(path).decrypt(vault.encrypt("first")) == "first"
        assert Vault(path).decrypt(vault.encrypt("second")) == "second"


def test_a_child_that_nobody_needs_makes_no_key_and_ends(tmp_path: Path) -> None:
    orphan = VaultAside(tmp_path / "secret.key")._child("encrypt")
    assert orphan.communicate(timeout=20)[0] == b""  # its input ends, as if the parent had been killed
    vault = VaultAside(tmp_path / "secret.key")
    vault.get_ready()
    child = vault._ready
    vault.close()
    vault.close()
    assert child is not None
    assert child.returncode is not None
    assert list(tmp_path.iterdir()) == []


def test_without_an_interpreter_to_start_it_is_done_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for executable in ("", str(tmp_path / "none"), "/bin/false"):
        monkeypatch.setattr(sys, "executable", executable)
        assert VaultAside(tmp_path / "key").decrypt(VaultAside(tmp_path / "key").encrypt("x")) == "x"


def test_tokens_are_long_and_different() -> None:
    assert len({new_token() for _ in range(100)} | {new_secret() for _ in range(100)}) == 200
    assert len(new_token()) > 40
    assert token_hash("a") != token_hash("b")


def test_a_file_that_holds_no_key(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    encrypted = Vault(path).encrypt("x")
    path.write_bytes(b"no key")
    with pytest.raises(Unavailable, match="put the right one back"):
        Vault(path).decrypt(encrypted)
