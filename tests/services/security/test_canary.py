"""One key, given to every kind of store, looked for wherever it must not be."""

from __future__ import annotations

import io
import logging
import pickle
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from keyring.backend import KeyringBackend
from keyring.errors import PasswordSetError

from services.errors import ServiceError
from services.security import (
    FileStore,
    KeyringStore,
    MemoryStore,
    RedactingFilter,
    Secret,
    SecretStore,
    open_store,
    vault,
)

CANARY = "canary-4f1c9e77-in-the-mine"
PASSPHRASE = "passphrase-canary-8812"


class TalkativeKeyring(KeyringBackend):
    """A backend that puts what it was given into its errors."""

    priority = 1

    def __init__(self) -> None:
        self.held: dict[tuple[str, str], str] = {}
        self.failing = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.failing:
            raise RuntimeError(f"cannot give {self.held}")
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        if self.failing:
            raise PasswordSetError(f"cannot store {password!r}")
        self.held[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.held[service, username]


async def stores(tmp_path: Path) -> list[SecretStore]:
    backend = TalkativeKeyring()
    file = FileStore(tmp_path / "secrets.json")
    await file.unlock(PASSPHRASE)
    return [MemoryStore(), file, KeyringStore(choose=lambda: backend)]


async def provoke(store: SecretStore, tmp_path: Path) -> list[BaseException]:
    """Errors of all kinds that happen with the key in hand."""
    errors: list[BaseException] = []
    try:
        pickle.dumps(store)
    except TypeError as error:
        errors.append(error)
    else:
        pytest.fail("a store must not be pickled")
    if isinstance(store, KeyringStore):
        store._backend.failing = True  # type: ignore[union-attr]
    if isinstance(store, FileStore):
        (tmp_path / "secrets.json").write_text("{}")
    if not isinstance(store, MemoryStore):
        for call in (store.set("connection/2", CANARY), store.get("connection/1"), store.probe()):
            with pytest.raises(ServiceError) as caught:
                await call
            errors.append(caught.value)
    return errors


async def test_the_key_is_nowhere_in_clear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(vault, "_N", 2**10)
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.addFilter(RedactingFilter())
    logging.getLogger().addHandler(handler)
    try:
        for store in await stores(tmp_path):
            await store.set("connection/1", CANARY)
            assert await store.get("connection/1") == CANARY
            for file in tmp_path.rglob("*"):
                assert CANARY.encode() not in file.read_bytes()
                assert PASSPHRASE.encode() not in file.read_bytes()
            print(repr(store), str(store), store.label, vars(store))
            for error in await provoke(store, tmp_path):
                print("".join(traceback.format_exception(error)), repr(error), error.args, vars(error))
                logging.getLogger("callboard").error("with %s", CANARY, exc_info=error)
    finally:
        logging.getLogger().removeHandler(handler)
    shown = out.getvalue() + "".join(capsys.readouterr())
    assert "with ****" in shown
    assert CANARY not in shown
    assert PASSPHRASE not in shown


def test_a_secret_value_does_not_show_itself() -> None:
    secret = Secret(CANARY)
    assert CANARY not in f"{secret} {secret!r} {[secret]} {vars(type(secret))}"
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    assert secret == Secret(CANARY)
    assert secret != Secret("another value")
    assert secret != CANARY
    assert secret.reveal() == CANARY
    assert bool(secret)
    assert not Secret("")


async def test_a_wrong_passphrase_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault, "_N", 2**10)
    await open_store("file", file=tmp_path / "secrets.json", passphrase=PASSPHRASE)
    with pytest.raises(ServiceError) as caught:
        await open_store("file", file=tmp_path / "secrets.json", passphrase=PASSPHRASE[::-1])
    assert PASSPHRASE[::-1] not in "".join(traceback.format_exception(caught.value))


def test_importing_the_package_loads_no_library() -> None:
    code = (
        "import sys, services.security;"
        "heavy = {'keyring', 'cryptography', 'asyncio', 'logging', 'hashlib', 'secretstorage'};"
        "first = sorted(heavy & set(sys.modules));"
        "from services.security import open_store, FileStore, KeyringStore;"
        "print(first, sorted({'keyring', 'cryptography', 'secretstorage'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"
