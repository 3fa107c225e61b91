"""Secrets: where they are kept, and how they are kept out of everything else.

`open_store` gives the store in force; every secret that is read or stored is remembered by the
redaction, so that a log line or a report never shows it. Importing this package loads nothing: the
keyring and the cryptography library are imported by the calls that need them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from services.security.file_store import FileStore
    from services.security.keyring_store import KeyringStore
    from services.security.opening import open_store, store_at_a_glance
    from services.security.redaction import RedactingFilter, redact, remember_secret, secrets_known
    from services.security.store import MemoryStore, Secret, SecretStore

__all__ = [
    "FileStore",
    "KeyringStore",
    "MemoryStore",
    "RedactingFilter",
    "Secret",
    "SecretStore",
    "open_store",
    "redact",
    "remember_secret",
    "secrets_known",
    "store_at_a_glance",
]

_HOMES = {
    "FileStore": "file_store",
    "KeyringStore": "keyring_store",
    "MemoryStore": "store",
    "RedactingFilter": "redaction",
    "Secret": "store",
    "SecretStore": "store",
    "open_store": "opening",
    "redact": "redaction",
    "remember_secret": "redaction",
    "secrets_known": "redaction",
    "store_at_a_glance": "opening",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
