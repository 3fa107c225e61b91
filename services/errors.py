"""One error type for everything a service reports: category, cause in words, advice.

The five categories are the program's vocabulary for "what kind of failure is this": they decide
whether a call is retried and what the operator is told to do. A message is written for an operator,
never a class name, and never carries a secret (see `services.security.redact`).
"""

from __future__ import annotations

from enum import StrEnum


class Category(StrEnum):
    """What kind of failure it is, and so what may be done about it."""

    TRANSIENT = "transient"
    PERMANENT = "permanent"
    RATE_LIMIT = "rate_limit"
    TIMEOUT = "timeout"
    AUTHENTICATION = "authentication"


class ServiceError(Exception):
    """A failure with a cause in words and a piece of advice.

    `message` says what happened and why, `advice` what to do; both are one sentence that begins with a
    capital (advice that is a command does not) and has no final full stop. `code` is a short stable
    word for programs (`wrong_key`, `missing_permission`, …). `retry_after` is in seconds and set only
    where the other side named it.
    """

    def __init__(
        self,
        message: str,
        *,
        category: Category = Category.PERMANENT,
        advice: str = "",
        code: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.category = category
        self.advice = advice if advice.startswith("callboard ") else advice[:1].upper() + advice[1:]
        self.code = code
        self.retry_after = retry_after
        self.earlier: tuple[ServiceError, ...] = ()
        """How earlier attempts at the same thing failed, oldest first."""

    def say_more(self, what: str) -> None:
        """Add to the message, where more is known than where the error was made."""
        self.message = f"{self.message}; {what}"
        self.args = (self.message,)

    def as_dict(self) -> dict[str, str]:
        """The documented JSON shape of an error: category, message, advice."""
        return {"category": self.category.value, "message": self.message, "advice": self.advice}


class UsageError(ServiceError):
    """The operator asked for something that cannot be: an unknown name, a bad value (exit code 2)."""


class VaultLocked(ServiceError):
    """The secret store needs a passphrase that it has not been given (exit code 5)."""
