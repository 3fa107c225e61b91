# ruff: noqa: ASYNC220 - a test may block its own loop
from __future__ import annotations

import asyncio
import copy
import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from services.errors import Category, ServiceError, UsageError, VaultLocked
from services.security import FileStore, vault

PASSPHRASE = "correct horse battery"


@pytest.fixture(autouse=True)
def quick_derivation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parameters are stored in the file, so cheap ones exercise the same code."""
    monkeypatch.setattr(vault, "_N", 2**10)
    monkeypatch.setattr(vault, "_P", 1)


async def opened(file: Path, passphrase: str = PASSPHRASE, service: str = "callboard") -> FileStore:
    store = FileStore(file, service=service)
    await store.unlock(passphrase)
    return store


def document(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(file.read_text())
    return loaded


async def test_round_trip_survives_a_new_process_view(tmp_path: Path) -> None:
    file = tmp_path / "data" / "secrets.json"
    store = FileStore(file)
    assert store.locked
    assert store.is_new
    await store.unlock(PASSPHRASE)
    await store.set("connection/1", "value one")
    await store.set("connection/2", "wörter 🔑 \x00 \udcff")
    await store.set("connection/1", "value two")
    other = await opened(file)
    assert not other.is_new
    assert await other.get("connection/1") == "value two"
    assert await other.get("connection/2") == "wörter 🔑 \x00 \udcff"
    assert await other.get("connection/3") is None
    await other.delete("connection/1")
    await other.delete("connection/1")
    assert await store.get("connection/1") is None
    await store.probe()
    assert list(document(file)["entries"]) == ["callboard:connection/2"]


async def test_file_and_directory_are_private(tmp_path: Path) -> None:
    file = tmp_path / "data" / "secrets.json"
    await (await opened(file)).set("a", "a value")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in file.parent.iterdir())


async def test_a_locked_store_says_so(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "secrets.json")
    for call in (store.get("a"), store.set("a", "secret value"), store.delete("a"), store.probe()):
        with pytest.raises(VaultLocked) as caught:
            await call
        assert "CALLBOARD_PASSPHRASE" in caught.value.advice
    assert not store.file.exists()


async def test_a_wrong_passphrase_is_told_at_once_and_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    await (await opened(file)).set("a", "secret value")
    before = file.read_bytes()
    store = FileStore(file)
    with pytest.raises(ServiceError) as caught:
        await store.unlock("correct horse")
    assert (caught.value.category, caught.value.code) == (Category.AUTHENTICATION, "wrong_passphrase")
    assert store.locked
    assert file.read_bytes() == before
    with pytest.raises(UsageError):
        await store.unlock("")


async def test_the_same_letters_in_another_composition_open_it(tmp_path: Path) -> None:
    await opened(tmp_path / "secrets.json", "cafe\u0301 au lait")
    await opened(tmp_path / "secrets.json", "caf\u00e9 au lait")


async def test_every_value_gets_its_own_nonce(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    store = await opened(file)
    for name in ("a", "b"):
        await store.set(name, "the same value")
    first = document(file)["entries"]
    await store.set("a", "the same value")
    second = document(file)["entries"]
    nonces = {first["callboard:a"]["nonce"], first["callboard:b"]["nonce"], second["callboard:a"]["nonce"]}
    assert len(nonces) == 3
    assert first["callboard:b"] == second["callboard:b"]


async def test_two_services_do_not_see_each_other(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    one, two = await opened(file), await opened(file, service="callboard-2")
    await one.set("connection/1", "of one")
    await two.set("connection/1", "of two")
    assert (await one.get("connection/1"), await two.get("connection/1")) == ("of one", "of two")
    assert FileStore(file).has_entries()
    assert not FileStore(file, service="third").has_entries()


def _exchange(entries: dict[str, Any]) -> None:
    entries["callboard:a"] = entries["callboard:b"]


def _flip(entries: dict[str, Any]) -> None:
    data = entries["callboard:a"]["data"]
    entries["callboard:a"]["data"] = ("A" if data[0] != "A" else "B") + data[1:]


def _truncate(entries: dict[str, Any]) -> None:
    entries["callboard:a"]["data"] = entries["callboard:a"]["data"][:8]


def _nonce(entries: dict[str, Any]) -> None:
    entries["callboard:a"]["nonce"] = "AAAA"


def _shape(entries: dict[str, Any]) -> None:
    entries["callboard:a"] = [1, 2]


def _not_base64(entries: dict[str, Any]) -> None:
    entries["callboard:a"]["data"] = "ü!"


@pytest.mark.parametrize("change", [_exchange, _flip, _truncate, _nonce, _shape, _not_base64])
async def test_a_changed_entry_is_refused_and_the_others_live(tmp_path: Path, change: Any) -> None:
    file = tmp_path / "secrets.json"
    store = await opened(file)
    await store.set("a", "value of a")
    await store.set("b", "value of b")
    broken = document(file)
    change(broken["entries"])
    file.write_text(json.dumps(broken))
    with pytest.raises(ServiceError) as caught:
        await store.get("a")
    assert caught.value.code == "store_tampered"
    assert "entry a " in caught.value.message
    assert await store.get("b") == "value of b"
    await store.set("c", "value of c")
    assert document(file)["entries"]["callboard:a"] == broken["entries"]["callboard:a"]
    await store.set("a", "a again")
    assert [await store.get(name) for name in "abc"] == ["a again", "value of b", "value of c"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "store_damaged"),
        ("{", "store_damaged"),
        ("[]", "store_damaged"),
        ('{"version": 1}', "store_damaged"),
        ('{"version": 2, "entries": {}}', "store_newer"),
        ('{"version": 1, "entries": {}}', "store_damaged"),
        ('{"version": 1, "entries": {}, "kdf": {"name": "scrypt", "salt": "AAAA"}}', "store_damaged"),
        (
            '{"version":1,"entries":{},"kdf":{"name":"scrypt","n":1073741824,"r":8,"p":1,"salt":"AAAA"}}',
            "store_damaged",
        ),
        ('{"version":1,"entries":{},"kdf":{"name":"md5","n":2,"r":8,"p":1,"salt":"AAAA"}}', "store_damaged"),
        ("[" * 100_000, "store_damaged"),
    ],
)
async def test_a_file_that_cannot_be_used_is_named_and_left_alone(
    tmp_path: Path, text: str, code: str
) -> None:
    file = tmp_path / "secrets.json"
    file.write_text(text)
    with pytest.raises(ServiceError) as caught:
        await opened(file)
    assert caught.value.code == code
    assert str(file) in caught.value.message
    assert file.read_text() == text
    assert FileStore(file).has_entries() == (code == "store_newer" or "entries" not in text)


async def test_a_file_damaged_while_open_is_not_written_over(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    store = await opened(file)
    file.write_text("half of a fi")
    with pytest.raises(ServiceError, match="damaged"):
        await store.set("a", "new value")
    assert file.read_text() == "half of a fi"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
async def test_a_disk_that_refuses_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    file = tmp_path / "secrets.json"
    store = await opened(file)
    await store.set("a", "old value")
    before = file.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(ServiceError) as caught:
            await store.set("a", "new value")
    assert caught.value.advice
    assert file.read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))
    assert await store.get("a") == "old value"


async def test_what_a_killed_writer_left_is_cleared_away(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    store = await opened(file)
    (tmp_path / "secrets.json.abc.tmp").write_text("left over")
    await store.set("a", "a value")
    assert not list(tmp_path.glob("*.tmp"))


async def test_a_replaced_file_locks_the_store_again(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    store = await opened(file)
    await store.set("a", "first file")
    file.unlink()
    with pytest.raises(VaultLocked):
        await store.set("a", "into the void")
    other = await opened(file, "another passphrase")
    await other.set("a", "second file")
    await store_refuses(store)
    assert await other.get("a") == "second file"


async def store_refuses(store: FileStore) -> None:
    with pytest.raises(VaultLocked):
        await store.get("a")


async def test_first_unlocks_at_the_same_time_agree_on_one_file(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    stores = await asyncio.gather(*(opened(file) for _ in range(6)))
    await asyncio.gather(*(store.set(f"n{i}", f"value {i}") for i, store in enumerate(stores)))
    for i in range(6):
        assert await stores[-1 - i].get(f"n{i}") == f"value {i}"


WRITER = """
import asyncio, sys
from pathlib import Path
from services.security import FileStore

