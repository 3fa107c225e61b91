"""The encrypted file: its format and its cryptography. Everything here blocks; call it from a thread.

The file is JSON:

    {"version": 1,
     "kdf": {"name": "scrypt", "n": 32768, "r": 8, "p": 3, "salt": BASE64},
     "verifier": {"nonce": BASE64, "data": BASE64},
     "entries": {NAME: {"nonce": BASE64, "data": BASE64}, …}}

Each `data` is AES-256-GCM under the key that scrypt makes of the passphrase, with a fresh 96-bit nonce.
The file's version and the entry's name are authenticated with it, so entries cannot be exchanged.
The verifier is an empty text sealed under a name no entry can have: it tells a wrong passphrase.
"""

from __future__ import annotations

import binascii
import contextlib
import errno
import hashlib
import json
import os
import tempfile
import time
import unicodedata
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.errors import Category, ServiceError

VERSION = 1
_VERIFIER = ""
_KEY_BYTES = 32
_NONCE_BYTES = 12
# 32 MB and about a fifth of a second: strong enough, and small beside what the program needs anyway.
_N, _R, _P = 2**15, 8, 3
# A changed file must not be able to ask for gigabytes.
_MOST_MEMORY = 256 * 1024 * 1024
LOCK_SECONDS = 10.0


@dataclass(frozen=True)
class VaultKey:
    """The derived key and the salt it belongs to."""

    salt: str
    key: bytes = field(repr=False)


class WrongPassphrase(ServiceError):
    """The passphrase is not the one this file was made with."""

    def __init__(self, file: Path) -> None:
        super().__init__(
            f"The passphrase does not open the encrypted file {file}",
            category=Category.AUTHENTICATION,
            advice="Type it again, or correct CALLBOARD_PASSPHRASE",
            code="wrong_passphrase",
        )


def damaged(file: Path, reason: str) -> ServiceError:
    """The file is there and cannot be used. Nothing is ever written over such a file."""
    return ServiceError(
        f"The encrypted file {file} is damaged: {reason}",
        advice="Restore it from a backup, or move it away and enter the keys again",
        code="store_damaged",
    )


def tampered(file: Path, name: str) -> ServiceError:
    """One entry does not verify; the others are not touched by that."""
    return ServiceError(
        f"The entry {name} of the encrypted file {file} was changed or damaged outside of Callboard",
        advice="Enter that key again (callboard connection rotate), the other entries are not affected",
        code="store_tampered",
    )


def read(file: Path) -> dict[str, Any] | None:
    """The file's document with its outer shape checked; None when there is no file."""
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _disk_error(file, error, "read") from None
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        raise damaged(file, "it is not valid JSON") from None
    if not isinstance(document, dict) or not isinstance(document.get("version"), int):
        raise damaged(file, "it has no version")
    if document["version"] > VERSION:
        raise ServiceError(
            f"The encrypted file {file} was written by a newer version of Callboard",
            advice="Update Callboard, or point CALLBOARD_HOME elsewhere",
            code="store_newer",
        )
    if document["version"] != VERSION or not isinstance(document.get("entries"), dict):
        raise damaged(file, "parts of it are missing")
    return document


def create(passphrase: str) -> tuple[dict[str, Any], VaultKey]:
    """A new document without entries, and its key."""
    kdf = {"name": "scrypt", "n": _N, "r": _R, "p": _P, "salt": _text(os.urandom(16))}
    document: dict[str, Any] = {"version": VERSION, "kdf": kdf, "entries": {}}
    key = VaultKey(str(kdf["salt"]), _derive(passphrase, kdf))
    document["verifier"] = seal(key, _VERIFIER, "")
    return document, key


def open_document(document: dict[str, Any], passphrase: str, file: Path) -> VaultKey:
    """The key that the passphrase makes. Raises WrongPassphrase."""
    kdf = document.get("kdf")
    try:
        key = VaultKey(str(kdf["salt"]), _derive(passphrase, kdf))  # type: ignore[index, arg-type]
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise damaged(file, "how its key is derived cannot be read") from None
    try:
        unseal(key, _VERIFIER, document.get("verifier"))
    except ValueError:
        raise WrongPassphrase(file) from None
    return key


