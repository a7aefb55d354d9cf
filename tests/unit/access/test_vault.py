"""Sealed secrets: only with the key, only unchanged."""

import stat
import threading
from pathlib import Path

import pytest

from darner.access import SealError, Vault, create_key_file
from darner.core.errors import InvalidInputError


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault.at(tmp_path / "key")


def test_what_was_sealed_opens_and_does_not_show(vault: Vault, tmp_path: Path) -> None:
    sealed = vault.seal(b"hunter2 hunter2")
    assert b"hunter2" not in sealed
    assert vault.open(sealed) == b"hunter2 hunter2"
    assert Vault(tmp_path / "key").open(sealed) == b"hunter2 hunter2"
    assert vault.seal(b"hunter2 hunter2") != sealed


def test_every_changed_byte_is_noticed(vault: Vault) -> None:
    sealed = vault.seal(b"secret")
    for index in range(len(sealed)):
        broken = bytearray(sealed)
        broken[index] ^= 1
        with pytest.raises(SealError):
            vault.open(bytes(broken))
    for length in range(len(sealed)):
        with pytest.raises(SealError):
            vault.open(sealed[:length])


def test_another_key_does_not_open(vault: Vault, tmp_path: Path) -> None:
    with pytest.raises(SealError):
        Vault.at(tmp_path / "other").open(vault.seal(b"secret"))


def test_a_key_file_is_private_and_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "key"
    create_key_file(file)
    before = file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    create_key_file(file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_many_makers_at_once_agree_on_one_key(tmp_path: Path) -> None:
    file = tmp_path / "key"
    vaults: list[Vault] = []
    threads = [threading.Thread(target=lambda: vaults.append(Vault.at(file))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sealed = vaults[0].seal(b"x")
    assert [one.open(sealed) for one in vaults] == [b"x"] * 8


def test_a_key_file_that_others_may_read_or_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    with pytest.raises(InvalidInputError, match="cannot be read"):
        Vault(file)
    create_key_file(file)
    file.chmod(0o640)
    with pytest.raises(InvalidInputError, match="chmod 600"):
        Vault(file)
    file.write_text("short")
    file.chmod(0o600)
    with pytest.raises(InvalidInputError, match="not a key file"):
        Vault(file)
