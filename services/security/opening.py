"""Which store is in force. The choice is stable: keys stay where the first one was put."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Literal

from services.errors import ServiceError
from services.security.file_store import FileStore
from services.security.keyring_store import KeyringStore
from services.security.store import SecretStore

Choice = Literal["auto", "keyring", "file"]

# The keyrings that answered a probe in this process, by service: a probe is done once.
_working: dict[str, KeyringStore] = {}


async def open_store(
    choice: str, *, file: Path, passphrase: str | None, service: str = "callboard"
) -> SecretStore:
    """The store that the settings ask for; `auto` is the keyring if a real one works, else the file.

    `auto` stays with the file when it already holds keys, and with the keyring when it was used before
    (noted beside the file), even where it does not answer now: starting elsewhere would look as if all
    keys were gone. `service` keeps several databases apart. Without a passphrase a file store comes
    back locked. Raises ServiceError for a keyring that was asked for and does not work, and for a
    wrong passphrase.
    """
    note = file.with_name("secrets.keyring")
    in_file = FileStore(file, service=service)
    in_keyring = KeyringStore(service, on_stored=lambda: _note(note, service))
    if choice == "keyring":
        await _probed(in_keyring, service)
        return in_keyring
    if choice == "auto" and not await asyncio.to_thread(in_file.has_entries):
        noted = await asyncio.to_thread(_is_noted, note, service)
        try:
            await _probed(in_keyring, service)
        except ServiceError as error:
            if noted:
                raise _unreachable(error) from None
        else:
            return in_keyring
    if passphrase:
        await in_file.unlock(passphrase)
    return in_file


def store_at_a_glance(
    choice: str, *, file: Path, passphrase: bool, service: str = "callboard"
) -> tuple[str, bool] | None:
    """What `open_store` will come back with, from the files alone: its label and whether it is locked.

    For the first picture of the console, which waits for no keyring and no key derivation. None where
    only a probe can tell. `passphrase` says whether one is at hand. Blocks; raises nothing.
    """
    in_file = FileStore(file, service=service)
    if choice == "file" or (choice == "auto" and in_file.has_entries()):
        return in_file.label, not passphrase
    if choice == "keyring" or _is_noted(file.with_name("secrets.keyring"), service):
        return KeyringStore(service).label, False
    return None


async def _probed(store: KeyringStore, service: str) -> None:
    known = _working.get(service)
    if known is None:
        await store.probe()
        _working[service] = store
    else:
        store.use_backend_of(known)


def _unreachable(error: ServiceError) -> ServiceError:
    return type(error)(
        f"The keys are in this machine's keyring, which does not work now: {error.message}",
        category=error.category,
        advice=f'{error.advice}. With secret_store = "file" the keys must be entered again',
        code=error.code,
    )


def _note(note: Path, service: str) -> None:
    """Remember beside the encrypted file that this service's keys are in the keyring."""
    if _is_noted(note, service):
        return
    try:
        note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "a", encoding="utf-8") as out:
            out.write(f"{service}\n")
    except OSError:
        return  # a note only: the key itself is stored


def _is_noted(note: Path, service: str) -> bool:
    try:
        return service in note.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False
