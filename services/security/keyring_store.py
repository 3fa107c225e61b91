"""Secrets in the platform's keyring: Secret Service or KWallet, the macOS keychain, Windows credentials.

Every call runs in a daemon thread with a time limit: a locked keyring opens a window and blocks until
somebody answers it, and on a server nobody does. A thread left behind that way ends with the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from services.blocking import in_daemon_thread
from services.errors import Category, ServiceError, VaultLocked
from services.security.redaction import redact, remember_secret
from services.security.store import Unpicklable

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

T = TypeVar("T")
TIME_LIMIT = 10.0
"""Seconds for one call. An unanswered window is reported, and the next call finds it answered."""

# Keyrings of the operating systems; `keyring` itself ships them.
_PLATFORM = ("SecretService", "kwallet", "libsecret", "macOS", "Windows")
# These keep secrets in clear or in a file of their own, or ask on the terminal that a screen is using.
_REFUSED = ("keyrings.alt", "keyrings.cryptfile", "keyring.backends.fail", "keyring.backends.null")
_NAMES = {
    "SecretService": "Secret Service",
    "kwallet": "KWallet",
    "libsecret": "Secret Service",
    "macOS": "macOS keychain",
    "Windows": "Windows credentials",
}
_LOCKED = frozenset({"KeyringLocked", "LockedException", "PromptDismissedException", "KeyringDenied"})
_ABSENT = frozenset({"NoKeyringError", "InitError", "SecretServiceNotAvailableException"})


def choose_backend() -> KeyringBackend:
    """The keyring to use. Imports `keyring`; blocks. Raises ServiceError where there is no real one.

    One set on purpose (keyringrc.cfg, PYTHON_KEYRING_BACKEND) is taken unless it is one that hides
    nothing; of several found ones, the platform's own.
    """
    import keyring

    found = keyring.get_keyring()
    several: list[KeyringBackend] = getattr(found, "backends", None) or [found]
    usable = [backend for backend in several if not type(backend).__module__.startswith(_REFUSED)]
    ours = [backend for backend in usable if type(backend).__module__.rpartition(".")[2] in _PLATFORM]
    for backend in [*ours, *usable]:
        return backend
    name = type(several[0]).__module__
    if name == "keyring.backends.fail":
        raise _absent("no keyring was found on this machine")
    raise _absent(f"the only keyring found ({name}) does not protect what it stores")


def backend_label(backend: KeyringBackend) -> str:
    """`keyring (Secret Service)`."""
    module = type(backend).__module__.rpartition(".")[2]
    return f"keyring ({_NAMES.get(module, module)})"


class KeyringStore(Unpicklable):
    """The platform's keyring under one service name. `choose` is for tests."""

    kind = "keyring"

    def __init__(
        self,
        service: str = "callboard",
        *,
        time_limit: float = TIME_LIMIT,
        choose: Callable[[], KeyringBackend] = choose_backend,
        on_stored: Callable[[], None] | None = None,
    ) -> None:
        self._service = service
        self._time_limit = time_limit
        self._choose = choose
        self._on_stored = on_stored
        self._backend: KeyringBackend | None = None
        self._locked = False

    def __repr__(self) -> str:
        return f"KeyringStore({self._service!r})"

    @property
    def label(self) -> str:
        return "keyring" if self._backend is None else backend_label(self._backend)

    @property
    def locked(self) -> bool:
        """Whether the last call found the keyring locked."""
        return self._locked

    def use_backend_of(self, other: KeyringStore) -> None:
        """Take the backend that another store has chosen already."""
        self._backend = other._backend

    async def unlock(self, passphrase: str) -> None:
        """A keyring asks for its own password: this only tries whether it is open by now."""
        await self.get("unlock")

    async def get(self, name: str) -> str | None:
        value = await self._call(lambda backend: backend.get_password(self._service, name))
        if value is not None:
            remember_secret(value)
        return value

    async def set(self, name: str, value: str) -> None:
        remember_secret(value)
        await self._call(lambda backend: backend.set_password(self._service, name, value))
        if self._on_stored is not None:
            await asyncio.to_thread(self._on_stored)

    async def delete(self, name: str) -> None:
        def remove(backend: KeyringBackend) -> None:
            if backend.get_password(self._service, name) is not None:
                backend.delete_password(self._service, name)

        await self._call(remove)

    async def probe(self) -> None:
        """Write, read and remove an entry of a random name, within one time limit."""
        name, value = f"probe/{secrets.token_hex(4)}", secrets.token_hex(16)

        def round_trip(backend: KeyringBackend) -> bool:
            backend.set_password(self._service, name, value)
            try:
                return backend.get_password(self._service, name) == value
            finally:
                with contextlib.suppress(Exception):
                    backend.delete_password(self._service, name)

        if not await self._call(round_trip):
            raise ServiceError(
                f"The {self.label} does not give back what was stored in it",
                advice='Set secret_store = "file" to use an encrypted file instead',
                code="keyring_failed",
            )

    async def _call(self, work: Callable[[KeyringBackend], T]) -> T:
        def run() -> T:
            if self._backend is None:
                self._backend = self._choose()
            return work(self._backend)

        try:
            result = await in_daemon_thread(run, self._time_limit, name="callboard-keyring")
        except TimeoutError:
            self._locked = True
            raise self._silent() from None
        except ServiceError:
            raise
        except Exception as error:
            failure = self._failure(error)
            self._locked = isinstance(failure, VaultLocked)
            # The original may carry the value in its frames or text: it is not chained.
            raise failure from None
        self._locked = False
        return result

    def _silent(self) -> ServiceError:
        return ServiceError(
            f"The {self.label} did not answer within {self._time_limit:g} seconds; "
            "it may be waiting for its password in a window",
            category=Category.TIMEOUT,
            advice='Answer that window and try again; without a desktop, set secret_store = "file"',
            code="keyring_silent",
        )

    def _failure(self, error: Exception) -> ServiceError:
        names = {kind.__name__ for kind in type(error).__mro__}
        text = redact(str(error)).strip().rstrip(".")
        if names & _LOCKED or "IsLocked" in text:
            return VaultLocked(
                f"The {self.label} is locked",
                advice='Unlock it and try again; without a desktop, set secret_store = "file"',
                code="keyring_locked",
            )
        if names & _ABSENT:
            return _absent("its service is not running or cannot be reached")
        detail = text.splitlines()[0][:200] if text else "it gave no reason"
        return ServiceError(
            f"The {self.label} refused: {detail}",
            advice='Run callboard doctor, or set secret_store = "file" to use an encrypted file',
            code="keyring_failed",
        )


def _absent(reason: str) -> ServiceError:
    return ServiceError(
        f"The keyring cannot be used: {reason}",
        advice='Start a keyring service, or set secret_store = "file" to use an encrypted file',
        code="keyring_unavailable",
    )
