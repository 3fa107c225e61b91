"""What a secret store is, a value that does not show itself, and the store that forgets."""

from __future__ import annotations

import hmac
from typing import NoReturn, Protocol

from services.security.redaction import remember_secret


class Secret:
    """A secret on its way through the program: `reveal` gives it, nothing else does.

    It cannot be pickled or formatted, and is compared in constant time.
    """

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value = value
        remember_secret(value)

    def reveal(self) -> str:
        """The value itself, for the one place that sends or stores it."""
        return self.__value

    def __repr__(self) -> str:
        return "Secret(****)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(
            self.__value.encode("utf-8", "surrogatepass"), other.__value.encode("utf-8", "surrogatepass")
        )

    def __hash__(self) -> int:
        return hash((Secret, self.__value))

    def __bool__(self) -> bool:
        return bool(self.__value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")


class SecretStore(Protocol):
    """Named secrets. Names are ours (`connection/3`), never secret themselves.

    Every method raises ServiceError with a cause and advice; VaultLocked while the store is locked.
    """

    @property
    def kind(self) -> str:
        """`keyring`, `file` or `memory`."""
        ...

    @property
    def label(self) -> str:
        """The store for people: `keyring (Secret Service)`, `encrypted file`."""
        ...

    @property
    def locked(self) -> bool:
        """Whether `unlock` must come first, as far as is known without asking."""
        ...

    async def unlock(self, passphrase: str) -> None:
        """Open the store. A wrong passphrase is AUTHENTICATION with the code `wrong_passphrase`."""
        ...

    async def get(self, name: str) -> str | None:
        """The secret, or None when there is none of that name."""
        ...

    async def set(self, name: str, value: str) -> None:
        """Store or replace; durable on return."""
        ...

    async def delete(self, name: str) -> None:
        """Remove; removing what is not there is no error."""
        ...

    async def probe(self) -> None:
        """A real round trip with a throw-away entry."""
        ...


class Unpicklable:
    """A store holds keys: it does not travel between processes."""

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret store is not pickled")


class MemoryStore(Unpicklable):
    """Secrets for as long as the process lives: the demo company, and tests."""

    kind = "memory"
    label = "memory (forgotten at the end)"
    locked = False

    def __init__(self) -> None:
        self._secrets: dict[str, Secret] = {}

    async def unlock(self, passphrase: str) -> None:
        """Nothing to unlock."""

    async def get(self, name: str) -> str | None:
        held = self._secrets.get(name)
        return None if held is None else held.reveal()

    async def set(self, name: str, value: str) -> None:
        self._secrets[name] = Secret(value)

    async def delete(self, name: str) -> None:
        self._secrets.pop(name, None)

    async def probe(self) -> None:
        """Always works."""

    def __repr__(self) -> str:
        return f"MemoryStore({len(self._secrets)} secrets)"