def _derive(passphrase: str, kdf: dict[str, Any]) -> bytes:
    n, r, p = (int(kdf[name]) for name in ("n", "r", "p"))
    memory = 128 * r * (n + p + 2)
    if kdf["name"] != "scrypt" or not (0 < memory <= _MOST_MEMORY) or not 0 < p <= 16:
        raise ValueError("parameters out of bounds")
    # One spelling of an accented letter, whatever keyboard or terminal it came from.
    secret = unicodedata.normalize("NFC", passphrase).encode("utf-8", "surrogateescape")
    salt = b64decode(kdf["salt"], validate=True)
    return hashlib.scrypt(secret, salt=salt, n=n, r=r, p=p, maxmem=memory + 1024 * 1024, dklen=_KEY_BYTES)


def seal(key: VaultKey, name: str, value: str) -> dict[str, str]:
    """One encrypted entry."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = os.urandom(_NONCE_BYTES)
    data = AESGCM(key.key).encrypt(nonce, value.encode("utf-8", "surrogatepass"), _bound_to(name))
    return {"nonce": _text(nonce), "data": _text(data)}


def unseal(key: VaultKey, name: str, entry: object) -> str:
    """The entry's text. Raises ValueError when it does not verify, whatever the reason."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        nonce, data = (b64decode(entry[part], validate=True) for part in ("nonce", "data"))  # type: ignore[index]
        if len(nonce) != _NONCE_BYTES:
            raise ValueError
        return AESGCM(key.key).decrypt(nonce, data, _bound_to(name)).decode("utf-8", "surrogatepass")
    except (InvalidTag, KeyError, TypeError, ValueError):
        raise ValueError("does not verify") from None


def _bound_to(name: str) -> bytes:
    return f"callboard-secrets/{VERSION}\0{name}".encode()


def _text(raw: bytes) -> str:
    return b64encode(raw).decode("ascii")


# -- the disk -------------------------------------------------------------------------------------


def write(file: Path, document: dict[str, Any]) -> None:
    """Replace the file in one step: a crash or a full disk leaves the old one. Hold `exclusive`."""
    text = json.dumps(document, indent=1, sort_keys=True).encode()
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f"{file.name}.", suffix=".tmp", dir=file.parent)  # 0600
        with os.fdopen(handle, "wb") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, file)
        _sync_directory(file.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise _disk_error(file, error, "written") from None


def _sync_directory(directory: Path) -> None:
    if os.name == "nt":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def exclusive(file: Path, wait: float = LOCK_SECONDS) -> Iterator[None]:
    """One writer at a time over all processes: a lock on a file beside it, waited for `wait` seconds."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(file.with_name(f"{file.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _disk_error(file, error, "written") from None
    try:
        _acquire(handle, file, wait)
        for left_over in file.parent.glob(f"{file.name}.*.tmp"):  # of a process killed while writing
            with contextlib.suppress(OSError):
                left_over.unlink()
        yield
    finally:
        os.close(handle)  # releases the lock


def _acquire(handle: int, file: Path, wait: float) -> None:
    deadline = time.monotonic() + wait
    while not _try_lock(handle):
        if time.monotonic() >= deadline:
            raise ServiceError(
                f"The encrypted file {file} is being written by another program for too long",
                category=Category.TIMEOUT,
                advice="Close other Callboard windows that wait for something, then try again",
                code="store_busy",
            )
        time.sleep(0.02)


def _try_lock(handle: int) -> bool:
    try:
        if os.name == "nt":  # pragma: no cover
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            return False
        # Some network disks know no locks; the atomic replacement still keeps the file whole.
        return error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
    return True


def _disk_error(file: Path, error: OSError, verb: str) -> ServiceError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason, advice, code = "the disk is full", "Free some space and try again", "disk_full"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        reason, code = "permission is denied or the disk is read-only", "read_only"
        advice = "Give yourself access to it, or point CALLBOARD_HOME to a place that you may write"
    else:
        reason, code = error.strerror or "unknown reason", "disk_error"
        advice = "Check the disk and the path, then try again"
    return ServiceError(
        f"The encrypted file {file} cannot be {verb}: {reason}",
        advice=advice,
        code=code,
    )
