"""Secrets in an AES-256-GCM file (see `services.security.vault`), for machines without a keyring."""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path

from services.errors import ServiceError, UsageError, VaultLocked
from services.security import vault
from services.security.redaction import remember_secret
from services.security.store import Unpicklable


class FileStore(Unpicklable):
    """One file, opened by a passphrase that is made at the first `unlock`.

    `service` keeps the entries of several databases apart within the file. Only the derived key is
    held in memory. Reads see what other processes wrote.
    """

    kind = "file"
    label = "encrypted file"

    def __init__(self, file: Path, *, service: str = "callboard") -> None:
        self.file = Path(os.path.realpath(file))
        self._service = service
        self._key: vault.VaultKey | None = None

    def __repr__(self) -> str:
        return f"FileStore({str(self.file)!r}, {'locked' if self.locked else 'open'})"

    @property
    def locked(self) -> bool:
        return self._key is None

    @property
    def is_new(self) -> bool:
        """No file yet: the passphrase given next is the one to remember, so ask for it twice."""
        return not self.file.exists()

    async def unlock(self, passphrase: str) -> None:
        if not passphrase:
            raise UsageError(
                "The passphrase of the encrypted file is empty",
                advice="Choose one of at least a few words; it protects every key in the file",
                code="empty_passphrase",
            )
        remember_secret(passphrase)
        self._key = await asyncio.to_thread(self._open, passphrase)

    async def get(self, name: str) -> str | None:
        value = await asyncio.to_thread(self._read, name)
        if value is not None:
            remember_secret(value)
        return value

    async def set(self, name: str, value: str) -> None:
        remember_secret(value)
        await asyncio.to_thread(self._change, name, value)

    async def delete(self, name: str) -> None:
        await asyncio.to_thread(self._change, name, None)

    async def probe(self) -> None:
        """Write, read and remove an entry, which also proves that the disk takes it."""
        name, value = f"probe/{secrets.token_hex(4)}", secrets.token_hex(16)
        await self.set(name, value)
        try:
            if await self.get(name) != value:
                raise vault.damaged(self.file, "an entry just written reads differently")
        finally:
            await self.delete(name)

    def has_entries(self) -> bool:
        """Whether the file holds anything of this service; False when it cannot be read. Blocks."""
        try:
            document = vault.read(self.file)
        except ServiceError:
            return True  # there is a file, and its trouble must be told instead of starting elsewhere
        return document is not None and any(
            name.startswith(f"{self._service}:") for name in document["entries"]
        )

    # -- in a thread ------------------------------------------------------------------------------

    def _open(self, passphrase: str) -> vault.VaultKey:
        document = vault.read(self.file)
        if document is None:
            with vault.exclusive(self.file):
                document = vault.read(self.file)  # another process may have been first
                if document is None:
                    document, key = vault.create(passphrase)
                    vault.write(self.file, document)
                    return key
        return vault.open_document(document, passphrase, self.file)

    def _read(self, name: str) -> str | None:
        key = self._required()
        document = vault.read(self.file)
        entry = None if document is None else document["entries"].get(self._full(name))
        if document is None or entry is None:
            return None
        self._check_same(key, document)
        try:
            return vault.unseal(key, self._full(name), entry)
        except ValueError:
            raise vault.tampered(self.file, name) from None

    def _change(self, name: str, value: str | None) -> None:
        key = self._required()
        with vault.exclusive(self.file):
            document = vault.read(self.file)
            if document is None:
                self._key = None
                raise self._replaced()
            self._check_same(key, document)
            if value is None:
                if document["entries"].pop(self._full(name), None) is None:
                    return
            else:
                document["entries"][self._full(name)] = vault.seal(key, self._full(name), value)
            vault.write(self.file, document)

    def _required(self) -> vault.VaultKey:
        if self._key is None:
            raise VaultLocked(
                "The keys are in an encrypted file, and its passphrase has not been given",
                advice="Type the passphrase when asked, or set CALLBOARD_PASSPHRASE",
                code="locked",
            )
        return self._key

    def _check_same(self, key: vault.VaultKey, document: dict[str, object]) -> None:
        kdf = document.get("kdf")
        if not isinstance(kdf, dict) or kdf.get("salt") != key.salt:
            self._key = None
            raise self._replaced()

    def _replaced(self) -> VaultLocked:
        return VaultLocked(
            f"The encrypted file {self.file} was replaced or removed since it was opened",
            advice="Give the passphrase of the file that is there now",
            code="locked",
        )

    def _full(self, name: str) -> str:
        return f"{self._service}:{name}"
