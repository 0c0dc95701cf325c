"""Keys are stored hashed, shown once, and replaced in one step."""

import hashlib
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from ops.failure import Failure
from ops.keystore import KeyStore


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "keys.yaml")


def test_a_key_is_stored_as_its_hash_and_readable_by_its_owner_only(store: KeyStore, tmp_path: Path) -> None:
    plain = store.new("ci", "acme")
    path = tmp_path / "keys.yaml"
    assert plain not in path.read_text()
    digest = hashlib.sha256(plain.encode()).hexdigest()
    assert yaml.safe_load(path.read_text()) == [{"id": "ci", "tenant": "acme", "sha256": digest}]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_id_is_taken_once(store: KeyStore) -> None:
    store.new("ci", "acme")
    with pytest.raises(Failure, match="already"):
        store.new("ci", "other")
    assert [key.tenant for key in store.list()] == ["acme"]


@pytest.mark.parametrize("name", ["", "a b", "-x", "x" * 65, "line\nbreak"])
def test_a_malformed_name_is_refused_and_nothing_is_written(store: KeyStore, tmp_path: Path, name: str) -> None:
    with pytest.raises(Failure, match="not a name"):
        store.new(name, "acme")
    with pytest.raises(Failure, match="not a name"):
        store.new("ci", name)
    assert not (tmp_path / "keys.yaml").exists()


def test_revoking_takes_one_key_and_an_unknown_one_is_named(store: KeyStore) -> None:
    store.new("a", "t")
    store.new("b", "t")
    store.revoke("a")
    assert [key.id for key in store.list()] == ["b"]
    with pytest.raises(Failure, match="there are: b"):
        store.revoke("a")


def test_a_broken_file_says_what_to_do(store: KeyStore, tmp_path: Path) -> None:
    (tmp_path / "keys.yaml").write_text("- {id: a}\n")
    with pytest.raises(Failure, match="tenant") as caught:
        store.list()
    assert "headrace keys new" in caught.value.next_step


def test_the_development_key_lasts_until_its_file_or_entry_is_gone(store: KeyStore, tmp_path: Path) -> None:
    plain_file = tmp_path / "dev.key"
    first = store.ensure("dev", "dev", plain_file)
    assert stat.S_IMODE(plain_file.stat().st_mode) == 0o600
    assert store.ensure("dev", "dev", plain_file) == first
    plain_file.unlink()
    second = store.ensure("dev", "dev", plain_file)
    assert second != first
    store.revoke("dev")
    assert store.ensure("dev", "dev", plain_file) not in (first, second)
    assert len(store.list()) == 1


def test_keys_that_are_made_at_once_are_all_there(tmp_path: Path) -> None:
    """Each has a store of its own, as each command has."""
    with ThreadPoolExecutor(8) as pool:
        names = [f"k{i}" for i in range(24)]
        made = list(pool.map(lambda name: KeyStore(tmp_path / "keys.yaml").new(name, "t"), names))
    assert len(set(made)) == len(names)
    assert {key.id for key in KeyStore(tmp_path / "keys.yaml").list()} == set(names)