async def main():
    store = FileStore(Path(sys.argv[1]))
    await store.unlock(sys.argv[2])
    for i in range(15):
        await store.set(f"{sys.argv[3]}/{i}", f"value {sys.argv[3]} {i}")

asyncio.run(main())
"""


async def test_two_processes_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    store = await opened(file)
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(file), PASSPHRASE, name]) for name in ("x", "y")
    ]
    for writer in writers:
        assert await asyncio.to_thread(writer.wait, 60) == 0
    for name in ("x", "y"):
        for i in range(15):
            assert await store.get(f"{name}/{i}") == f"value {name} {i}"


def test_a_lock_that_is_held_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    with (
        vault.exclusive(file),
        pytest.raises(ServiceError) as caught,
        vault.exclusive(file, wait=0),
    ):
        pytest.fail("two writers at once")
    assert caught.value.code == "store_busy"


@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(), value=st.text(), position=st.integers(min_value=0), bit=st.integers(0, 7))
def test_any_flipped_bit_is_noticed(name: str, value: str, position: int, bit: int) -> None:
    key = vault.VaultKey("salt", b"k" * 32)
    entry = vault.seal(key, name, value)
    assert vault.unseal(key, name, entry) == value
    from base64 import b64decode, b64encode

    raw = bytearray(b64decode(entry["data"]))
    raw[position % len(raw)] ^= 1 << bit
    changed = copy.copy(entry)
    changed["data"] = b64encode(raw).decode()
    with pytest.raises(ValueError, match="does not verify"):
        vault.unseal(key, name, changed)
    with pytest.raises(ValueError, match="does not verify"):
        vault.unseal(key, name + "x", entry)
